"""Checks DICOM: a folder with one series, a file with several frames, a file of one slice; opens them through ITK."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import itk
import numpy as np

from ..errors import InputError
from .dicom_elements import is_dicom
from .dicom_frames import check_steps, read_frames

__all__ = ["check_dicom", "check_stack", "find_files", "find_step_mm", "is_dicom_input", "is_series", "open_dicom"]

_NUM_LOOKED_AT = 3  # a folder of DICOM files may hold a text file or an index as well
_MAX_DRIFT_MM = 1.0  # of the last slice against the first; headers round positions
_MAX_DIFFERENCE = 2e-3  # of the way from pixel to pixel in two slices, of its length; headers round them
_TO_RAS = np.array([-1, -1, 1])


def is_series(path: str | os.PathLike) -> bool:
    """Whether ``path`` is a folder with DICOM files, by the ending .dcm or the mark in one of its first files.

    Args:
        path: anything.

    Example:
        >>> is_series("/nowhere")
        False
    """
    folder = Path(path)
    if not os.path.isdir(folder) or not os.access(folder, os.R_OK | os.X_OK):
        return False
    names = sorted(name for name in os.listdir(folder) if name[0] != "." and name != "DICOMDIR")
    files = [folder / name for name in names if (folder / name).is_file()]
    return any(path.suffix.lower() == ".dcm" for path in files) or any(map(is_dicom, files[:_NUM_LOOKED_AT]))


def is_dicom_input(path: str | os.PathLike) -> bool:
    """Whether ``path`` is a folder with DICOM files, or such a file, by its ending .dcm or the mark in it.

    Example:
        >>> is_dicom_input("a.dcm"), is_dicom_input("a.nii")
        (True, False)
    """
    return is_series(path) or str(path).lower().endswith(".dcm") or is_dicom(path)


def _find_series(path: str) -> list[tuple[str, ...]]:
    """The files of each series, found as MONAI's ITKReader finds them."""
    finder = itk.GDCMSeriesFileNames.New()
    finder.SetUseSeriesDetails(True)
    finder.AddSeriesRestriction("0008|0021")  # date of the series
    finder.SetDirectory(path)
    return [tuple(finder.GetFileNames(uid)) for uid in finder.GetSeriesUIDs()]


def find_files(path: str | os.PathLike) -> tuple[str, ...]:
    """The files of an input: those of a folder's only series, or the file itself.

    Args:
        path: folder with one series, or a file.
    """
    if not os.path.isdir(path):
        return (str(path),)
    [files] = _find_series(str(path))
    return files


def open_dicom(path: str | os.PathLike) -> Any:
    """The image of ITK that MONAI's ITKReader makes of an input, without its values.

    Args:
        path: folder with one series, or a file.
    """
    files = find_files(path)
    one = len(files) == 1
    reader = itk.ImageFileReader.New(FileName=files[0]) if one else itk.ImageSeriesReader.New(FileNames=files)
    reader.UpdateOutputInformation()
    return reader.GetOutput()


def _origins_mm(files: tuple[str, ...]) -> tuple[np.ndarray, list[int]]:
    """The place of the first voxel of each file, in DICOM's axes, and its number of frames."""
    reader = itk.GDCMImageIO.New()
    origins, frames = [], []
    for file in files:
        reader.SetFileName(file)
        reader.ReadImageInformation()
        origins.append([reader.GetOrigin(axis) for axis in range(3)])
        frames.append(int(reader.GetDimensions(2)))
    return np.array(origins), frames


def find_step_mm(files: tuple[str, ...]) -> np.ndarray:
    """The way from each slice of a series to the next, as the positions in its files say.

    Where the gantry was tilted it is not at right angles to the slices.

    Args:
        files: of a series of even steps, two at least.

    Shape:
        (3,), in mm along DICOM's axes, which run to the left, the back and the head.
    """
    origins_mm, _ = _origins_mm(files)
    return np.diff(origins_mm, axis=0).mean(axis=0)


def check_dicom(path: str | os.PathLike) -> None:
    """Make sure that an input is one volume, whose slices follow each other in even, straight steps.

    Args:
        path: folder with one series, or a file of one slice or of several frames.

    Raises:
        InputError: where a folder holds no series or several, or a file with several frames next to others; where a
            file cannot be read or holds no orientation; where slices are missing, or they lie on no line.

    Example:
        >>> import tempfile
        >>> check_dicom(tempfile.mkdtemp())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bundlekit.errors.InputError: ...: holds 0 DICOM series; expected one; put each series into a folder of its own
    """
    if not os.path.isdir(path):
        read_frames(path)
        return
    try:
        series = _find_series(str(path))
        origins_mm, num_frames = _origins_mm(series[0] if len(series) == 1 else ())
    except RuntimeError as error:  # ITK has no exception of its own in Python
        reason = str(error).strip().splitlines()[-1]
        remedy = "copy the series again"
        raise InputError(path, f"cannot be read by ITK ({reason})", "complete DICOM files", remedy) from error
    if len(series) != 1:
        remedy = "put each series into a folder of its own"
        raise InputError(path, f"holds {len(series)} DICOM series", "one", remedy)
    if len(num_frames) > 1 and max(num_frames) > 1:
        found = f"holds {len(num_frames)} DICOM files, of which {sum(n > 1 for n in num_frames)} have several frames"
        remedy = "put each file with several frames into a folder of its own"
        raise InputError(path, found, "one such file, or files of one slice", remedy)
    _check_parallel(path, series[0])
    check_steps(path, np.diff(origins_mm, axis=0))


def _check_parallel(path: str | os.PathLike, files: tuple[str, ...]) -> None:
    """Make sure that each slice of a series can be read, and that all have one orientation and pixel spacing."""
    planes_mm = np.stack([read_frames(file).steps_mm[:, :2] for file in files])
    differs = np.abs(planes_mm - planes_mm[0]).max(axis=(1, 2)) > _MAX_DIFFERENCE * np.abs(planes_mm[0]).max()
    if differs.any():
        found = (
            f"{np.count_nonzero(differs)} of its {len(files)} slices differ from the first in orientation or spacing"
        )
        remedy = "put the slices of each orientation and spacing into a folder of their own"
        raise InputError(path, found, "one volume of parallel slices", remedy)


def check_stack(path: str | os.PathLike, affine: np.ndarray) -> None:
    """Make sure that the affine of an input puts its slices where its files say that they are.

    MONAI's ITKReader stacks slices along their normal, and frames as they follow each other in a file. Slices from a
    tilted gantry lie aside of that, and voxels come out too large by one over the tilt's cosine.
    :class:`bundlekit.inputs.volumes.DicomReader` gets both right.

    Args:
        path: folder with one series of even steps, or a file.
        affine: 4 x 4 matrix from voxel index to position in mm, x growing to the patient's right, as it was read.

    Raises:
        InputError: where the first or the last slice lies more than 1 mm from its place.
    """
    files = find_files(path)
    if len(files) == 1:
        frames = read_frames(files[0])
        origin_mm, step_mm, num_steps = frames.origin_mm, frames.steps_mm[:, 2], len(frames.order) - 1
    else:
        origins_mm, _ = _origins_mm(files)
        origin_mm, num_steps = origins_mm[0], len(files) - 1
        step_mm = (origins_mm[-1] - origin_mm) / num_steps
    off_mm = origin_mm * _TO_RAS - affine[:3, 3]
    drift_mm = np.linalg.norm(num_steps * (step_mm * _TO_RAS - affine[:3, 2]))
    if drift_mm > _MAX_DRIFT_MM:
        found = f"its slices are sheared (gantry tilt?): offset by {drift_mm:.3g} mm from the first to the last"
        remedy = "convert it with dcm2niix, which corrects the tilt"
        raise InputError(path, found, "slices stacked along their normal", remedy)
    if np.linalg.norm(off_mm) > _MAX_DRIFT_MM:
        found = f"its first slice is read {np.linalg.norm(off_mm):.3g} mm from its place"
        raise InputError(path, found, "frames in the order of their positions", "convert it with dcm2niix")
