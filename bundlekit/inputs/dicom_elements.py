"""Reads the data elements of a DICOM file, with those in its sequences, which ITK does not hand over to Python."""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from typing import BinaryIO

__all__ = ["Elements", "is_dicom", "read_elements"]

Elements = dict[int, "bytes | list[Elements]"]
"""By tag, such as 0x00280030: the bytes of a value, or the items of a sequence."""

_IMPLICIT, _DEFLATED, _BIG_ENDIAN = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.2"
_TRANSFER_SYNTAX = 0x00020010
_PIXELS = 0x7FE00000  # the group of the pixels, behind all that is read here
_ITEM, _END_OF_ITEM = 0xFFFEE000, 0xFFFEE00D
_UNDEFINED = 0xFFFFFFFF  # the length of what ends with a mark
_LONG_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
# what says where frames lie; in files without types a sequence is known by its tag only
_SEQUENCES = {0x52009229, 0x52009230, 0x00209111, 0x00209113, 0x00209116, 0x00289110, 0x00289145}
_MOST_BYTES = 4096  # of a value that is kept


def is_dicom(path: str | os.PathLike) -> bool:
    """Whether a file has the mark of DICOM.

    Example:
        >>> is_dicom("/nowhere")
        False
    """
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


class _Stream:
    """Heads of data elements, in one of DICOM's encodings."""

    def __init__(self, file: BinaryIO, order: str = "<", is_explicit: bool = True) -> None:
        self.file = file
        self.order = order
        self.is_explicit = is_explicit

    def unpack(self, form: str) -> tuple[int, ...]:
        form = self.order + form
        return struct.unpack(form, self.file.read(struct.calcsize(form)))

    def read_head(self) -> tuple[int, bytes, int]:
        """Tag, type and length; the type is empty where the encoding names none."""
        group, element = self.unpack("HH")
        tag = group << 16 | element
        if not self.is_explicit or group == 0xFFFE:
            return tag, b"", self.unpack("I")[0]
        kind = self.file.read(2)
        return tag, kind, self.unpack("xxI")[0] if kind in _LONG_VRS else self.unpack("H")[0]


def _read_items(stream: _Stream, length: int, is_wanted: bool) -> list[Elements]:
    """The items of a sequence, or the fragments of a value in pieces, which are left out."""
    items = []
    end = math.inf if length == _UNDEFINED else stream.file.tell() + length
    while stream.file.tell() < end:
        tag, _, size = stream.read_head()
        if tag != _ITEM:
            break
        stop = math.inf if size == _UNDEFINED else stream.file.tell() + size
        if is_wanted or math.isinf(stop):
            items.append(_read_dataset(stream, stop))
        if not math.isinf(stop):
            stream.file.seek(int(stop))
    return items


def _read_dataset(stream: _Stream, end: float, is_outermost: bool = False) -> Elements:
    elements: Elements = {}
    while stream.file.tell() < end:
        tag, kind, length = stream.read_head()
        if tag == _END_OF_ITEM or (is_outermost and tag >= _PIXELS):
            break
        if tag in _SEQUENCES or length == _UNDEFINED:
            inner = _Stream(stream.file, "<", False) if kind == b"UN" else stream  # as the standard has it
            elements[tag] = _read_items(inner, length, tag in _SEQUENCES)
        elif length <= _MOST_BYTES:
            elements[tag] = stream.file.read(length)
        else:
            stream.file.seek(length, os.SEEK_CUR)
    return elements


def _read_meta(stream: _Stream) -> bytes:
    """The transfer syntax; the stream then stands behind the group that names it."""
    syntax = _IMPLICIT
    while True:
        start = stream.file.tell()
        tag, _, length = stream.read_head()
        if tag >> 16 != 2:
            stream.file.seek(start)
            return syntax
        value = stream.file.read(length)
        if tag == _TRANSFER_SYNTAX:
            syntax = value.rstrip(b"\0 ")


def read_elements(path: str | os.PathLike) -> Elements:
    """The elements of a DICOM file before its pixels: short values, and the functional groups of its frames.

    Args:
        path: the file.

    Raises:
        OSError, struct.error, zlib.error: where it cannot be read, or ends in between.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.dcm"
        >>> with open(path, "wb") as file:
        ...     _ = file.write(bytes(128) + b"DICM" + struct.pack("<HHI4s", 0x28, 8, 4, b"12  "))
        >>> read_elements(path)
        {2621448: b'12  '}
    """
    with open(path, "rb") as file:
        file.seek(132 if is_dicom(path) else 0)
        syntax = _read_meta(_Stream(file))
        order, is_explicit = ">" if syntax == _BIG_ENDIAN else "<", syntax != _IMPLICIT
        content: BinaryIO = file
        if syntax == _DEFLATED:
            content = io.BytesIO(zlib.decompress(file.read(), -zlib.MAX_WBITS))
        start = content.tell()
        end = content.seek(0, os.SEEK_END)
        content.seek(start)
        return _read_dataset(_Stream(content, order, is_explicit), end, is_outermost=True)
