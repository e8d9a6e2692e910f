"""Checks the entries of a data list: the headers of all their files, and the values of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from monai.transforms import LoadImage
from monai.utils import ensure_tuple
from tqdm import tqdm

from ..errors import InputError, InputNote
from .centres import check_centre
from .decoded import DECODED, keeping
from .grids import Grid, check_same_grid
from .images import Expected, check_image_header, check_label_header
from .modalities import put_in_order
from .values import check_image_values, check_label_values, decode

__all__ = ["check_headers", "check_item", "check_items", "check_values"]

_LONG_LIST = 50


def _paths(item: dict[str, Any], key: str) -> list[str]:
    """The files of an entry under a key; only an image may have several."""
    value: Any = item.get(key)
    paths = value if key == "image" and isinstance(value, list) and value else [value]
    if not all(isinstance(path, str) for path in paths):
        remedy = "add it to dataset.json, or remove the entry"
        raise InputError(f"entry {item}", f'has no path under "{key}"', f'"{key}": path', remedy)
    return paths


def check_headers(item: dict[str, Any], keys: Sequence[str], expected: Expected) -> tuple[list[InputError], list[str]]:
    """What is wrong with an entry as far as headers say, and the keys whose files have sound headers.

    Args:
        item: ``{"image": path or paths, "label": path, "centre": position}``.
        keys: "image" first, then what else has to be there and right.
        expected: what it has to be.
    """
    errors: list[InputError] = []
    grids: dict[str, Grid] = {}
    for key in keys:
        try:
            if key == "centre":
                errors += check_centre(item, item.get(key), grids.get("image"))
            elif key == "image":
                grids[key], notes = check_image_header(_paths(item, key), expected)
                errors += notes
            else:
                grids[key], notes = check_label_header(_paths(item, key)[0], expected)
                errors += notes
        except InputError as error:
            errors.append(error)
    if grids.keys() >= {"image", "label"}:
        reference = f"its image {ensure_tuple(item['image'])[0]}"
        remedy = "pair it with its own image"
        try:
            check_same_grid(item["label"], grids["label"], reference, grids["image"], exact=False, remedy=remedy)
        except InputError as error:
            errors.append(error)
    return errors, list(grids)


def check_values(item: dict[str, Any], keys: Sequence[str], expected: Expected) -> list[InputError]:
    """What is wrong with the values of an entry's files, whose headers are sound, and notes on them.

    Args:
        item: as for :func:`check_headers`.
        keys: those of the files to decode.
        expected: what the entry has to be.
    """
    errors: list[InputError] = []
    for key in keys:
        paths = _paths(item, key)
        try:
            array = decode(paths, expected.reader_of(key)).numpy()
            if key == "image":
                errors += check_image_values(array, paths, expected.spatial_dims, expected.examine)
            else:
                errors += check_label_values(array, paths[0], expected.spatial_dims, expected.label_values)
        except InputError as error:
            errors.append(error)
    return errors


def check_item(
    item: dict[str, Any],
    keys: Sequence[str],
    spatial_dims: int,
    channels: int | Sequence[int],
    label_values: Sequence[int] | None,
) -> list[InputError]:
    """All that is wrong with one entry of a data list; nothing but notes where it can be used.

    Args:
        item: ``{"image": path or paths, "label": path, "centre": position}``.
        keys: "image" first, then what else has to be there and right.
        spatial_dims, channels, label_values: as for :class:`bundlekit.inputs.images.Expected`.

    Example:
        >>> [error] = check_item({"image": "/nowhere/a.png"}, ("image",), 2, 1, None)
        >>> print(error)
        /nowhere/a.png: cannot be opened (No such file or directory); expected a file; correct its path or restore the \
file
    """
    expected = Expected(spatial_dims, channels, label_values)
    errors, sound = check_headers(item, keys, expected)
    return errors + check_values(item, sound, expected)


def check_items(
    items: Sequence[dict[str, Any]],
    keys: Sequence[str],
    expected: Expected,
    source: str,
    optional: Sequence[str] = (),
    modalities: Sequence[str] = (),
    load: LoadImage | None = None,
) -> Iterator[tuple[dict[str, Any], list[InputError]]]:
    """Each entry of a data list with all that is wrong with it: the headers of all are read before a value is.

    Args:
        items: the entries; their files are put into the order of the modalities.
        keys: what each entry must have, "image" first.
        expected: what they have to be.
        source: name of the list, for the progress of long ones.
        optional: what an entry may have as well.
        modalities: as for :func:`bundlekit.inputs.modalities.pick_files`.
        load: decodes the files whose headers are right, so that their values are checked; None leaves these.
    """
    is_long, checked = len(items) > _LONG_LIST, []
    for item in tqdm(items, desc=f"checking {source}", unit="item", disable=not is_long):
        wanted = [*keys, *(key for key in optional if key in item)]
        errors = put_in_order(item, modalities)
        checked.append((errors, []) if errors else check_headers(item, wanted, expected))
    load_label = expected.load_label and keeping(expected.load_label)
    bar = tqdm(checked, desc=f"reading {source}", unit="item", disable=not (load and is_long))
    for item, (problems, sound) in zip(items, bar, strict=True):
        problems += check_values(item, sound, replace(expected, load=load, load_label=load_label)) if load else []
        if not all(isinstance(problem, InputNote) for problem in problems):
            for key in sound:
                DECODED.drop(ensure_tuple(item[key]))
        yield item, problems
