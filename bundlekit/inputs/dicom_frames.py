"""Reads where the frames of one DICOM file lie, and puts them in the order of their positions."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, describe
from .dicom_elements import Elements, read_elements

__all__ = ["Frames", "check_steps", "read_frames"]

_MAX_UNEVENNESS = 0.1  # of the step from slice to slice; headers round positions
_SHARED, _PER_FRAME, _NUM_FRAMES = 0x52009229, 0x52009230, 0x00280008
_CONTENT, _POSITIONS, _ORIENTATION, _MEASURES, _VALUES = 0x00209111, 0x00209113, 0x00209116, 0x00289110, 0x00289145
_STACK, _POSITION, _DIRECTIONS = 0x00209056, 0x00200032, 0x00200037
_SPACING, _THICKNESS, _INTERCEPT, _SLOPE = 0x00280030, 0x00180050, 0x00281052, 0x00281053
_PHOTOMETRIC, _INVERTED = 0x00280004, b"MONOCHROME1"
_ROUNDING = 1e-3
_SEPARATELY = "save each stack as a series of its own"


@dataclass(frozen=True, eq=False)
class Frames:
    """Where the frames of a file lie, in DICOM's axes, which run to the left, the back and the head, in mm.

    Args:
        order: number in the file of each frame, from the first to the last along their normal.
        origin_mm: centre of the first voxel of the first of these.
        steps_mm: ways from a voxel to the next along x, y and z, as columns.
        slopes, intercepts: of each frame, as they are in the file.
    """

    order: np.ndarray
    origin_mm: np.ndarray
    steps_mm: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray

    def rescale(self, values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
        """The values of all frames in their order, with each frame's own slope and intercept.

        Args:
            values: (frames, y, x) as in the file, after one slope and one intercept for all.
            slope, intercept: these.
        """
        if (self.slopes == slope).all() and (self.intercepts == intercept).all():
            return values[self.order]
        stored = np.rint((values.astype(np.float64) - intercept) / slope)
        own = stored * self.slopes[:, None, None] + self.intercepts[:, None, None]
        return own[self.order].astype(np.float32)


def _numbers(value: bytes) -> np.ndarray:
    return np.array([float(part) for part in value.decode("ascii").strip("\0 ").split("\\") if part.strip()])


class _Groups:
    """The attributes of each frame: its own, else those of all frames, else those of the whole file."""

    def __init__(self, elements: Elements) -> None:
        self.elements = elements
        [count, *_] = [*_numbers(_plain(elements, _NUM_FRAMES)), 1]
        self.count = int(count)
        self.per_frame = _items(elements, _PER_FRAME)
        self.shared = (_items(elements, _SHARED) or [{}])[0]

    def find(self, group: int, tag: int) -> list[bytes]:
        """The values of a tag in a functional group, one for each frame; empty where it is in none."""
        own = self.per_frame or [{}]
        return [self._find(frame, group, tag) for frame in (own if len(own) == self.count else own * self.count)]

    def _find(self, frame: Elements, group: int, tag: int) -> bytes:
        for groups in (frame, self.shared):
            for item in _items(groups, group)[:1]:
                if tag in item:
                    return _plain(item, tag)
        return b"" if self.per_frame else _plain(self.elements, tag)


def _items(elements: Elements, tag: int) -> list[Elements]:
    value = elements.get(tag, [])
    return value if isinstance(value, list) else []


def _plain(elements: Elements, tag: int) -> bytes:
    value = elements.get(tag, b"")
    return value if isinstance(value, bytes) else b""


def read_frames(path: str | os.PathLike) -> Frames:
    """Where the frames of a file lie, those of a multi-frame file by its functional groups.

    Args:
        path: a DICOM file of one slice, or one with several frames.

    Raises:
        InputError: where the file does not say it, or the frames do not make up one volume.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.dcm"
        >>> with open(path, "wb") as file:
        ...     _ = file.write(struct.pack("<HHI4s", 0x28, 8, 4, b"12  "))
        >>> read_frames(path)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bundlekit.errors.InputError: ...a.dcm: holds 12 frames and no positions; expected an Enhanced DICOM \
file with a position for each frame; save each slice as a file of its own
    """
    try:
        groups = _Groups(read_elements(path))
        return _arrange(path, groups)
    except InputError:
        raise
    except (OSError, struct.error, zlib.error, ValueError, RecursionError) as error:
        found = f"its header cannot be read ({describe(error)})"
        raise InputError(path, found, "a DICOM file", "copy or export it again") from error


def _arrange(path: str | os.PathLike, groups: _Groups) -> Frames:
    if _plain(groups.elements, _PHOTOMETRIC).strip(b"\0 ") == _INVERTED:  # ITK inverts the values before it rescales
        found = "has the PhotometricInterpretation MONOCHROME1, whose larger values are darker"
        raise InputError(path, found, "MONOCHROME2", "export it again as MONOCHROME2, or as NIfTI")
    if groups.count > 1 and len(groups.per_frame) != groups.count:
        found = f"holds {groups.count} frames and {len(groups.per_frame) or 'no'} positions"
        remedy = "save each slice as a file of its own"
        raise InputError(path, found, "an Enhanced DICOM file with a position for each frame", remedy)
    if len(set(groups.find(_CONTENT, _STACK))) > 1:
        raise InputError(path, "holds several stacks of frames", "one", _SEPARATELY)
    directions = _common(path, groups.find(_ORIENTATION, _DIRECTIONS), 6, "orientation")
    y_mm, x_mm = _common(path, groups.find(_MEASURES, _SPACING), 2, "pixel spacing")
    positions_mm = np.stack([_vector(path, value, 3, "position") for value in groups.find(_POSITIONS, _POSITION)])
    normal = np.cross(directions[:3], directions[3:])
    order = np.argsort(positions_mm @ normal, kind="stable")
    steps_mm = np.diff(positions_mm[order], axis=0)
    check_steps(path, steps_mm)
    thickness_mm = max((float(_numbers(value)[0]) for value in groups.find(_MEASURES, _THICKNESS) if value), default=0)
    step_mm = steps_mm.mean(axis=0) if len(steps_mm) else normal * (thickness_mm if thickness_mm > 0 else 1.0)
    slopes, intercepts = (
        np.array([_numbers(value)[0] if value else default for value in groups.find(_VALUES, tag)])
        for tag, default in ((_SLOPE, 1.0), (_INTERCEPT, 0.0))
    )
    columns = np.stack([directions[:3] * x_mm, directions[3:] * y_mm, step_mm], axis=1)
    return Frames(order, positions_mm[order[0]], columns, slopes, intercepts)


def _vector(path: str | os.PathLike, value: bytes, length: int, name: str) -> np.ndarray:
    numbers = _numbers(value)
    if len(numbers) != length:
        found = f"its header holds no {name}" if not len(numbers) else f"its {name} has {len(numbers)} numbers"
        remedy = "convert it again from the scanner's files"
        raise InputError(path, found, f"the {name} of each slice, {length} numbers", remedy)
    return numbers


def _common(path: str | os.PathLike, values: Sequence[bytes], length: int, name: str) -> np.ndarray:
    """What all frames have."""
    first = _vector(path, values[0], length, name)
    if any(not np.allclose(_vector(path, value, length, name), first, atol=_ROUNDING) for value in set(values)):
        raise InputError(path, f"its frames differ in {name}", "one volume of parallel slices", _SEPARATELY)
    return first


def check_steps(path: str | os.PathLike, steps_mm: np.ndarray) -> None:
    """Make sure that slices follow each other in even, straight steps.

    Args:
        path: what they belong to.
        steps_mm: the way from each slice to the next, (slices - 1, 3).

    Raises:
        InputError: where two are at one place, slices are missing, or they lie on no line.

    Example:
        >>> check_steps("a.dcm", np.array([[0, 0, 2.0], [0, 0, 4]]))
        Traceback (most recent call last):
        bundlekit.errors.InputError: a.dcm: its slices are 2 to 4 mm apart; expected equal distances; copy the missing \
slices, or resample the series
    """
    if not len(steps_mm):
        return
    lengths_mm = np.linalg.norm(steps_mm, axis=1)
    if lengths_mm.min() < _ROUNDING:
        remedy = "save each time, echo or phase as a series of its own"
        raise InputError(path, "has several slices at one position", "one at each", remedy)
    most_mm = _MAX_UNEVENNESS * np.median(lengths_mm)
    if np.ptp(lengths_mm) > most_mm:
        found = f"its slices are {lengths_mm.min():.3g} to {lengths_mm.max():.3g} mm apart"
        raise InputError(path, found, "equal distances", "copy the missing slices, or resample the series")
    aside_mm = np.linalg.norm(steps_mm - steps_mm.mean(axis=0), axis=1).max()
    if aside_mm > most_mm:
        found = f"its slices are not on one line (one is offset by {aside_mm:.3g} mm)"
        raise InputError(path, found, "slices along one line", "resample the series")
