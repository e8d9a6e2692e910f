"""Steps of an invertible U-Net: each changes the state of the levels and can undo the change."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .coupling import AdditiveCoupling, Branch, call_branch
from .gradients import ParameterGradients, pull_back
from .grid import add_rounded_
from .slabs import add_branch_, is_slabwise, pull_back_branch_

__all__ = ["Residual", "Step", "halves"]


def halves(x: torch.Tensor) -> list[torch.Tensor]:
    """First and second half of the channels, each with memory of its own.

    Example:
        >>> [half.flatten().tolist() for half in halves(torch.arange(4).view(1, 4, 1, 1, 1))]
        [[0, 1], [2, 3]]
    """
    return [half.clone(memory_format=torch.contiguous_format) for half in x.chunk(2, 1)]


class Step(nn.Module):
    """What a chain is made of. The state is a list: two halves of the channels of each level, the deepest level last.

    ``forward`` is the step for autograd, the exporters and evaluation. ``advance_`` is the same in place, outside of
    autograd, and ``retreat_`` takes it back bit by bit while it turns the gradients by the state after the step into
    those by the state before. Both may replace, append and remove tensors of the lists, which nobody else uses.
    """

    def draw_factors(self, x: torch.Tensor) -> torch.Tensor | None:
        """What is random in a training pass over a batch like ``x``; handed to the methods below."""
        return None

    def forward(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> list[torch.Tensor]:
        raise NotImplementedError

    def advance_(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> Any:
        """Take the step. Returns what ``retreat_`` needs in addition to the state."""
        raise NotImplementedError

    def retreat_(
        self,
        levels: list[torch.Tensor],
        grads: list[torch.Tensor],
        factors: torch.Tensor | None,
        saved: Any,
        parameter_grads: ParameterGradients,
    ) -> None:
        raise NotImplementedError


def _add_whole_(target: torch.Tensor, branch: Branch, x: torch.Tensor, factors: torch.Tensor | None) -> None:
    update = call_branch(branch, x, factors)
    if update.untyped_storage()._cdata == x.untyped_storage()._cdata:  # a branch of identities
        update = update.clone()
    add_rounded_(target, update)


def _pull_back_whole_(
    target: torch.Tensor,
    branch: Branch,
    x: torch.Tensor,
    factors: torch.Tensor | None,
    saved: None,
    grad_target: torch.Tensor,
    grad_x: torch.Tensor,
    parameter_grads: ParameterGradients,
) -> None:
    (grad,) = pull_back(
        lambda leaf: call_branch(branch, leaf, factors),
        [x],
        branch.parameters(),
        grad_target,
        parameter_grads,
        use=lambda update: add_rounded_(target, update.clone(), sign=-1),
    )
    grad_x += grad


class Residual(Step):
    """An additive coupling of the deepest level's halves.

    Args:
        coupling: the coupling. Outside of autograd a branch of :class:`.coupling.Branch`'s own layers in the order
            "pre" runs slab by slab, any other one whole.
    """

    def __init__(self, coupling: AdditiveCoupling) -> None:
        super().__init__()
        self.coupling = coupling

    def draw_factors(self, x: torch.Tensor) -> torch.Tensor | None:
        return self.coupling.draw_factors(x)

    def forward(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> list[torch.Tensor]:
        x2 = levels.pop()
        x1 = levels.pop()
        y1, y2 = self.coupling(x1, x2, factors)
        levels.append(y1)
        levels.append(y2)
        return levels

    def advance_(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> Any:
        x1, x2 = levels[-2:]
        n1, n2 = self.coupling.n1, self.coupling.n2
        factors1, factors2 = (None, None) if factors is None else factors
        add1_, add2_ = (add_branch_ if is_slabwise(n) else _add_whole_ for n in (n1, n2))
        return add1_(x1, n1, x2, factors1), add2_(x2, n2, x1, factors2)

    def retreat_(
        self,
        levels: list[torch.Tensor],
        grads: list[torch.Tensor],
        factors: torch.Tensor | None,
        saved: Any,
        parameter_grads: ParameterGradients,
    ) -> None:
        y1, y2 = levels[-2:]
        grad1, grad2 = grads[-2:]
        n1, n2 = self.coupling.n1, self.coupling.n2
        factors1, factors2 = (None, None) if factors is None else factors
        undo1_, undo2_ = (pull_back_branch_ if is_slabwise(n) else _pull_back_whole_ for n in (n1, n2))
        undo2_(y2, n2, y1, factors2, saved[1], grad2, grad1, parameter_grads)
        undo1_(y1, n1, y2, factors1, saved[0], grad1, grad2, parameter_grads)
