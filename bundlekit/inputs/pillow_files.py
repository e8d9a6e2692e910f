"""Opens pictures by Pillow, of any size, and says how they are to be turned and whether their compression is lossy."""

from __future__ import annotations

import os
from threading import Lock

from PIL import Image

from ..errors import InputError
from .orientation import ORIENTATION

__all__ = ["check_format", "find_lossy", "open_picture", "read_orientation", "require_lossless"]

_LOCK = Lock()  # CacheDataset loads with threads
_LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "JPEG2000": "JPEG 2000", "AVIF": "AVIF", "WEBP": "WebP"}
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "WEBP", "JPEG2000", "TIFF")
"""Those whose values Pillow hands over as they are stored; of a PGM it scales them, of a GIF it may renumber them."""
_SIZE_MARK, _DEPTH_AT = b"\xff\x4f\xff\x51", 38  # of JPEG 2000, and the byte behind it that holds the depth
_LOSSLESS_WEBP = b"VP8L"
_TEXTS = (b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp")
"""Names of the texts in a PNG that may hold an orientation."""


def open_picture(path: str | os.PathLike) -> Image.Image:
    """The picture in a file, not decoded yet, whatever its size.

    Pillow's own limit of about 179 million pixels guards servers against files from strangers; slides are larger.

    Args:
        path: the file.

    Raises:
        OSError: where it cannot be opened, or is no picture.
    """
    with _LOCK:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _describes_itself_late(path: str | os.PathLike) -> bool:
    """Whether a PNG may tell its orientation behind its values."""
    seen_values = False
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            seen_values |= kind == b"IDAT"
            start = file.read(min(length, 32)) if seen_values and kind in (b"tEXt", b"zTXt", b"iTXt") else b""
            if seen_values and (kind == b"eXIf" or start.startswith(_TEXTS)):
                return True
            file.seek(length + 4 - len(start), os.SEEK_CUR)
    return False


def read_orientation(path: str | os.PathLike, image: Image.Image) -> int:
    """The tag that says how an opened picture is to be turned, 1 where there is none.

    A PNG that has it behind its values is decoded for it.

    Args:
        path: the file.
        image: as :func:`open_picture` returns it.

    Example:
        >>> import tempfile
        >>> path, exif = tempfile.mkdtemp() + "/a.png", Image.Exif()
        >>> exif[ORIENTATION] = 6
        >>> Image.new("L", (6, 4)).save(path, exif=exif)
        >>> with open_picture(path) as image:
        ...     read_orientation(path, image)
        6
    """
    if image.format == "PNG" and "exif" not in image.info and _describes_itself_late(path):
        image.load()
    orientation = Image.Image.getexif(image).get(ORIENTATION)  # the PNG's own getexif always decodes
    return orientation if isinstance(orientation, int) else 1


def check_format(path: str | os.PathLike, image: Image.Image) -> None:
    """Make sure that Pillow reads a picture at its full depth.

    Args:
        path: the file.
        image: as :func:`open_picture` returns it.

    Raises:
        InputError: where its format is none of PNG, JPEG, BMP, WebP and JPEG 2000, or it is a JPEG 2000 with more than
            8 bits in each of several channels.

    Example:
        >>> check_format("a.pgm", Image.new("L", (6, 4)))
        Traceback (most recent call last):
        bundlekit.errors.InputError: a.pgm: is a picture of an unknown format; expected PNG, TIFF, JPEG, BMP, WebP or \
JPEG 2000; save it as PNG or TIFF
    """
    expected, remedy = "PNG, TIFF, JPEG, BMP, WebP or JPEG 2000", "save it as PNG or TIFF"
    if image.format not in _FORMATS:
        format_name = f"the format {image.format}" if image.format else "an unknown format"
        raise InputError(path, f"is a picture of {format_name}", expected, remedy)
    if image.format == "JPEG2000" and len(image.getbands()) > 1:
        depth = _depth_of_jpeg2000(path)
        if depth > 8:
            found = f"is a JPEG 2000 with {depth} bits in each channel"
            raise InputError(path, found, "8 bits, or one channel", "save it as PNG or TIFF with 16 bits")


def _depth_of_jpeg2000(path: str | os.PathLike) -> int:
    with open(path, "rb") as file:
        _, mark, size = file.read(2**16).partition(_SIZE_MARK)
    return (size[_DEPTH_AT] & 0x7F) + 1 if mark and len(size) > _DEPTH_AT else 0


def find_lossy(path: str | os.PathLike, image: Image.Image) -> str:
    """The name of the compression of a picture that is no TIFF, where it changes values; else nothing.

    Args:
        path: the file.
        image: as :func:`open_picture` returns it.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("L", (6, 4)).save(path, format="JPEG")
        >>> with open_picture(path) as image:
        ...     find_lossy(path, image)
        'JPEG'
    """
    if image.format == "WEBP":
        with open(path, "rb") as file:
            if _LOSSLESS_WEBP in file.read(256):
                return ""
    return _LOSSY.get(image.format or "", "")


def require_lossless(path: str | os.PathLike, lossy: str) -> None:
    """Make sure that the numbers in a label map are those that were drawn.

    Args:
        path: its file.
        lossy: the name of its compression where that changes values.

    Raises:
        InputError: where it does.

    Example:
        >>> require_lossless("a.jpg", "JPEG")
        Traceback (most recent call last):
        bundlekit.errors.InputError: a.jpg: is a label map compressed by JPEG, which changes its numbers; expected a \
compression without loss; save it again as PNG, from before it was compressed
    """
    if lossy:
        found = f"is a label map compressed by {lossy}, which changes its numbers"
        remedy = "save it again as PNG, from before it was compressed"
        raise InputError(path, found, "a compression without loss", remedy)
