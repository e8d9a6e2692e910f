"""Checks of the values of images and labels, where these are decoded."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ..errors import InputError, InputNote
from .object_ids import check_object_ids

__all__ = [
    "PREPARE",
    "Examine",
    "check_decoded",
    "check_image_values",
    "check_label_values",
    "decode",
    "explain_unreadable",
    "note_nothing",
]

_LARGEST = float(np.sqrt(np.finfo(np.float32).max))
_FAR = 10  # ranges of the others
_CODECS = "imagecodecs"
_NEEDS_CODECS = f"requires the '{_CODECS}' package"  # what tifffile says
_SAMPLES = 32  # along an axis
PREPARE = "write the labels with the bundle's scripts/prepare_data.py"
Examine = Callable[[str, np.ndarray], InputNote | None]
"""Called with a file and its values, channels first; returns a note where they may be a mistake."""


def note_nothing(path: str, values: np.ndarray) -> None:
    """No note, whatever the values are."""


def _count_and_first(bad: np.ndarray) -> str:
    """How many elements of a channel-first array are True, and the place of the first one without its channel."""
    first = np.argwhere(bad)[0, 1:]
    return f"{np.count_nonzero(bad)} of {bad.size} values, first at index ({', '.join(map(str, first))})"


def explain_unreadable(path: str, error: Exception) -> InputError:
    """What to report of a file whose reader has failed; each reader has exceptions of its own."""
    if isinstance(error, InputError):
        return error
    if _NEEDS_CODECS in str(error):
        found = f"is compressed in a way that needs the package {_CODECS}, which cannot be imported"
        remedy = f"install it (pip install {_CODECS}), or save the image without compression"
        return InputError(path, found, _CODECS, remedy)
    reason = textwrap.shorten((str(error).strip() or type(error).__name__).splitlines()[-1], 100)
    found = f"cannot be read as an image (truncated or not an image; the reader says: {reason})"
    return InputError(path, found, "a complete image file", "copy or export it again, or remove it")


def decode(paths: Sequence[str], load: Callable[[Any], MetaTensor]) -> MetaTensor:
    """What ``load`` makes of the files of an image.

    Args:
        paths: one file, or several whose channels are stacked.
        load: called with a path or, where there are several, with all of them.

    Raises:
        InputError: naming the first file that cannot be read.
    """
    try:
        return load(list(paths) if len(paths) > 1 else paths[0])
    except Exception as error:
        for path in paths[:-1]:  # a reader does not say which one it is
            try:
                load(path)
            except Exception as own:
                raise explain_unreadable(path, own) from own
        raise explain_unreadable(paths[-1], error) from error


def _with_channels_first(image: MetaTensor) -> np.ndarray:
    """The values of an image as a reader or ``LoadImage`` has left them, channels first."""
    size = tuple(map(int, image.meta["spatial_shape"]))
    values = image.as_tensor()
    if tuple(values.shape) == size:
        values = values[None]
    elif tuple(values.shape[1:]) != size:
        values = torch.movedim(values, -1, 0)
    return values.numpy()


def check_image_values(array: np.ndarray, paths: Sequence[str], spatial_dims: int, examine: Examine) -> list[InputNote]:
    """Make sure that the values of an image can be used.

    Args:
        array: channels first; each file has as many of them.
        paths: its files.
        spatial_dims: 2 or 3.
        examine: called with each file and its values.

    Returns:
        What ``examine`` returns, and a note where a value far from all others may stand for missing data.

    Raises:
        InputError: where values are not finite or their squares are not, or those of a volume are all alike.

    Example:
        >>> check_image_values(np.full((1, 2, 2, 2), 7), ["a.nii"], 3, lambda path, values: None)
        Traceback (most recent call last):
        bundlekit.errors.InputError: a.nii: has the value 7 everywhere; expected different intensities; export it \
again, or remove it
    """
    notes = []
    for path, part in zip(paths, np.array_split(array, len(paths)), strict=True):
        _check_finite(part, path)
        if spatial_dims == 3 and part.min() == part.max():
            remedy = "export it again, or remove it"
            raise InputError(path, f"has the value {part.flat[0]:g} everywhere", "different intensities", remedy)
        notes += [_note_missing_data(path, part), examine(path, part)]
    return [note for note in notes if note is not None]


def check_decoded(image: MetaTensor, paths: Sequence[str], spatial_dims: int, examine: Examine) -> list[InputNote]:
    """:func:`check_image_values` of an image as MONAI's ``LoadImage`` has left it, channels first or last."""
    return check_image_values(_with_channels_first(image), paths, spatial_dims, examine)


def _check_finite(array: np.ndarray, path: str) -> None:
    """Make sure that no value is NaN, infinite, or so large that its square is infinite in float32.

    Raises:
        InputError: where one is.
    """
    if not array.size or not np.issubdtype(array.dtype, np.floating):
        return
    if -_LARGEST <= array.min() <= array.max() <= _LARGEST:  # NaN is not smaller than anything
        return
    bad = ~np.isfinite(array)
    if bad.any():
        found = f"has values that are NaN or infinite ({_count_and_first(bad)})"
        raise InputError(path, found, "finite numbers", "replace them, for example by 0")
    bad = np.abs(array) > _LARGEST
    if bad.any():
        found = f"has values beyond {_LARGEST:.2g}, the first {array[bad][0]:g} ({_count_and_first(bad)})"
        remedy = "replace them, for example by 0, where they stand for missing data"
        raise InputError(path, found, "numbers whose squares are finite in float32", remedy)


def _note_missing_data(path: str, array: np.ndarray) -> InputNote | None:
    """A note where voxels hold one value other than 0 that lies far from all others, as -32768 or a hot pixel may do.

    Far means ten times the range of the others, so that a network that normalises the image would see nothing in it.
    """
    if array.dtype == np.uint8:
        return None
    low, high = float(array.min()), float(array.max())
    sample = array[tuple(slice(None, None, side // _SAMPLES + 1) for side in array.shape)]  # tells at once as a rule
    for value, others, where in ((low, high, "below"), (high, low, "above")):
        bound = value + (others - value) * _FAR / (_FAR + 1)
        is_near = np.less if where == "below" else np.greater
        if value == 0 or np.any(is_near(sample, bound) & (sample != value)):
            continue
        near = is_near(array, bound)
        count, rest = np.count_nonzero(near), array[~near]
        if rest.size and rest.min() < rest.max() and np.all(array[near] == value):
            found = f"has {value:g} at {count} of {array.size} values, far {where} all others"
            remedy = "replace it by one of the others if it stands for missing data"
            return InputNote(path, f"{found} ({rest.min():g} to {rest.max():g})", "intensities of one range", remedy)
    return None


def check_label_values(
    array: np.ndarray, path: str, spatial_dims: int, label_values: Sequence[int] | None
) -> list[InputNote]:
    """Make sure that a label map holds known values only.

    Args:
        array: channels first.
        path: its file.
        spatial_dims: 2 or 3.
        label_values: the class numbers that may occur; None for numbers of objects, integers of at least 0.

    Returns:
        A note on a volume that is nothing but background, 0, or on numbers that lie in several pieces.

    Raises:
        InputError: where it holds any other value, or a mask where objects should have a number each.
    """
    _check_finite(array, path)
    bad = (array < 0) | (array != np.rint(array)) if label_values is None else ~np.isin(array, label_values)
    if bad.any():
        values, counts = np.unique(array[bad], return_counts=True)
        shown = ", ".join(f"{value:g} ({count}x)" for value, count in zip(values[:4], counts, strict=False))
        more = f" and {len(values) - 4} others" if len(values) > 4 else ""
        expected = "non-negative integers" if label_values is None else ", ".join(map(str, label_values))
        found = f"holds other labels: {shown}{more}; {_count_and_first(bad)}"
        remedy = f"divide by 255 (a mask saved as 0/255), or {PREPARE}" if values.tolist() == [255] else PREPARE
        raise InputError(path, found, expected, remedy)
    if label_values is None:
        return check_object_ids(array[0].astype(np.int64), path)
    if spatial_dims == 3 and not array.any():
        remedy = "keep it if that is correct; otherwise draw its labels or remove the entry"
        return [InputNote(path, "has only background", "at least one label", remedy)]
    return []
