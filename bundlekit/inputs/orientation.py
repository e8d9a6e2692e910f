"""Turns images whose EXIF or TIFF orientation is not upright, as viewers show them."""

from __future__ import annotations

import numpy as np

__all__ = ["ORIENTATION", "swaps_axes", "turn"]

ORIENTATION = 274
"""Number of the tag in TIFF and in EXIF."""
_TURNED = range(2, 9)  # 1 is upright; 0 and others are none of the eight, and taken for "not known"
_TRANSPOSED = range(5, 9)
_FLIPS: dict[int, tuple[int, ...]] = {2: (1,), 3: (0, 1), 4: (0,), 5: (), 6: (1,), 7: (0, 1), 8: (0,)}
"""The axes to reverse, rows 0 and columns 1, after rows and columns are swapped from 5 on."""


def swaps_axes(orientation: int) -> bool:
    """Whether an orientation turns the image by a quarter, so that width becomes height.

    Example:
        >>> swaps_axes(3), swaps_axes(6)
        (False, True)
    """
    return orientation in _TRANSPOSED


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """The upright picture.

    Args:
        array: (rows, columns) or (rows, columns, channels), as stored.
        orientation: what tag 274 (EXIF or TIFF) says, 1 where there is none.

    Returns:
        The array itself where it is upright; otherwise a copy.

    Example:
        >>> turn(np.array([[1, 2, 3]]), 6).tolist(), turn(np.array([[1, 2, 3]]), 3).tolist()
        ([[1], [2], [3]], [[3, 2, 1]])
    """
    if orientation not in _TURNED:
        return array
    turned = np.flip(array.swapaxes(0, 1) if swaps_axes(orientation) else array, _FLIPS[orientation])
    return np.ascontiguousarray(turned)
