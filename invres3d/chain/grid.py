"""Rounds what a coupling adds to a grid, so that subtracting it restores the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = [
    "RANGE",
    "StateMismatchError",
    "add_rounded_",
    "channel_sums",
    "explain_range",
    "grid_step",
    "has_data",
    "largest_magnitude",
    "round_to_grid",
    "round_to_grid_",
    "sums_match",
]

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
    """Nearest point of the grid, step * round(x / step); its gradient is taken as the identity's.

    Half precision is taken to float32, whose grid is finer.

    Args:
        x: any shape.

    Source:
        Not in the paper; the straight-through gradient is from Bengio, Léonard, Courville 2013, "Estimating or
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


def round_to_grid_(x: torch.Tensor) -> torch.Tensor:
    """``x`` rounded to the grid, in its own memory unless it is of half precision. Outside of autograd.

    Args:
        x: any shape.

    Example:
        >>> (round_to_grid_(torch.tensor([0.1])) * 2**14).item()
        1638.0
    """
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    step = grid_step(x.dtype)
    return x.div_(step).round_().mul_(step)


class StateMismatchError(RuntimeError):
    """A state computed back has not the bits that it had."""


def has_data(x: torch.Tensor) -> bool:
    """Whether it is a tensor with content, other than those that memory is planned with."""
    return type(x) is torch.Tensor and not x.is_meta


def channel_sums(levels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum of each channel in float64, where sums of points of the grid are exact; a few channels at a time.

    Args:
        levels: tensors (N, C, D, H, W).

    Example:
        >>> channel_sums([torch.ones(2, 3, 2, 2, 2)]).tolist()
        [16.0, 16.0, 16.0]
    """
    parts = [
        part.sum((0, 2, 3, 4), dtype=torch.float64) for x in levels for part in x.split(max(1, x.shape[1] // 8), 1)
    ]
    return torch.cat(parts)


def sums_match(levels: Sequence[torch.Tensor], sums: torch.Tensor) -> bool:
    """Whether the sums of the channels are these; taken for granted of tensors without content."""
    return not has_data(levels[0]) or torch.equal(channel_sums(levels), sums)


def largest_magnitude(levels: Sequence[torch.Tensor]) -> float:
    """The largest absolute value; NaN where there is one."""
    ends = torch.stack([end for x in levels for end in x.detach().aminmax()])
    return ends.abs().max().item()


class RangeError(RuntimeError, ArithmeticError):
    """Activations are too large for exact sums, in most cases because a training diverges."""


def explain_range(engine: str, magnitude: float) -> str | None:
    """The error message for a state of this magnitude; None where it is in the range of exactness.

    Example:
        >>> explain_range("native", 1.0) is None
        True
    """
    if magnitude < RANGE:
        return None
    return (
        f"the {engine} engine: activation magnitude {magnitude:.4g} exceeds {RANGE:.0f}, up to which sums are exact: "
        "normalise the images, lower the learning rate or clip the gradients, or use engine='checkpoint'"
    )
