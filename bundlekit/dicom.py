"""Folders that hold one volume as a series of DICOM files, read through ITK."""

from __future__ import annotations

import os
from pathlib import Path

import itk
import numpy as np

from .files import InputError

__all__ = ["check_series", "is_series"]

_NUM_LOOKED_AT = 3  # a folder of DICOM files may hold a text file or an index as well
_MAX_UNEVENNESS = 0.1  # of the step from slice to slice; headers round positions


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


def _steps_mm(files: tuple[str, ...]) -> np.ndarray:
    """Distances from each slice to the next."""
    reader = itk.GDCMImageIO.New()
    origins = []
    for file in files:
        reader.SetFileName(file)
        reader.ReadImageInformation()
        origins.append([reader.GetOrigin(axis) for axis in range(3)])
    return np.linalg.norm(np.diff(origins, axis=0), axis=1)


def check_series(path: str | os.PathLike) -> None:
    """Make sure that a folder holds one series of DICOM files whose slices follow each other in even steps.

    Args:
        path: the folder.

    Raises:
        InputError: where it holds none or several, a file cannot be read, or slices are missing.

    Example:
        >>> import tempfile
        >>> check_series(tempfile.mkdtemp())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bundlekit.files.InputError: ...: holds 0 DICOM series; expected one; put each series into a folder of its own
    """
    try:
        series = _find_series(str(path))
        steps_mm = _steps_mm(series[0]) if len(series) == 1 else np.zeros(0)
    except RuntimeError as error:  # ITK has no exception of its own in Python
        reason = str(error).strip().splitlines()[-1]
        remedy = "copy the series again"
        raise InputError(path, f"cannot be read by ITK ({reason})", "whole DICOM files", remedy) from error
    if len(series) != 1:
        remedy = "put each series into a folder of its own"
        raise InputError(path, f"holds {len(series)} DICOM series", "one", remedy)
    if steps_mm.size and np.ptp(steps_mm) > _MAX_UNEVENNESS * np.median(steps_mm):
        found = f"its slices lie {steps_mm.min():.3g} to {steps_mm.max():.3g} mm apart"
        raise InputError(path, found, "even steps", "copy the slices that are missing, or resample the series")
