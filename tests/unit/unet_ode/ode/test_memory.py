"""What ODEBlock keeps for its gradients, and what it computes again."""

from __future__ import annotations

import math
import weakref

import pytest
import torch
from torch import nn

from unet_ode.ode import ODEBlock


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, t, y):
        return self.outer(torch.tanh(self.inner(y) + t[:, None]))


def _start(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 4, dtype=torch.float64)


def _saved_bytes(block: ODEBlock, y: torch.Tensor) -> int:
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
        block(y)
    return sum(sizes)


def test_memory_is_flat_in_the_number_of_steps():
    field, y = Field().double(), _start()
    params = sum(p.nbytes for p in field.parameters())
    state = y.nbytes + 3 * 8  # and the 64-bit numbers of its samples
    for max_states in (1, 2, 4):
        for num_steps in (4, 8, 32):
            block = ODEBlock(field, num_steps=num_steps, max_states=max_states)
            assert _saved_bytes(block, y) == params + max_states * state
        block = ODEBlock(field, rtol=1e-7, atol=1e-7, max_states=max_states)
        assert params + state <= _saved_bytes(block, y) <= params + max_states * state
    plain = [_saved_bytes(ODEBlock(field, num_steps=n, gradient="backprop"), y) for n in (8, 16, 32)]
    assert plain[2] - plain[1] == 2 * (plain[1] - plain[0]) > 0


class _Watched(ODEBlock):
    """Counts how many of the states that it has made are alive, at each step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._made: list[weakref.ref] = []
        self.most = 0

    def advance(self, t, h, y):
        end = super().advance(t, h, y)
        self._made = [made for made in [*self._made, weakref.ref(end)] if made() is not None]
        self.most = max(self.most, len(self._made))
        return end


@pytest.mark.parametrize("max_states", [1, 2, 4])
def test_memory_of_backward_grows_with_the_logarithm_of_the_steps(max_states):
    """Each level of parts holds the starts of one part's parts but the first, whose start the level above holds."""
    field, y = Field().double(), _start()
    for num_steps in (4, 64, 256):
        block = _Watched(field, num_steps=num_steps, max_states=max_states)
        end = block(y)
        block.most = 0
        end.sum().backward()
        width = max(max_states, 2)
        levels = math.ceil(math.log(num_steps, width))
        assert block.most <= (width - 1) * levels + max_states + 3  # those of the forward pass, and two at work
