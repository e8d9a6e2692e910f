"""Checks that the header of a volume defines the positions of its voxels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import nibabel
import numpy as np
from monai.data.utils import correct_nifti_header_if_necessary
from nibabel.affines import voxel_sizes
from nibabel.openers import ImageOpener
from nibabel.orientations import io_orientation

from ..errors import InputError
from .grids import Grid, format_lengths

__all__ = ["FAMILY", "check_affine", "check_header", "check_resampled"]

FAMILY = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")
"""Endings of NIfTI and of Analyze, which shares them."""
_MOST_RESAMPLED = 512  # an edge; volumes of the head at 1 mm have half of that
_FEWEST_RESAMPLED = 4  # along an axis; what is left of a volume whose header has metres for millimetres is one
_TOLERANCE_VOXELS = 0.05  # headers store rounded numbers; a twentieth of a voxel moves no label
_MIN_VOLUME_RATIO = 1e-3  # of the box that three directions span to a cuboid with those edges
_CONVERT = "convert it again from the scanner's files"
_CORRECT = f"correct its qform or sform, or {_CONVERT}"


def check_header(path: str | os.PathLike) -> None:
    """Make sure that a file of the NIfTI family says how large its voxels are and how they are oriented.

    Readers mend such headers without a word: a size of 0 becomes 1 mm, a negative one loses its sign, files that hold
    no orientation get one, and an affine that is not finite becomes the identity. Where the sform disagrees with the
    size of the voxels MONAI takes the qform in its place, other programs do not. Files of other types, and what no
    reader can open, pass.

    Args:
        path: the file.

    Raises:
        InputError: where a size is not above 0, where there is no orientation (both codes are 0, or it is a plain
            Analyze file), where the affine is not finite, or where MONAI would take another one than it says.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.nii"
        >>> nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)), path)
        >>> check_header(path)
    """
    if not str(path).lower().endswith(FAMILY):
        return
    try:
        opened: Any = nibabel.load(path)
        kind: Any = type(opened.header)  # nibabel's base class of headers declares none of what follows
        held_in = opened.file_map.get("header", opened.file_map["image"]).filename
        with ImageOpener(held_in) as file:
            header = kind.from_fileobj(file, check=False)
        sizes_mm = header["pixdim"][1:4]
        image: Any = nibabel.load(path)
        affine = np.array(image.affine, float)  # MONAI changes the image's own
    except Exception:  # the reader of the image reports it
        return
    if not (np.isfinite(sizes_mm) & (sizes_mm > 0)).all():
        found = f"its header gives a voxel size of {format_lengths(sizes_mm)} mm"
        raise InputError(path, found, "positive sizes", f"correct its pixdim, or {_CONVERT}")
    if not issubclass(kind, nibabel.Nifti1Header):
        remedy = "convert it with the bundle's scripts/prepare_data.py"
        raise InputError(path, "is an Analyze file, which holds no orientation", "a NIfTI file", remedy)
    if not (header["sform_code"] or header["qform_code"]):
        found = "its header holds no orientation (qform_code and sform_code are 0)"
        raise InputError(path, found, "one of them above 0", f"{_CONVERT}, or set its sform if you know it")
    _check_finite(path, affine)
    _check_one_place(path, image, affine, sizes_mm)


def _check_one_place(path: str | os.PathLike, image: Any, affine: np.ndarray, sizes_mm: np.ndarray) -> None:
    """Make sure that MONAI, which corrects some headers, puts the voxels where the header says."""
    shape = (*image.shape, 1, 1)[:3]
    said, taken = Grid(shape, affine), Grid(shape, correct_nifti_header_if_necessary(image).affine)
    distance_mm = said.distance_mm(taken)
    if not distance_mm <= _TOLERANCE_VOXELS * said.spacing_mm.min():
        sform_mm, pixdim_mm = format_lengths(said.spacing_mm.tolist()), format_lengths(sizes_mm.tolist())
        found = f"its sform has a voxel size of {sform_mm} mm and its pixdim of {pixdim_mm} mm"
        found += f", so that the positions of voxels differ by up to {distance_mm:.3g} mm"
        remedy = (
            "save it with the correct size; if the sform is correct, by image.set_qform(image.affine, 1) in nibabel"
        )
        raise InputError(path, found, "the same in both", remedy)


def _check_finite(path: str | os.PathLike, affine: np.ndarray) -> None:
    if not np.isfinite(affine).all():
        raise InputError(path, "its affine has values that are not finite", "a matrix of finite numbers", _CORRECT)


def check_affine(path: str | os.PathLike, affine: np.ndarray) -> None:
    """Make sure that a matrix maps voxels to places: finite numbers, three directions that span a volume.

    Args:
        path: the file that it is from.
        affine: 4 x 4 matrix from voxel index to position in mm.

    Raises:
        InputError: where it does not.

    Example:
        >>> check_affine("a.nii", np.diag([1.0, 0, 1, 1]))
        Traceback (most recent call last):
        bundlekit.errors.InputError: a.nii: its affine, with a voxel size of 1 x 0 x 1 mm, is singular; expected three \
linearly independent axes; correct its qform or sform, or convert it again from the scanner's files
    """
    _check_finite(path, affine)
    edges_mm = voxel_sizes(affine)
    if abs(np.linalg.det(affine[:3, :3])) <= _MIN_VOLUME_RATIO * edges_mm.prod():
        found = f"its affine, with a voxel size of {format_lengths(edges_mm)} mm, is singular"
        raise InputError(path, found, "three linearly independent axes", _CORRECT)


def check_resampled(path: str | os.PathLike, grid: Grid, spacing_mm: float | Sequence[float]) -> None:
    """Make sure that a volume brought to other voxels is not larger, or smaller, than any that is meant.

    A voxel size that is wrong by a factor, as of a header in micrometres, makes it larger by that along each axis that
    is resampled, and memory runs out; of one in metres a single voxel is left.

    Args:
        path: the file.
        grid: its grid.
        spacing_mm: the edge of the voxels that it is brought to, or those along the axes that are nearest to the
            patient's right, front and top; 0 keeps the distance along an axis.

    Raises:
        InputError: where it would have more than 512 x 512 x 512 voxels, and more than it has, or fewer than 4 along an
            axis that has as many.

    Example:
        >>> check_resampled("a.nii", Grid((36, 50, 36), np.diag([20.0, 20, 20, 1])), 1.0)
        Traceback (most recent call last):
        bundlekit.errors.InputError: a.nii: its voxels of 20 x 20 x 20 mm become 720 x 1000 x 720 voxels of 1 x 1 x 1 \
mm; expected at most 512 x 512 x 512; correct its voxel size, or pass a larger --spacing_mm
        >>> check_resampled("a.nii", Grid((36, 50, 36), np.diag([20.0, 20, 20, 1])), (1.0, 1.0, 0))
    """
    edges_mm = np.broadcast_to(spacing_mm, 3)
    if grid.affine is not None:
        edges_mm = edges_mm[io_orientation(grid.affine)[:, 0].astype(int)]
    edges_mm = np.where(edges_mm == 0, grid.spacing_mm, edges_mm)
    size = np.ceil(np.round(np.array(grid.shape) * grid.spacing_mm / edges_mm, 6))
    too_large = size.prod() > max(_MOST_RESAMPLED**3, np.prod(grid.shape, dtype=float))
    if too_large or ((size < _FEWEST_RESAMPLED) & (np.array(grid.shape) >= _FEWEST_RESAMPLED)).any():
        now_mm, then_mm = format_lengths(grid.spacing_mm.tolist()), format_lengths(edges_mm.tolist())
        found = f"its voxels of {now_mm} mm become {format_lengths(size.tolist())} voxels of {then_mm} mm"
        most = f"at most {format_lengths([_MOST_RESAMPLED] * 3)}"
        fewest = f"at least {_FEWEST_RESAMPLED} along each axis"
        remedy = f"correct its voxel size, or pass a {'larger' if too_large else 'smaller'} --spacing_mm"
        raise InputError(path, found, most if too_large else fewest, remedy)
