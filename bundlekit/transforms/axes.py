"""Reorders the axes of volumes to the patient's right, front and top, and back."""

from __future__ import annotations

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

__all__ = ["from_ras", "to_ras"]


def to_ras(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A view of a volume whose axes run as nearly as they can to the right, the front and the top, and its affine.

    Args:
        array: (x, y, z) in any order and direction.
        affine: 4 x 4 matrix from voxel index to position in mm.

    Example:
        >>> leftwards = np.diag([-5.0, 1, 1, 1])
        >>> array, affine = to_ras(np.arange(8).reshape(4, 2, 1), leftwards)
        >>> array[:, 0, 0].tolist(), affine[0].tolist()
        ([6, 4, 2, 0], [5.0, 0.0, 0.0, -15.0])
    """
    axes = io_orientation(affine)
    return apply_orientation(array, axes), affine @ inv_ornt_aff(axes, array.shape)


def from_ras(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The inverse of :func:`to_ras`, with the affine that went in there.

    Example:
        >>> leftwards = np.diag([-5.0, 1, 1, 1])
        >>> from_ras(np.arange(8).reshape(4, 2, 1), leftwards)[:, 0, 0].tolist()
        [6, 4, 2, 0]
    """
    return apply_orientation(array, ornt_transform(axcodes2ornt("RAS"), io_orientation(affine)))
