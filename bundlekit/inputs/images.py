"""Checks images and labels, read as MONAI's pipelines read them, against what a network expects."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from monai.transforms import LoadImage
from monai.utils import ensure_tuple

from ..errors import InputError, InputNote
from ..files import require_file
from .centres import check_centre
from .dicom import check_series, check_stack, is_series
from .grids import Grid, check_same_grid
from .headers import check_affine, check_header, check_resampled

__all__ = ["LOAD", "check_image", "check_item", "check_label"]

LOAD = LoadImage(image_only=True, ensure_channel_first=True)
_COLOURS = {"LA": " (grey with alpha)", "RGB": " (colours)", "RGBA": " (colours with alpha)", "CMYK": " (CMYK)"}
_MIN_SIZE = 2  # MONAI's writers drop axes of length 1, so that no output could be saved
_DATALIST = "correct its path or restore the file"
_PREPARE = "write the labels with the bundle's scripts/prepare_data.py"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _count_and_first(bad: np.ndarray) -> str:
    """How many elements of a channel-first array are True, and the place of the first one without its channel."""
    first = np.argwhere(bad)[0, 1:]
    return f"{np.count_nonzero(bad)} of {bad.size} values, first at index ({', '.join(map(str, first))})"


def _check_dimensions(path: str, shape: tuple[int, ...], spatial_dims: int, min_size: int) -> None:
    """``shape`` has the channels first. A volume's channels are files of their own: in one file they may be times."""
    if spatial_dims == 3 and (len(shape) > 4 or (len(shape) == 4 and shape[0] > 1)):
        found = f"holds several volumes ({_size((*shape[1:], shape[0]))})"
        remedy = "split it, as fslsplit or nibabel.four_to_three do, and list the files in the order of the modalities"
        raise InputError(path, found, "one volume of 3 dimensions", remedy)
    if len(shape) != spatial_dims + 1:
        found = f"has {len(shape) - 1} spatial dimensions ({_size(shape[1:])})"
        remedy = "save each slice as a file of its own" if spatial_dims == 2 else "join the slices to one volume"
        raise InputError(path, found, f"{spatial_dims} dimensions", remedy)
    if min(shape[1:]) < min_size:
        remedy = "crop a larger region, or remove it"
        raise InputError(path, f"is {_size(shape[1:])}", f"at least {min_size} pixels a side", remedy)


def _read(path: str, spatial_dims: int, load: LoadImage, min_size: int) -> tuple[np.ndarray, Grid, str]:
    """The values with the channels first, their grid, and Pillow's mode of the image."""
    if is_series(path):
        check_series(path)
    else:
        require_file(path, _DATALIST)
    if spatial_dims == 3:
        check_header(path)
    try:
        image = load(path)
    except InputError:
        raise
    except Exception as error:  # each reader has its own exceptions
        reason = textwrap.shorten((str(error).strip() or type(error).__name__).splitlines()[-1], 100)
        found = f"cannot be read as an image (truncated or not an image; the reader says: {reason})"
        raise InputError(path, found, "a complete image file", "copy or export it again, or remove it") from error
    array = image.numpy()
    _check_dimensions(path, array.shape, spatial_dims, min_size)
    affine = None
    if spatial_dims == 3:
        affine = np.asarray(image.affine)
        check_affine(path, affine)
        if is_series(path):
            check_stack(path, affine)
    bad = ~np.isfinite(array) if np.issubdtype(array.dtype, np.floating) else np.zeros((), bool)
    if bad.any():
        found = f"has values that are NaN or infinite ({_count_and_first(bad)})"
        raise InputError(path, found, "finite numbers", "replace them, for example by 0")
    return array, Grid(array.shape[1:], affine), image.meta.get("mode", "")


def check_image(
    path: str | Sequence[str],
    spatial_dims: int,
    channels: int | Sequence[int],
    load: LoadImage = LOAD,
    min_size: int = _MIN_SIZE,
    examine: Callable[[str, np.ndarray], None] = lambda path, values: None,
) -> Grid:
    """The grid of an image that a network can take.

    Args:
        path: the file, or several whose channels are stacked.
        spatial_dims: 2 or 3.
        channels: how many channels it may have; several numbers where the pipeline copes with each of them.
        load: reads a file as the pipeline does, to a MetaTensor with the channels first.
        min_size: pixels or voxels along any axis at least.
        examine: called with each file and what it holds, channels first.

    Raises:
        InputError: where the file is missing, unreadable, not finite, too small, or of other dimensions or channels;
            where a volume's header gives its voxels no size or place, or all its voxels are alike; and where several
            files differ in shape or affine.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/grey.png"
        >>> Image.new("L", (6, 4)).save(path)
        >>> check_image(path, spatial_dims=2, channels=1).shape
        (6, 4)
    """
    paths, allowed = ensure_tuple(path), ensure_tuple(channels)
    found = 0
    first: Grid | None = None
    for part in paths:
        array, grid, mode = _read(part, spatial_dims, load, min_size)
        if mode == "P":
            remedy = "save it as grey or RGB"
            raise InputError(part, "is a palette image: its pixels are indices of colours", "intensities", remedy)
        if spatial_dims == 3 and array.min() == array.max():
            remedy = "export it again, or remove it"
            raise InputError(part, f"has the value {array.flat[0]:g} everywhere", "different intensities", remedy)
        first = first or grid
        check_same_grid(part, grid, paths[0], first, exact=True, remedy="resample it to the same grid")
        examine(part, array)
        found += array.shape[0]
    if first is None or found not in allowed:
        colours = _COLOURS.get(mode, "")
        expected = f"{' or '.join(map(str, allowed))}"
        remedy = "save it without alpha" if "alpha" in colours else "convert it, or use the bundle made for such images"
        raise InputError(paths[0], f"number of channels is {found}{colours}", expected, remedy)
    return first


def check_label(
    path: str,
    spatial_dims: int,
    label_values: Sequence[int] | None,
    load: LoadImage = LOAD,
    min_size: int = _MIN_SIZE,
) -> tuple[Grid, bool]:
    """The grid of a label map whose values are all known, and whether any of them is not background, 0.

    Args:
        path: the file.
        spatial_dims: 2 or 3.
        label_values: the class numbers that may occur; None allows every non-negative integer (ids of objects).
        load: as for :func:`check_image`.
        min_size: as for :func:`check_image`.

    Raises:
        InputError: where the file is missing, unreadable, too small, of other dimensions, or holds any other value;
            where a volume's header gives its voxels no size or place.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/mask.png"
        >>> Image.new("L", (6, 4), 255).save(path)
        >>> grid, has_objects = check_label(path, spatial_dims=2, label_values=[0, 255])
        >>> grid.shape, has_objects
        ((6, 4), True)
    """
    array, grid, _ = _read(path, spatial_dims, load, min_size)
    if len(array) != 1:
        remedy = f"save the class numbers, not colours: {_PREPARE}"
        raise InputError(path, f"has {len(array)} channels", "a label map of 1 channel", remedy)
    bad = (array < 0) | (array != np.rint(array)) if label_values is None else ~np.isin(array, label_values)
    if bad.any():
        values, counts = np.unique(array[bad], return_counts=True)
        shown = ", ".join(f"{value:g} ({count}x)" for value, count in zip(values[:4], counts, strict=False))
        more = f" and {len(values) - 4} others" if len(values) > 4 else ""
        expected = "non-negative integers" if label_values is None else ", ".join(map(str, label_values))
        found = f"holds other labels: {shown}{more}; {_count_and_first(bad)}"
        remedy = f"divide by 255 (a mask saved as 0/255), or {_PREPARE}" if values.tolist() == [255] else _PREPARE
        raise InputError(path, found, expected, remedy)
    return grid, bool(array.any())


def check_item(
    item: dict[str, Any],
    keys: Sequence[str],
    spatial_dims: int,
    channels: int | Sequence[int],
    label_values: Sequence[int] | None,
    load: LoadImage = LOAD,
    min_size: int = _MIN_SIZE,
    examine: Callable[[str, np.ndarray], InputNote | None] = lambda path, values: None,
    spacing_mm: float | Sequence[float] | None = None,
) -> list[InputError]:
    """All that is wrong with one entry of a data list; nothing but notes where it can be used.

    Args:
        item: ``{"image": path or paths, "label": path, "centre": position}``.
        keys: "image" first, then what else has to be there and right.
        spatial_dims: as for :func:`check_image`.
        channels: as for :func:`check_image`.
        label_values: as for :func:`check_label`.
        load: as for :func:`check_image`.
        min_size: as for :func:`check_image`.
        examine: called with each file of the image and what it holds; what it returns is added to the notes.
        spacing_mm: as for :func:`bundlekit.inputs.headers.check_resampled`; None leaves a volume as it is.

    Example:
        >>> [error] = check_item({"image": "/nowhere/a.png"}, ("image",), 2, 1, None)
        >>> print(error)
        /nowhere/a.png: cannot be opened (No such file or directory); expected a file; correct its path or restore the \
file
    """
    errors: list[InputError] = []
    grids: dict[str, Grid] = {}

    def note(path: str, values: np.ndarray) -> None:
        errors.extend(filter(None, [examine(path, values)]))

    for key in keys:
        value: Any = item.get(key)
        if key == "centre":
            errors += check_centre(item, value, grids.get("image"))
            continue
        paths = value if key == "image" and isinstance(value, list) and value else [value]
        try:
            if not all(isinstance(path, str) for path in paths):
                remedy = "add it to dataset.json, or remove the entry"
                raise InputError(f"entry {item}", f'has no path under "{key}"', f'"{key}": path', remedy)
            if key == "image":
                grids[key] = check_image(value, spatial_dims, channels, load, min_size, note)
                if spacing_mm is not None:
                    check_resampled(ensure_tuple(value)[0], grids[key], spacing_mm)
                continue
            grids[key], has_objects = check_label(value, spatial_dims, label_values, load, min_size)
            if spatial_dims == 3 and not has_objects:
                remedy = "keep it if that is correct; otherwise draw its labels or remove the entry"
                errors.append(InputNote(value, "has only background", "at least one label", remedy))
        except InputError as error:
            errors.append(error)
    if grids.keys() >= {"image", "label"}:
        image = ensure_tuple(item["image"])[0]
        try:
            remedy = "pair it with its own image"
            reference = f"its image {image}"
            check_same_grid(item["label"], grids["label"], reference, grids["image"], exact=False, remedy=remedy)
        except InputError as error:
            errors.append(error)
    return errors
