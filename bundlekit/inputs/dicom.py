"""Reads a folder with one DICOM series as a volume, through ITK."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import itk
import numpy as np

from ..errors import InputError

__all__ = ["check_series", "check_stack", "find_step_mm", "find_thickness_mm", "is_series", "open_series"]

_NUM_LOOKED_AT = 3  # a folder of DICOM files may hold a text file or an index as well
_MAX_UNEVENNESS = 0.1  # of the step from slice to slice; headers round positions
_MAX_DRIFT_MM = 1.0  # of the last slice against the first, for the same reason


def _is_dicom(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


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
    return any(path.suffix.lower() == ".dcm" for path in files) or any(map(_is_dicom, files[:_NUM_LOOKED_AT]))


def _find_series(path: str) -> list[tuple[str, ...]]:
    """The files of each series, found as MONAI's ITKReader finds them."""
    finder = itk.GDCMSeriesFileNames.New()
    finder.SetUseSeriesDetails(True)
    finder.AddSeriesRestriction("0008|0021")  # date of the series
    finder.SetDirectory(path)
    return [tuple(finder.GetFileNames(uid)) for uid in finder.GetSeriesUIDs()]


def open_series(path: str | os.PathLike) -> Any:
    """The image of ITK that MONAI's ITKReader makes of a series, without its values.

    Args:
        path: folder with one series.
    """
    [files] = _find_series(str(path))
    one = len(files) == 1
    reader = itk.ImageFileReader.New(FileName=files[0]) if one else itk.ImageSeriesReader.New(FileNames=files)
    reader.UpdateOutputInformation()
    return reader.GetOutput()


def _steps_mm(files: tuple[str, ...]) -> np.ndarray:
    """The way from each slice to the next, in DICOM's axes."""
    reader = itk.GDCMImageIO.New()
    origins = []
    for file in files:
        reader.SetFileName(file)
        reader.ReadImageInformation()
        origins.append([reader.GetOrigin(axis) for axis in range(3)])
    return np.diff(origins, axis=0)


def find_step_mm(path: str | os.PathLike) -> np.ndarray | None:
    """The way from each slice of a series to the next, as the positions in its files say; None of a single slice.

    Where the gantry was tilted it is not at right angles to the slices.

    Args:
        path: folder with one series of even steps.

    Shape:
        (3,), in mm along DICOM's axes, which run to the left, the back and the head.
    """
    steps_mm = _steps_mm(*_find_series(str(path)))
    return steps_mm.mean(axis=0) if len(steps_mm) else None


def find_thickness_mm(path: str | os.PathLike) -> float | None:
    """The thickness of the first slice of a series, as its file says; None where it does not.

    Args:
        path: folder with one series.
    """
    reader = itk.GDCMImageIO.New()
    reader.SetFileName(_find_series(str(path))[0][0])
    reader.ReadImageInformation()
    is_there, text = reader.GetValueFromTag("0018|0050", "")
    try:
        thickness_mm = float(text) if is_there else 0.0
    except ValueError:  # an empty entry, which the standard allows
        return None
    return thickness_mm if thickness_mm > 0 else None


def check_series(path: str | os.PathLike) -> None:
    """Make sure that a folder holds one series of DICOM files whose slices follow each other in even, straight steps.

    Args:
        path: the folder.

    Raises:
        InputError: where it holds none or several, a file cannot be read, slices are missing, or they lie on no line.

    Example:
        >>> import tempfile
        >>> check_series(tempfile.mkdtemp())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bundlekit.errors.InputError: ...: holds 0 DICOM series; expected one; put each series into a folder of its own
    """
    try:
        series = _find_series(str(path))
        steps_mm = _steps_mm(series[0]) if len(series) == 1 else np.zeros((0, 3))
    except RuntimeError as error:  # ITK has no exception of its own in Python
        reason = str(error).strip().splitlines()[-1]
        remedy = "copy the series again"
        raise InputError(path, f"cannot be read by ITK ({reason})", "complete DICOM files", remedy) from error
    if len(series) != 1:
        remedy = "put each series into a folder of its own"
        raise InputError(path, f"holds {len(series)} DICOM series", "one", remedy)
    if not len(steps_mm):
        return
    lengths_mm = np.linalg.norm(steps_mm, axis=1)
    most_mm = _MAX_UNEVENNESS * np.median(lengths_mm)
    if np.ptp(lengths_mm) > most_mm:
        found = f"its slices are {lengths_mm.min():.3g} to {lengths_mm.max():.3g} mm apart"
        raise InputError(path, found, "equal distances", "copy the missing slices, or resample the series")
    aside_mm = np.linalg.norm(steps_mm - steps_mm.mean(axis=0), axis=1).max()
    if aside_mm > most_mm:
        found = f"its slices are not on one line (one is offset by {aside_mm:.3g} mm)"
        raise InputError(path, found, "slices along one line", "resample the series")


def check_stack(path: str | os.PathLike, affine: np.ndarray) -> None:
    """Make sure that the affine of a series puts its slices where its files say that they are.

    MONAI's ITKReader stacks slices along their normal; those from a tilted gantry lie aside of that, and voxels come
    out too large by one over the tilt's cosine. :class:`bundlekit.inputs.volumes.SeriesReader` gets them right.

    Args:
        path: folder with one series of even steps.
        affine: 4 x 4 matrix from voxel index to position in mm, x growing to the patient's right, as it was read.

    Raises:
        InputError: where the last slice lies more than 1 mm from its place.
    """
    steps_mm = _steps_mm(*_find_series(str(path))) * [-1, -1, 1]
    drift_mm = np.linalg.norm(steps_mm.sum(axis=0) - len(steps_mm) * affine[:3, 2]) if len(steps_mm) else 0.0
    if drift_mm > _MAX_DRIFT_MM:
        found = f"its slices are sheared (gantry tilt?): offset by {drift_mm:.3g} mm from the first to the last"
        remedy = "convert it with dcm2niix, which corrects the tilt"
        raise InputError(path, found, "slices stacked along their normal", remedy)
