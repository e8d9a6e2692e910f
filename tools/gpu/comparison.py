"""Compares two masks of one image: how many pixels differ, at borders and away from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

__all__ = ["LIMITS", "REACH", "Limit", "MaskDifference", "compare_masks"]

REACH = 2
"""How far from a change of label a pixel counts as one at the border, in pixels or voxels."""


class Limit(NamedTuple):
    """Largest differences that are due to rounding.

    Args:
        at_border: share of the pixels at borders.
        away: share of all other pixels.
    """

    at_border: float
    away: float


LIMITS = {"float32": Limit(0.005, 1e-5), "TF32": Limit(0.02, 1e-4), "bfloat16": Limit(0.05, 1e-3)}
"""By precision. TF32 and bfloat16 round each product to 11 and 8 bits, so that pixels with a probability near one half
change sides; where an object is split there or not, pixels inside of it change too."""


class MaskDifference(NamedTuple):
    """Numbers of pixels.

    Args:
        border: at most ``REACH`` from a change of label in the first mask.
        rest: all others.
        at_border: of those at the border, how many differ.
        away: of the others, how many differ.
    """

    border: int
    rest: int
    at_border: int
    away: int

    def is_within(self, limit: Limit) -> bool:
        """Whether both shares are at most the limit's."""
        return self.at_border <= limit.at_border * self.border and self.away <= limit.away * self.rest

    def __str__(self) -> str:
        return (
            f"{self.at_border} of {self.border} border pixels differ ({self.at_border / max(self.border, 1):.2%}), "
            f"{self.away} of the other {self.rest}"
        )


def compare_masks(wanted: np.ndarray, found: np.ndarray, objects: bool = False) -> MaskDifference:
    """How far ``found`` is from ``wanted``.

    Args:
        wanted: labels.
        found: labels on the same grid.
        objects: whether the labels are numbers of objects, which may be numbered in another order.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> wanted = np.repeat([0, 0, 0, 0, 1, 1, 1, 1], 2).reshape(1, -1)
        >>> found = np.repeat([0, 0, 0, 0, 0, 1, 1, 1], 2).reshape(1, -1)
        >>> compare_masks(wanted, found)
        MaskDifference(border=4, rest=12, at_border=2, away=0)
    """
    if wanted.shape != found.shape:
        raise ValueError(f"masks have shapes {wanted.shape} and {found.shape}; expected the same")
    if objects:
        found = renumber(wanted, found)
    size = [min(2 * REACH + 1, 2 * length - 1) for length in wanted.shape]
    border = ndimage.maximum_filter(wanted, size) != ndimage.minimum_filter(wanted, size)
    differs = wanted != found
    counts = border, ~border, differs & border, differs & ~border
    return MaskDifference(*(int(np.count_nonzero(each)) for each in counts))


def renumber(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """``found`` with each object under the number of the object of ``wanted`` that it shares most pixels with.

    Two objects that share most with the same one, or one that shares none, keep apart: only the larger overlap gets the
    number, the others get numbers that ``wanted`` lacks.

    Example:
        >>> renumber(np.array([0, 1, 1, 2]), np.array([0, 7, 7, 3])).tolist()
        [0, 1, 1, 2]
    """
    both = (wanted > 0) & (found > 0)
    pairs, counts = np.unique(np.stack([found[both], wanted[both]]), axis=1, return_counts=True)
    numbers: dict[int, int] = {0: 0}
    for i in np.argsort(-counts, kind="stable"):
        ours, theirs = int(pairs[0, i]), int(pairs[1, i])
        if ours not in numbers and theirs not in numbers.values():
            numbers[ours] = theirs
    free = int(wanted.max(initial=0)) + 1
    for ours in map(int, np.unique(found)):
        if ours not in numbers:
            numbers[ours], free = free, free + 1
    values = np.unique(found)
    return np.array([numbers[int(value)] for value in values])[np.searchsorted(values, found)]
