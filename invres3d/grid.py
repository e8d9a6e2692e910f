"""Rounding of what a coupling adds, so that adding and taking away again gives the same bits."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["RANGE", "add_rounded_", "grid_step", "round_to_grid"]

RANGE = 1024.0
"""Sums of numbers on the grid are exact while they are smaller than this."""


def grid_step(dtype: torch.dtype) -> float:
    """Distance of the grid's points: eps * RANGE / 2, which is 2^-14 in float32 and 2^-43 in float64.

    Example:
        >>> grid_step(torch.float32) == 2**-14
        True
    """
    return torch.finfo(dtype).eps * RANGE / 2


class _RoundToGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        step = grid_step(x.dtype)
        return (x / step).round_().mul_(step)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return grad


def round_to_grid(x: torch.Tensor) -> torch.Tensor:
    """Nearest point of the grid, step * round(x / step); its gradient is taken as that of the identity.

    Half precision is taken to float32, whose grid is finer.

    Args:
        x: any shape.

    Source:
        Not in the paper; the straight-through gradient is that of Bengio, Léonard, Courville 2013, "Estimating or
        Propagating Gradients Through Stochastic Neurons for Conditional Computation".

    Example:
        >>> (round_to_grid(torch.tensor([0.1, 1.0])) * 2**14).tolist()
        [1638.0, 16384.0]
    """
    return _RoundToGrid.apply(x.to(torch.promote_types(x.dtype, torch.float32)))


def add_rounded_(target: torch.Tensor, update: torch.Tensor, sign: int = 1) -> None:
    """Add ``sign * round_to_grid(update)`` to ``target`` in place; uses ``update`` up. Outside of autograd.

    Args:
        target: on the grid and smaller than ``RANGE`` before and after, so that the opposite sign undoes it exactly.
        update: of target's shape.
        sign: 1 or -1.

    Example:
        >>> x = torch.tensor([1.0])
        >>> add_rounded_(x, torch.tensor([0.1]))
        >>> add_rounded_(x, torch.tensor([0.1]), sign=-1)
        >>> x.item()
        1.0
    """
    step = grid_step(target.dtype)
    target.add_(update.to(target.dtype).div_(step).round_(), alpha=sign * step)
