"""Reads downloads and checks them: pictures, maps of object ids, tables that assign images to lists."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from ..inputs.object_ids import check_object_ids
from ..inputs.orientation import turn
from ..inputs.pillow_files import find_lossy, open_picture, require_lossless
from ..inputs.tiff_files import is_tiff, read_tiff

__all__ = ["SECTIONS", "read_ids", "read_labels", "read_picture", "read_split", "read_table"]

SECTIONS = {"train": "training", "val": "validation", "test": "test"}
"""The list of dataset.json for each split that a table may name."""
_ID_MODES = ("L", "P", "I", "I;16", "I;16B")
_MAX_ID = 65535


def _read(path: str | os.PathLike, keep_indices: bool) -> tuple[Image.Image, str]:
    """The picture, and the name of its compression where that may have changed values."""
    try:
        if is_tiff(path):
            array, layout = read_tiff(path, keep_indices)
            if array.ndim == 3 and array.dtype != np.uint8:
                raise InputError(path, f"holds colours of {array.dtype}", "colours of 8 bits", "save it with 8 bits")
            return Image.fromarray(np.ascontiguousarray(turn(array, layout.orientation))), layout.lossy
        image = open_picture(path)
        image.load()
        lossy = find_lossy(path, image)
        ImageOps.exif_transpose(image, in_place=True)
        return image, lossy
    except InputError:
        raise
    except Exception as error:  # PIL, tifffile and the codecs behind them each have their own
        reason = getattr(error, "strerror", None) or error
        raise InputError(path, f"cannot be read ({reason})", "an image file", "copy or download it again") from error


def read_picture(path: str | os.PathLike) -> Image.Image:
    """The whole content of an image file, upright and of any size; a TIFF in which white is zero is inverted.

    Raises:
        InputError: where it cannot be read, or not to its end.

    Example:
        >>> read_picture("/nowhere")
        Traceback (most recent call last):
        bundlekit.errors.InputError: /nowhere: cannot be read (No such file or directory); expected an image file; \
copy or download it again
    """
    return _read(path, keep_indices=False)[0]


def read_labels(path: str | os.PathLike) -> Image.Image:
    """As :func:`read_picture`, a picture whose values are ids or a mask; a palette's indices stay what they are.

    Raises:
        InputError: where it cannot be read, or its compression may have changed values.
    """
    image, lossy = _read(path, keep_indices=True)
    require_lossless(path, lossy)
    return image


def read_ids(path: str | os.PathLike, thing: str) -> np.ndarray:
    """The id of the object at each pixel, 0 outside: (rows, columns) of uint16; for a palette image the indices.

    Args:
        path: the file.
        thing: what has an id, in the singular.

    Raises:
        InputError: where the file cannot be read, is compressed with loss, holds colours or too large ids, or is a
            mask or a map of classes.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/mask.png"
        >>> Image.fromarray(np.eye(4, dtype=np.uint8) * 3).save(path)
        >>> read_ids(path, "nucleus")[0].tolist()
        [3, 0, 0, 0]
    """
    image = read_labels(path)
    if image.mode not in _ID_MODES:
        found = f"has pixels of the type {image.mode!r}"
        raise InputError(path, found, "one integer per pixel", "save the ids, not colours")
    ids = np.asarray(image)
    if ids.min() < 0 or ids.max() > _MAX_ID:
        found = f"holds ids from {ids.min()} to {ids.max()}"
        raise InputError(path, found, f"0 to {_MAX_ID}", "number the objects from 1")
    ids = ids.astype(np.uint16)
    check_object_ids(ids, path, thing)  # notes are for the run that uses them
    return ids


def read_table(path: str | os.PathLike, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV file.

    Args:
        path: the file.
        columns: that it must have.

    Raises:
        InputError: where it cannot be read or lacks a column.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "split.csv")
        >>> _ = path.write_text("id, split\\n00, train\\n")
        >>> read_table(path, ("id", "split"))
        [{'id': '00', 'split': 'train'}]
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", skipinitialspace=True)
            rows, there = list(reader), reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(path, f"cannot be read ({error})", "a text file", "save it as CSV in UTF-8") from error
    missing = [column for column in columns if column not in there]
    if missing:
        found = f"has no column {' and no column '.join(missing)} (columns there: {', '.join(there) or 'none'})"
        remedy = f"begin it with the line {','.join(columns)}"
        raise InputError(path, found, f"the columns {' and '.join(columns)}", remedy)
    return rows


def read_split(path: str | os.PathLike) -> dict[str, str]:
    """Which split each image is for, sorted by id, from a CSV with the columns id and split.

    Args:
        path: the file; its splits are the keys of ``SECTIONS``.

    Raises:
        InputError: where it cannot be read, lists no image, or one twice, or another split.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "split.csv")
        >>> _ = path.write_text("id,split\\nb,test\\na,train\\n")
        >>> read_split(path)
        {'a': 'train', 'b': 'test'}
    """
    remedy = "give each image one line, such as 00,train"
    splits: dict[str, str] = {}
    for row in read_table(path, ("id", "split")):
        name, split = row["id"], row["split"]
        if split not in SECTIONS:
            raise InputError(path, f"image {name!r} has the split {split!r}", "train, val or test", remedy)
        if name in splits:
            raise InputError(path, f"image {name!r} is listed twice", "each image once", remedy)
        splits[name] = split
    if not splits:
        raise InputError(path, "lists no image", "at least one", remedy)
    return dict(sorted(splits.items()))
