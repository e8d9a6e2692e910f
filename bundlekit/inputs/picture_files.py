"""Reads the header, or the values, of a PNG, JPEG, TIFF, BMP, WebP or JPEG 2000: upright, all bits, without alpha."""

from __future__ import annotations

import numpy as np
from monai.data import ITKReader
from PIL import Image

from ..errors import InputError, InputNote
from .file_headers import FileHeader
from .orientation import turn
from .picture_layout import PALETTES, PictureLayout
from .pillow_files import check_format, find_lossy, open_picture, read_orientation, require_lossless
from .tiff_files import is_tiff, read_tiff, read_tiff_layout

__all__ = ["read_picture", "read_picture_header"]

_CHANNELS = {"1": 1, "L": 1, "I": 1, "F": 1, "P": 1, "LA": 1, "PA": 1, "RGB": 3, "RGBA": 3, "RGBX": 3, "CMYK": 4}
"""How many of an image's channels are no alpha, by Pillow's mode without what follows a semicolon."""
_GREY_WITH_ALPHA = 4  # in the header of a PNG


def read_picture(path: str, is_label: bool = False) -> tuple[np.ndarray, str]:
    """The values of a picture, (rows, columns) or (rows, columns, channels), and Pillow's name of its colours.

    Args:
        path: the file.
        is_label: whether it is a label map, of which the indices of a palette are the numbers; otherwise they become
            colours.

    Raises:
        InputError: where it holds several images, or values that are neither grey nor colours; where the compression of
            a label map may have changed its numbers.
    """
    array, layout = (read_tiff if is_tiff(path) else _by_pillow)(path, is_label)
    if is_label:
        require_lossless(path, layout.lossy)
    values = array.astype(np.uint8 if array.dtype == bool else array.dtype.newbyteorder("="), copy=False)
    return turn(values, layout.orientation), "RGB" if _becomes_colours(layout, is_label) else layout.mode


def read_picture_header(path: str, is_label: bool = False) -> FileHeader:
    """The size, channels and colours of a picture without decoding its values, and notes on what reading it changes.

    Args:
        path: the file.
        is_label: as for :func:`read_picture`.

    Raises:
        InputError: where it holds several images, or values that are neither grey nor colours.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("RGBA", (6, 4)).save(path)
        >>> header = read_picture_header(path)
        >>> header.shape, header.mode
        ((3, 6, 4), 'RGBA')
        >>> print(*header.notes)  # doctest: +ELLIPSIS
        /...a.png: has an alpha channel; expected grey values or colours only; it is dropped, and pixels count ...
    """
    layout = read_tiff_layout(path, is_label) if is_tiff(path) else _pillow_layout(path)
    notes = tuple(_notes(path, layout, is_label))
    channels, mode = (3, "RGB") if _becomes_colours(layout, is_label) else (layout.channels, layout.mode)
    return FileHeader((channels, *layout.size), mode=mode, lossy=layout.lossy, notes=notes)


def _becomes_colours(layout: PictureLayout, is_label: bool) -> bool:
    return layout.mode in PALETTES and not is_label


def _notes(path: str, layout: PictureLayout, is_label: bool) -> list[InputNote]:
    notes = []
    if 1 < layout.orientation <= 8:
        found = f"has a tag that rotates or mirrors it (EXIF or TIFF orientation {layout.orientation})"
        remedy = f"it is used as viewers show it, {' x '.join(map(str, layout.size))} px, and so are its outputs"
        notes.append(InputNote(path, found, "an upright image (orientation 1)", remedy))
    if layout.has_alpha:
        remedy = "it is dropped, and pixels count however transparent they are"
        notes.append(InputNote(path, "has an alpha channel", "grey values or colours only", remedy))
    if _becomes_colours(layout, is_label):
        remedy = "the colours of its palette are used"
        notes.append(InputNote(path, "is a palette image", "grey values or RGB", remedy))
    if layout.lacks_black:
        found = "does not say whether black or white is zero"
        remedy = "its values are used as they are stored"
        notes.append(InputNote(path, found, "a TIFF with a PhotometricInterpretation", remedy))
    return notes


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


def _check_mode(path: str, image: Image.Image) -> str:
    """The mode of an image, which need not have been decoded, where it can be used."""
    check_format(path, image)
    number = getattr(image, "n_frames", 1)
    if number > 1 and image.format != "MPO":  # a JPEG with previews
        raise InputError(path, f"holds {number} images", "one", "save the image to be used as a separate file")
    mode = image.mode.partition(";")[0]
    if mode not in _CHANNELS:
        raise InputError(path, f"has the colour mode {mode}", "grey values or RGB", "save it as grey or RGB")
    return mode


def _pillow_layout(path: str) -> PictureLayout:
    """What the header of a picture that is no TIFF says."""
    with open_picture(path) as image:
        mode, num_bands = _check_mode(path, image), len(image.getbands())
        is_grey = num_bands <= 2 or _deep_png_colour(path) == _GREY_WITH_ALPHA  # of which Pillow makes RGBA
        has_alpha = mode in ("LA", "PA", "RGBA") or "transparency" in image.info
        columns, rows = image.size
        channels, orientation = 1 if is_grey else _CHANNELS[mode], read_orientation(path, image)
        return PictureLayout(rows, columns, channels, mode, has_alpha, orientation, find_lossy(path, image))


def _by_pillow(path: str, is_label: bool) -> tuple[np.ndarray, PictureLayout]:
    """The values of a picture that is no TIFF, and its layout."""
    layout = _pillow_layout(path)
    if _deep_png_colour(path):
        array = _by_itk(path)
    else:
        with open_picture(path) as image:
            if _becomes_colours(layout, is_label):
                return np.asarray(image.convert("RGBA"))[..., :3], layout
            array = np.asarray(image)
    if array.ndim == 3:
        array = array[..., : layout.channels] if layout.channels > 1 else array[..., 0]
    return array, layout
