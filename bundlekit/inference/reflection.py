"""Indices that continue an axis by reflection at its ends."""

from __future__ import annotations

import torch

__all__ = ["reflected_indices"]


def reflected_indices(start: int, length: int, size: int) -> torch.Tensor:
    """Indices start .. start + length - 1 folded into 0 .. size - 1 by reflection without repeating the border.

    Unlike torch's reflection it may go on for longer than the axis is.

    Args:
        start: first place, below 0 before the axis.
        length: number of places.
        size: of the axis.

    Example:
        >>> reflected_indices(-2, 8, 3).tolist()
        [2, 1, 0, 1, 2, 1, 0, 1]
    """
    period = max(2 * (size - 1), 1)
    index = torch.arange(start, start + length) % period
    return torch.where(index < size, index, period - index)
