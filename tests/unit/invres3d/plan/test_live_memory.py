"""Bytes counted against sums done by hand."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from invres3d.plan.live_memory import LiveMemory

KIB = 1024


def _square_twice(x: torch.Tensor) -> None:
    """Needs, in addition to x: y = x^2 (1 KiB) and z = y^2 (1); both stay until y's last use."""
    y = x * x
    z = y * y
    z.add_(1)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_peak_of_a_chain(device):
    x = torch.ones(256, device=device)
    with LiveMemory() as memory:
        _square_twice(x)
        assert memory.current_bytes == 0
    assert memory.peak_bytes == 2 * KIB


def test_fake_tensors_count_like_real_ones():
    with FakeTensorMode():
        x = torch.ones(256)
        with LiveMemory() as memory:
            _square_twice(x)
    assert memory.peak_bytes == 2 * KIB


def test_views_count_once_and_keep_their_whole_storage():
    with LiveMemory() as memory:
        part = torch.zeros(256).view(16, 16)[0]
        assert memory.current_bytes == KIB
        del part
        assert memory.current_bytes == 0


def test_tensors_from_before_and_their_views_do_not_count():
    weight = torch.ones(16, 16)
    with LiveMemory() as memory:
        halves = weight.chunk(2)
        weight.mul_(2)
        assert memory.current_bytes == 0
        joined = torch.cat(halves)
    assert memory.current_bytes == joined.numel() * 4


def test_gradients_of_parameters_count():
    weight = torch.ones(256, requires_grad=True)
    with LiveMemory() as memory:
        weight.sum().backward()
    assert memory.current_bytes == KIB


def test_saved_for_backward_counts_until_it_is_freed():
    x = torch.ones(256, requires_grad=True)
    with LiveMemory() as memory:
        y = x.exp()  # keeps its output
        total = y.sum()
        del y
        assert memory.current_bytes == KIB + 4
        total.backward()
        del total
        assert memory.current_bytes == KIB  # the gradient


def test_resizing_by_hand_counts_and_ends_with_the_block():
    plain = torch.UntypedStorage.resize_
    with LiveMemory() as memory:
        x = torch.zeros(256)
        x.untyped_storage().resize_(0)
        assert memory.current_bytes == 0
        x.untyped_storage().resize_(2 * KIB)
    assert memory.current_bytes == memory.peak_bytes == 2 * KIB
    assert torch.UntypedStorage.resize_ is plain
