"""Voxel grid of a volume, and a check that two volumes have the same one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.affines import voxel_sizes

from ..errors import InputError

__all__ = ["Grid", "check_same_grid", "format_lengths"]

_TOLERANCE_VOXELS = 0.05  # headers store rounded numbers; a twentieth of a voxel moves no label


def format_lengths(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:g}" for length in lengths)


@dataclass(frozen=True, eq=False)
class Grid:
    """Size of an array and, for a volume, the matrix from its indices to millimetres.

    Args:
        shape: number of pixels or voxels along each axis.
        affine: 4 x 4 matrix from voxel index to position in mm, None for a plane.

    Example:
        >>> print(Grid((10, 20, 30), np.diag([2, 1, 1, 1])))
        10 x 20 x 30
        >>> Grid((10, 20, 30), np.diag([2, 1, 1, 1])).spacing_mm.tolist()
        [2.0, 1.0, 1.0]
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None = None

    def __str__(self) -> str:
        return format_lengths(self.shape)

    @property
    def spacing_mm(self) -> np.ndarray:
        """Edge lengths of a voxel."""
        if self.affine is None:
            return np.ones(len(self.shape))
        return voxel_sizes(self.affine)

    def distance_mm(self, other: Grid) -> float:
        """The largest distance between equal voxel indices of two grids of one shape, which is at a corner."""
        if self.affine is None or other.affine is None:
            return 0.0
        corners = np.stack(np.meshgrid(*([0, n - 1] for n in self.shape), [1], indexing="ij")).reshape(4, -1)
        return float(np.linalg.norm(((self.affine - other.affine) @ corners)[:3], axis=0).max())


def check_same_grid(
    path: str | os.PathLike, grid: Grid, reference: str, reference_grid: Grid, exact: bool, remedy: str
) -> None:
    """Make sure that a file has the shape of another one and that their voxels lie at the same places.

    Args:
        path: the file.
        grid: its grid.
        reference: the file that it belongs to, in words.
        reference_grid: that one's grid.
        exact: whether only rounding errors are allowed, as MONAI does where it joins files to the channels of one
            image; otherwise corners may differ by a twentieth of a voxel.
        remedy: what to do where they differ.

    Raises:
        InputError: where they differ.

    Example:
        >>> near, far = (Grid((3, 3, 3), np.diag([x, 1, 1, 1])) for x in (1.0, 1.5))
        >>> check_same_grid("label.nii", far, "image.nii", near, False, "resample it")
        Traceback (most recent call last):
        bundlekit.errors.InputError: label.nii: its voxels are up to 1 mm away from the voxels of image.nii; \
expected the same affine; resample it
    """
    if grid.shape != reference_grid.shape:
        raise InputError(path, f"is {grid}", f"{reference_grid} as {reference}", remedy)
    if grid.affine is None or reference_grid.affine is None:
        return
    distance_mm = grid.distance_mm(reference_grid)
    same = np.allclose(reference_grid.affine, grid.affine)  # with the tolerance of MONAI's readers
    if not same and (exact or distance_mm > _TOLERANCE_VOXELS * reference_grid.spacing_mm.min()):
        found = f"its voxels are up to {distance_mm:.3g} mm away from the voxels of {reference}"
        raise InputError(path, found, "the same affine", remedy)
