"""Keeps files that the checks have decoded, so that the first loader that reads them does not decode them again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.transforms import SUPPORTED_READERS, LoadImage
from monai.utils import ensure_tuple

from .parts import find_state

__all__ = ["DECODED", "DecodedFiles", "DecodedReader", "TakesDecoded", "keeping"]

_MAX_BYTES = 2**30
_Data = tuple[np.ndarray, dict]


def _state(paths: Sequence[str]) -> list[str]:
    """What differs where a file was replaced meanwhile."""
    return [find_state(path) for path in paths]


class DecodedFiles:
    """What readers have decoded, by their class and the files, each for one use.

    Before a training the checks decode every file to look at its values, and the training's own loader decodes it for
    the patches. What is kept here in between spares the second decoding, and costs at most ``max_bytes`` of memory: 1
    GiB in the process that checks, the first one of several. The bytes are those of the file's own type, of pictures a
    quarter of the 32-bit values that ``CacheDataset`` then holds for the whole training; each file's are given up when
    it is loaded. Files beyond that limit are decoded twice. Workers of a ``DataLoader`` read what their parent process
    has kept, and it stays in the parent, whose memory they share.

    Args:
        max_bytes: how much to keep.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.png"
        >>> open(path, "wb").close()
        >>> files = DecodedFiles()
        >>> files.keep(DecodedReader, (path,), (np.ones(2), {}))
        >>> files.take(DecodedReader, (path,))[0], files.take(DecodedReader, (path,))
        (array([1., 1.]), None)
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._files: dict[tuple[str, ...], tuple[type, list[str], _Data]] = {}
        self._lock = Lock()  # CacheDataset loads with threads

    def keep(self, reader: type, paths: tuple[str, ...], data: _Data) -> None:
        """Keep what a reader's ``get_data`` has returned, where there is room for it."""
        with self._lock:
            if paths not in self._files and self.num_bytes + data[0].nbytes <= self.max_bytes:
                self._files[paths] = (reader, _state(paths), data)
                self.num_bytes += data[0].nbytes

    def find(self, reader: type, paths: tuple[str, ...]) -> _Data | None:
        """What is kept for a reader of unchanged files; None where nothing is."""
        kept_for, state, data = self._files.get(paths, (None, None, None))
        try:
            return data if kept_for is reader and state == _state(paths) else None
        except OSError:
            return None

    def take(self, reader: type, paths: tuple[str, ...]) -> _Data | None:
        """What is kept for a reader of unchanged files, which is given up; None where nothing is."""
        with self._lock:
            found = self.find(reader, paths)
            if found is not None:
                self._drop(paths)
            return found

    def drop(self, paths: Sequence[str]) -> None:
        """Give up what is kept of the files of an image."""
        with self._lock:
            self._drop(tuple(f"{Path(path).expanduser()}" for path in paths))  # as LoadImage names them

    def _drop(self, paths: tuple[str, ...]) -> None:
        if paths in self._files:
            *_, (array, _) = self._files.pop(paths)
            self.num_bytes -= array.nbytes


DECODED = DecodedFiles()
"""What the checks of this process have decoded."""


class _Kept:
    """What takes the place of an opened file between ``read`` and ``get_data`` of a reader."""

    def __init__(self, data: _Data) -> None:
        self.data = data


def _names(data: Any) -> tuple[str, ...]:
    return tuple(map(str, ensure_tuple(data)))


class TakesDecoded(ImageReader):
    """Puts what is kept in :data:`DECODED` in the place of what the reader behind it would decode.

    For the front of a class's bases: ``class SomeReader(TakesDecoded, ITKReader)``.
    """

    def read(self, data: Any, **kwargs: Any) -> Any:
        found = DECODED.take(type(self), _names(data))
        return super().read(data, **kwargs) if found is None else _Kept(found)  # type: ignore[safe-super]

    def get_data(self, img: Any) -> _Data:
        return img.data if isinstance(img, _Kept) else super().get_data(img)  # type: ignore[safe-super]


class DecodedReader(TakesDecoded):
    """Reads files that one of MONAI's own readers has decoded during the checks, and no others.

    It is one of the readers that MONAI's ``LoadImage`` asks where it chooses by itself.
    """

    def verify_suffix(self, filename: Any) -> bool:
        return DECODED.find(DecodedReader, _names(filename)) is not None

    def read(self, data: Any, **kwargs: Any) -> Any:
        if not self.verify_suffix(data):
            raise ValueError(f"{data} was not kept")
        return super().read(data, **kwargs)


SUPPORTED_READERS["decodedreader"] = DecodedReader


class _Keeps(ImageReader):
    """A reader that keeps in :data:`DECODED` what it decodes."""

    def __init__(self, reader: ImageReader) -> None:
        self.reader = reader
        self.kept_for = type(reader) if isinstance(reader, TakesDecoded) else DecodedReader
        self.paths: tuple[str, ...] = ()

    def verify_suffix(self, filename: Any) -> bool:
        return self.reader.verify_suffix(filename)

    def read(self, data: Any, **kwargs: Any) -> Any:
        self.paths = _names(data)
        found = DECODED.find(self.kept_for, self.paths)
        return self.reader.read(data, **kwargs) if found is None else _Kept(found)

    def get_data(self, img: Any) -> _Data:
        if isinstance(img, _Kept):
            return img.data
        data = self.reader.get_data(img)
        DECODED.keep(self.kept_for, self.paths, data)
        return data


def keeping(load: LoadImage) -> LoadImage:
    """A ``LoadImage`` like another one that keeps what it decodes in :data:`DECODED`.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.npy"
        >>> np.save(path, np.ones((2, 3)))
        >>> _ = keeping(LoadImage())(path)
        >>> DECODED.take(DecodedReader, (path,))[0].shape
        (2, 3)
    """
    changed = copy.copy(load)
    changed.readers = [_Keeps(reader) for reader in load.readers if not isinstance(reader, DecodedReader)]
    return changed
