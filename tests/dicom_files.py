"""Writes Enhanced DICOM files of several frames, byte by byte, for the tests of what reads them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_UNDEFINED = 0xFFFFFFFF
_LONG = {"OW", "SQ", "UN"}


class Encoder:
    """Data elements in little endian, with their types or without, sequences with a length or with an end mark."""

    def __init__(self, is_explicit: bool = True, has_lengths: bool = True) -> None:
        self.is_explicit = is_explicit
        self.has_lengths = has_lengths

    def element(self, tag: int, kind: str, value: bytes | str | int) -> bytes:
        if isinstance(value, int):
            value = struct.pack("<H", value)
        if isinstance(value, str):
            value = value.encode()
        value += (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
        return self._head(tag, kind, len(value)) + value

    def sequence(self, tag: int, items: Sequence[bytes]) -> bytes:
        ends = [b"", b""] if self.has_lengths else [struct.pack("<HHI", 0xFFFE, e, 0) for e in (0xE00D, 0xE0DD)]
        content = b"".join(
            struct.pack("<HHI", 0xFFFE, 0xE000, len(item) if self.has_lengths else _UNDEFINED) + item + ends[0]
            for item in items
        )
        length = len(content) if self.has_lengths else _UNDEFINED
        return self._head(tag, "SQ", length) + content + ends[1]

    def _head(self, tag: int, kind: str, length: int) -> bytes:
        place = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if not self.is_explicit:
            return place + struct.pack("<I", length)
        return place + kind.encode() + (struct.pack("<xxI", length) if kind in _LONG else struct.pack("<H", length))


def _text(numbers: Sequence[float]) -> str:
    return "\\".join(f"{number:.9g}" for number in numbers)


def write_frames(
    path: Path,
    hu: np.ndarray,
    affine: np.ndarray,
    order: Sequence[int] | None = None,
    rescale: Sequence[tuple[float, float]] = ((1.0, -1024.0),),
    is_shared: bool = True,
    stacks: Sequence[str] | None = None,
    leave_out: Sequence[int] = (),
    encoder: Encoder | None = None,
) -> None:
    """Write an Enhanced CT file.

    Args:
        path: the file; its folder is made.
        hu: (x, y, z), values that the slopes and intercepts give exactly.
        affine: from voxel index to mm in RAS.
        order: which slice each frame of the file is; by default as in ``hu``.
        rescale: slope and intercept of each slice, or one pair for all.
        is_shared: whether what all frames have in common stands in the shared group only; else in each frame's.
        stacks: name of each frame's stack.
        leave_out: tags of functional groups that the file lacks.
        encoder: how to write the elements.
    """
    encode = encoder or Encoder()
    order = range(hu.shape[2]) if order is None else order
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    edges_mm = np.linalg.norm(lps[:3, :3], axis=0)
    directions = _text((lps[:3, :2] / edges_mm[:2]).T.ravel())
    own_rescale = len(rescale) > 1
    pairs = list(rescale) if own_rescale else list(rescale) * hu.shape[2]

    def group(tag: int, *elements: tuple[int, str, str]) -> bytes:
        return b"" if tag in leave_out else encode.sequence(tag, [b"".join(encode.element(*e) for e in elements)])

    def rescaling(k: int) -> bytes:
        slope, intercept = pairs[k]
        return group(0x00289145, (0x00281052, "DS", f"{intercept:g}"), (0x00281053, "DS", f"{slope:g}"))

    common = group(0x00209116, (0x00200037, "DS", directions))
    common += group(
        0x00289110, (0x00180050, "DS", f"{edges_mm[2]:.9g}"), (0x00280030, "DS", _text([edges_mm[1], edges_mm[0]]))
    )
    common += b"" if own_rescale else rescaling(0)
    frames = []
    for i, k in enumerate(order):
        stack = [(0x00209056, "SH", stacks[i])] if stacks else []
        item = group(0x00209111, *stack)
        item += group(0x00209113, (0x00200032, "DS", _text((lps @ [0, 0, k, 1])[:3])))
        frames.append(item + (b"" if is_shared else common) + (rescaling(k) if own_rescale else b""))
    stored = [np.rint((hu[..., k].T - pairs[k][1]) / pairs[k][0]).astype("<i2") for k in order]
    plain = [
        (0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.2.1"), (0x00080018, "UI", "1.2.3.4"), (0x00080060, "CS", "CT"),
        (0x0020000D, "UI", "1.2"), (0x0020000E, "UI", "1.2.3"), (0x00280002, "US", 1),
        (0x00280004, "CS", "MONOCHROME2"), (0x00280008, "IS", str(len(stored))), (0x00280010, "US", hu.shape[1]),
        (0x00280011, "US", hu.shape[0]), (0x00280100, "US", 16), (0x00280101, "US", 16), (0x00280102, "US", 15),
        (0x00280103, "US", 1),
    ]  # fmt: skip
    meta = Encoder()
    syntax = "1.2.840.10008.1.2.1" if encode.is_explicit else "1.2.840.10008.1.2"
    head = meta.element(0x00020002, "UI", "1.2.840.10008.5.1.4.1.1.2.1") + meta.element(0x00020003, "UI", "1.2.3.4")
    head += meta.element(0x00020010, "UI", syntax)
    head = meta.element(0x00020000, "UL", struct.pack("<I", len(head))) + head
    content = b"".join(encode.element(*element) for element in plain)
    content += encode.sequence(0x52009229, [common if is_shared else b""]) + encode.sequence(0x52009230, frames)
    content += encode.element(0x7FE00010, "OW", b"".join(frame.tobytes() for frame in stored))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + head + content)
