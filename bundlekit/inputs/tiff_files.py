"""Reads the only image of a TIFF, at its full depth, with the values that its tags say."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC

from ..errors import InputError
from .orientation import ORIENTATION
from .picture_layout import PALETTES, PictureLayout

__all__ = ["is_tiff", "read_tiff", "read_tiff_layout", "read_tiff_stack"]

_SINGLE = "save the image to be used as a separate file"
_ALPHA = ((1,), (2,))
_LOSSY = {
    COMPRESSION.JPEG: "JPEG",
    COMPRESSION.OJPEG: "JPEG",
    COMPRESSION.JPEG_99: "JPEG",
    COMPRESSION.ALT_JPEG: "JPEG",
    COMPRESSION.JPEG_LOSSY: "JPEG",
    COMPRESSION.JPEGXR: "JPEG XR",
    COMPRESSION.JPEGXR_NDPI: "JPEG XR",
    COMPRESSION.JPEG2000: "JPEG 2000",
    COMPRESSION.JPEG_2000_LOSSY: "JPEG 2000",
    COMPRESSION.APERIO_JP2000_YCBC: "JPEG 2000",
    COMPRESSION.APERIO_JP2000_RGB: "JPEG 2000",
    COMPRESSION.JPEGXL: "JPEG XL",
    COMPRESSION.JPEGXL_DNG: "JPEG XL",
    COMPRESSION.WEBP: "WebP",
    COMPRESSION.WEBP_DEPRECATED: "WebP",
    COMPRESSION.LERC: "LERC",
    COMPRESSION.PIXARLOG: "PixarLog",
}
"""Compressions that change values; some of these may also be used without loss, which the tags do not say."""
_MODES = {PHOTOMETRIC.PALETTE: "P", PHOTOMETRIC.SEPARATED: "CMYK"}
_GREY = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK)
_PHOTOMETRIC = 262
_READABLE = (*_GREY, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE, PHOTOMETRIC.SEPARATED)


def is_tiff(path: str | os.PathLike) -> bool:
    """Whether a file begins as a TIFF does, whatever its name."""
    with open(path, "rb") as file:
        return file.read(2) in (b"II", b"MM")


def _only_page(path: str | os.PathLike, file: tifffile.TiffFile) -> Any:
    page: Any = file.pages[0]
    is_stack = page.axes == "SYX" and page.photometric in _GREY and page.samplesperpixel > 2  # grey planes, as slices
    if len(file.series) > 1 or file.series[0].size != page.size or not set(page.axes) <= set("SYX") or is_stack:
        shapes = ", ".join(" x ".join(map(str, part.shape)) for part in file.series[:3])
        raise InputError(path, f"holds several images ({shapes})", "one", _SINGLE)
    return page


def _check_kind(path: str | os.PathLike, page: Any, is_label: bool) -> None:
    is_decoded = page.photometric == PHOTOMETRIC.YCBCR and _LOSSY.get(page.compression) == "JPEG"  # to RGB
    if page.photometric not in _READABLE and not is_decoded:
        found = f"has the colour mode {page.photometric.name.removeprefix('CIE')}"
        raise InputError(path, found, "grey values or RGB", "save it as grey or RGB")
    if page.dtype is None or page.dtype.kind not in "buif":
        raise InputError(path, f"holds values of the type {page.dtype}", "integers or real numbers", "convert it")
    says_white_is_zero = page.photometric == PHOTOMETRIC.MINISWHITE and _PHOTOMETRIC in page.tags
    if says_white_is_zero and is_label and page.bitspersample > 1:
        found = "is a label map that says that white is zero, so that its numbers may be inverted or not"
        raise InputError(path, found, "a TIFF in which black is zero", "save the numbers again as PNG")
    if says_white_is_zero and page.dtype.kind not in "bu":
        found = f"says that white is zero, for values of the type {page.dtype}, which have no darkest one"
        raise InputError(path, found, "a TIFF in which black is zero", "save it with PhotometricInterpretation 1")


def _layout(path: str | os.PathLike, page: Any, is_label: bool) -> PictureLayout:
    _check_kind(path, page, is_label)
    sizes = dict(zip(page.axes, page.shape, strict=True))
    channels, extra = sizes.get("S", 1), tuple(page.extrasamples)
    is_colour = page.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
    has_alpha = channels == 4 if is_colour else channels == 2 and extra in _ALPHA
    return PictureLayout(
        sizes["Y"],
        sizes["X"],
        channels - has_alpha,
        _MODES.get(page.photometric, ""),
        has_alpha,
        page.tags.valueof(ORIENTATION, default=1),
        _LOSSY.get(page.compression, ""),
        page.photometric == PHOTOMETRIC.MINISWHITE and _PHOTOMETRIC not in page.tags,
    )


def read_tiff_layout(path: str | os.PathLike, is_label: bool = False) -> PictureLayout:
    """What the tags of a TIFF say, without decoding a value.

    Args:
        path: the file.
        is_label: whether it is a label map.

    Raises:
        InputError: where it holds several images, or values that are neither grey nor colours; where white is zero in a
            label map of more than 1 bit, since programs such as ImageJ store its numbers as they are.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.tif"
        >>> tifffile.imwrite(path, np.zeros((4, 6, 3), np.uint16), photometric="rgb")
        >>> read_tiff_layout(path)[:3]
        (4, 6, 3)
    """
    with tifffile.TiffFile(path) as file:
        return _layout(path, _only_page(path, file), is_label)


def _black_is_zero(array: np.ndarray, page: Any) -> np.ndarray:
    """Grey values that grow with brightness, whatever the tags say."""
    if page.photometric != PHOTOMETRIC.MINISWHITE or _PHOTOMETRIC not in page.tags:  # tifffile's default is 0
        return array
    return ~array if array.dtype == bool else array.dtype.type(2**page.bitspersample - 1) - array


def read_tiff(path: str | os.PathLike, is_label: bool = False) -> tuple[np.ndarray, PictureLayout]:
    """The values of a TIFF, (rows, columns) or (rows, columns, channels), as stored but without alpha, and its layout.

    Where its tags say that white is zero, the values are inverted, so that larger ones are brighter.

    Args:
        path: the file.
        is_label: whether it is a label map, of which the indices of a palette stay what they are; otherwise they become
            RGB of 8 bits.

    Raises:
        InputError: as :func:`read_tiff_layout`.
    """
    with tifffile.TiffFile(path) as file:
        page = _only_page(path, file)
        layout, array = _layout(path, page, is_label), page.asarray()
        if page.axes.startswith("S"):  # one plane for each channel
            array = np.moveaxis(array, 0, -1)
        if array.ndim == 3:
            array = array[..., : layout.channels] if layout.channels > 1 else array[..., 0]
        array = _black_is_zero(array, page)
        if layout.mode in PALETTES and not is_label:
            array = _colours(page)[array]
        return array, layout


def _colours(page: Any) -> np.ndarray:
    """The colours of a palette, (number, 3); TIFF has 16 bits for them, of which some programs write the lower 8."""
    colours = np.asarray(page.colormap).T
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def read_tiff_stack(path: str | os.PathLike) -> np.ndarray:
    """All images of a TIFF, (slices, rows, columns), with larger values for brighter pixels.

    Args:
        path: the file.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.tif"
        >>> tifffile.imwrite(path, np.full((2, 4, 6), 250, np.uint8), photometric="miniswhite")
        >>> stack = read_tiff_stack(path)
        >>> stack.shape, int(stack.max())
        ((2, 4, 6), 5)
    """
    with tifffile.TiffFile(path) as file:
        return _black_is_zero(file.asarray(), file.pages[0])
