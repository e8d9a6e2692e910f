"""Checks that the file of a volume holds how its axes lie in the patient, whatever its format."""

from __future__ import annotations

import os
import re

import numpy as np

from ..errors import InputError
from .dicom import check_stack, is_dicom_input
from .headers import FAMILY

__all__ = ["check_directions"]

_META = (".mha", ".mhd")
_MOST_BYTES = 1 << 16  # of a header
_SPACES = {"right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "ras", "las", "lps"}
_CONVERT = "convert it again from the scanner's files"


def check_directions(path: str | os.PathLike, affine: np.ndarray) -> None:
    """Make sure that a file, whose header a reader has read, holds an orientation and the size of its voxels.

    Readers take the axes of such a file for those of the patient without a word, so that right and left may change
    places. Files of the NIfTI family pass: :func:`.headers.check_header` is for them.

    Args:
        path: file, or folder with a DICOM series, that :func:`.dicom.check_dicom` has let pass.
        affine: 4 x 4 matrix from voxel index to position in mm, as it was read.

    Raises:
        InputError: where it does not, and where DICOM was read to another place than its files give.

    Example:
        >>> check_directions("a.tif", np.eye(4))
        Traceback (most recent call last):
        bundlekit.errors.InputError: a.tif: is of a format that holds no orientation; expected NIfTI, NRRD, MetaImage \
or DICOM; convert it again from the scanner's files
    """
    if is_dicom_input(path):
        check_stack(path, affine)
        return
    name = str(path).lower()
    if name.endswith(FAMILY):
        return
    start = _read_start(path)
    if start.startswith(b"NRRD"):
        _check_nrrd(path, _fields(re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0], rb":"))
    elif name.endswith(_META):
        _check_meta(path, _meta_names(start))
    else:
        found, expected = "is of a format that holds no orientation", "NIfTI, NRRD, MetaImage or DICOM"
        raise InputError(path, found, expected, _CONVERT)


def _read_start(path: str | os.PathLike) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return b""


def _fields(header: bytes, separator: bytes) -> dict[str, str]:
    """By name in small letters, the fields of a header of lines."""
    lines = [line.split(separator, 1) for line in header.splitlines() if separator in line and line[:1] != b"#"]
    return {name.decode("latin-1").strip().lower(): value.decode("latin-1").strip() for name, value in lines}


def _meta_names(header: bytes) -> set[str]:
    """The fields of a MetaImage header, whose names ITK distinguishes by case, down to the last, ElementDataFile."""
    names = []
    for line in header.splitlines():
        names.append(line.split(b"=", 1)[0].decode("latin-1").strip() if b"=" in line else "")
        if names[-1] == "ElementDataFile":
            break
    return set(names)


def _check_nrrd(path: str | os.PathLike, fields: dict[str, str]) -> None:
    space = fields.get("space", "")
    if space.lower() not in _SPACES:
        found = "its header holds no orientation (" + (f"its space is {space})" if space else "no field 'space')")
        raise InputError(path, found, "space: left-posterior-superior or another one of the patient's", _CONVERT)
    if fields.get("space directions", "").count("(") < 3:
        found = "its header holds no orientation (no three vectors in the field 'space directions')"
        raise InputError(path, found, "a direction for each axis", _CONVERT)


def _check_meta(path: str | os.PathLike, names: set[str]) -> None:
    if not names & {"TransformMatrix", "Orientation", "Rotation"}:
        found = "its header holds no orientation (no TransformMatrix)"
        raise InputError(path, found, "a TransformMatrix", _CONVERT)
    if not names & {"ElementSpacing", "ElementSize"}:
        raise InputError(path, "its header gives no voxel size (no ElementSpacing)", "an ElementSpacing", _CONVERT)
