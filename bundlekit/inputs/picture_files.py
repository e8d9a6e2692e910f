"""Reads the header, or the values, of a PNG, JPEG, TIFF or BMP at the full depth of the file and without alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
import tifffile
from monai.data import ITKReader
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

from ..errors import InputError
from .file_headers import FileHeader
from .orientation import ORIENTATION, require_upright

__all__ = ["read_picture", "read_picture_header"]

_SINGLE = "save the image to be used as a separate file"
_CHANNELS = {"1": 1, "L": 1, "I": 1, "F": 1, "P": 1, "LA": 1, "PA": 1, "RGB": 3, "RGBA": 3, "RGBX": 3, "CMYK": 4}
"""How many of an image's channels are no alpha, by Pillow's mode without what follows a semicolon."""
_DECODED = (COMPRESSION.NONE, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE, COMPRESSION.PACKBITS)
"""The compressions that tifffile decodes by itself."""
_GREY_WITH_ALPHA = 4  # in the header of a PNG
_PLAIN = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE)


def read_picture(path: str) -> tuple[np.ndarray, str]:
    """The values of a picture, (rows, columns) or (rows, columns, channels), and Pillow's name of its colours.

    Args:
        path: the file.

    Raises:
        InputError: where it holds several images, says that it is to be turned, or has values that no reader here gets
            right.
    """
    array, mode = _read_tiff(path) if _is_tiff(path) else _by_pillow(path)
    return array.astype(np.uint8 if array.dtype == bool else array.dtype.newbyteorder("="), copy=False), mode


def read_picture_header(path: str) -> FileHeader:
    """The size, channels and colours of a picture without decoding its values.

    Args:
        path: the file.

    Raises:
        InputError: as :func:`read_picture`.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("RGBA", (6, 4)).save(path)
        >>> read_picture_header(path)
        FileHeader(shape=(3, 6, 4), affine=None, mode='RGBA')
    """
    return _tiff_header(path) if _is_tiff(path) else _pillow_header(path)


def _is_tiff(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) in (b"II", b"MM")


def _by_itk(path: str) -> np.ndarray:
    """(rows, columns, channels) of an image with several channels of 16 bits."""
    import itk  # slow to load, and seldom needed

    reader = ITKReader(pixel_type=itk.VariableLengthVector[itk.US])
    return reader.get_data(reader.read(path))[0].swapaxes(0, 1)


def _deep_png_colour(path: str) -> int:
    """The type of colour of a PNG with 16 bits in each of several channels, of which Pillow would keep 8; else 0."""
    with open(path, "rb") as file:
        header = file.read(26)
    return header[25] if header.startswith(b"\x89PNG") and header[24:25] == b"\x10" else 0


def _check_pillow(path: str, image: Image.Image, exif: Image.Exif) -> str:
    """The mode of an image, which need not have been decoded, where it can be used."""
    number = getattr(image, "n_frames", 1)
    if number > 1 and image.format not in ("MPO", "TIFF"):  # a JPEG with previews; a pyramid, as was made sure of
        raise InputError(path, f"holds {number} images", "one", _SINGLE)
    require_upright(path, exif.get(ORIENTATION, 1))
    mode = image.mode.partition(";")[0]
    if mode not in _CHANNELS:
        raise InputError(path, f"has the colour mode {mode}", "grey values or RGB", "save it as grey or RGB")
    return mode


def _by_pillow(path: str) -> tuple[np.ndarray, str]:
    with Image.open(path) as image:
        mode = _check_pillow(path, image, image.getexif())
        array = _by_itk(path) if _deep_png_colour(path) else np.asarray(image)
    if array.ndim == 3:
        array = array[..., : 1 if array.shape[2] == 2 else _CHANNELS[mode]]
    return array, mode


def _pillow_header(path: str) -> FileHeader:
    with Image.open(path) as image:
        exif = Image.Image.getexif(image)  # that of a PNG decodes the image, behind which the tags may be as well
        mode, num_bands = _check_pillow(path, image, exif), len(image.getbands())
        is_grey = num_bands <= 2 or _deep_png_colour(path) == _GREY_WITH_ALPHA  # of which Pillow makes RGBA
        return FileHeader((1 if is_grey else _CHANNELS[mode], *image.size), mode=mode)


def _choose_reader(path: str, file: tifffile.TiffFile) -> str:
    """What decodes a TIFF: "tifffile", "itk" or "pillow"."""
    page: Any = file.pages[0]
    if len(file.series) > 1 or file.series[0].size != page.size:
        shapes = ", ".join(" x ".join(map(str, part.shape)) for part in file.series[:3])
        raise InputError(path, f"holds several images ({shapes})", "one", _SINGLE)
    require_upright(path, page.tags.valueof(ORIENTATION, default=1))
    if page.photometric in _PLAIN and page.compression in _DECODED:
        return "tifffile"
    deep = page.samplesperpixel > 1 and page.dtype == np.uint16 and page.photometric in _PLAIN
    if deep and page.compression == COMPRESSION.LZW and page.axes == "YXS" and not page.is_tiled:
        return "itk"
    # Pillow takes signed bytes for unsigned ones, halves 16-bit colours and muddles floats of the other byte order
    if page.dtype in (np.bool_, np.uint8) or (page.samplesperpixel == 1 and page.dtype == np.uint16):
        return "pillow"
    found = f"is a TIFF of {page.dtype} values, {page.photometric.name}, compressed by {page.compression.name}"
    raise InputError(path, found, "a supported compression", "save it without compression")


def _without_alpha(array: np.ndarray, page: Any) -> tuple[np.ndarray, str]:
    """The channels of a page behind its rows and columns."""
    if page.axes.startswith("S"):  # one plane for each channel
        array = np.moveaxis(array, 0, -1)
    if page.photometric == PHOTOMETRIC.RGB:
        array = array[..., :3]
    elif page.extrasamples in ((1,), (2,)):  # alpha, not another kind of light
        array = array[..., :-1]
    return array, "P" if page.photometric == PHOTOMETRIC.PALETTE else ""


def _read_tiff(path: str) -> tuple[np.ndarray, str]:
    with tifffile.TiffFile(path) as file:
        reader, page = _choose_reader(path, file), file.pages[0]
        if reader == "tifffile":
            return _without_alpha(page.asarray(), page)
    return (_by_itk(path)[..., :3], "") if reader == "itk" else _by_pillow(path)


def _tiff_header(path: str) -> FileHeader:
    with tifffile.TiffFile(path) as file:
        reader, page = _choose_reader(path, file), file.pages[0]
        if reader == "pillow":
            return _pillow_header(path)
        size: Any = page.shape
        array, mode = _without_alpha(np.broadcast_to(np.uint8(0), size), page)  # no memory: one value seen everywhere
        if reader == "itk":
            array = array[..., :3]
    rows, columns, num_channels = (*array.shape, 1)[:3]
    return FileHeader((num_channels, columns, rows), mode=mode)
