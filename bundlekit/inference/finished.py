"""Reads the lines on finished images that all processes of a run write, each line once."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FinishedLines"]

_PREFIX = ".finished-"
_ENDING = ".jsonl"
_TAIL_BYTES = 200  # of what was read, by which another file of the same name is recognised


@dataclass
class _Part:
    """How far a file was read."""

    inode: int = -1
    num_bytes: int = 0
    tail: bytes = b""


class FinishedLines:
    """The lines of all processes' files ``.finished-<number>.jsonl`` in a folder.

    :meth:`refresh` reads what was added since the last time, so that reading after every image costs no more than
    reading all lines once. Where a file was removed or begun again all files are read from their beginning.

    Args:
        folder: where the files lie.

    Example:
        >>> import tempfile
        >>> lines = FinishedLines(Path(tempfile.mkdtemp()))
        >>> lines.append(0, {"run": "r", "at": 1, "image": ["a.png"], "outputs": {}})
        >>> lines.refresh()
        >>> [line["image"] for line in lines.read]
        [['a.png']]
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_restarts = 0
        self._forget()

    def _forget(self) -> None:
        self.read: list[dict[str, Any]] = []
        self._last: dict[str, dict[str, Any]] = {}  # by image
        self._writers: dict[str, dict[str, Any]] = {}  # by output
        self._parts: dict[Path, _Part] = {}

    def append(self, number: int, line: dict[str, Any]) -> None:
        """Write a line to the file of a process, and wait until it is on the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{_PREFIX}{number}{_ENDING}").open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(line)}\n")  # begins a line even where the one before was cut off
            file.flush()
            os.fsync(file.fileno())

    def refresh(self) -> None:
        """Read all whole lines that were added; the last line of a process that was killed may have been cut off."""
        files = self._files()
        texts = [self._read_on(path) for path in files]
        if None in texts or self._parts.keys() - set(files):
            self._forget()
            self.num_restarts += 1
            texts = [self._read_on(path) for path in files]
        lines = [line for text in texts for line in _parse(text or b"")]
        self.read += lines
        for line in sorted(lines, key=_time):
            _replace(self._last, json.dumps(line["image"]), line)
            for output in line["outputs"]:
                _replace(self._writers, output, line)

    def valid(self, run: str) -> dict[str, dict[str, Any]]:
        """By image, its last line, where that is of this run and no later line has written its outputs."""
        return {
            name: line
            for name, line in self._last.items()
            if line["run"] == run and all(self._writers[output] is line for output in line["outputs"])
        }

    def remove(self, number: int, count: int) -> None:
        """Remove a process's file, and its part of those that an earlier run by more processes has left."""
        for path in self._files():
            earlier = path.name[len(_PREFIX) : -len(_ENDING)]
            if earlier.isdecimal() and int(earlier) % count == number:
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{_PREFIX}*{_ENDING}"))

    def _read_on(self, path: Path) -> bytes | None:
        """The whole lines behind those that were read; None where these are no longer there."""
        part = self._parts.setdefault(path, _Part())
        try:
            with path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                file.seek(part.num_bytes - len(part.tail))
                content = file.read()
        except FileNotFoundError:  # its process has begun from the first image meanwhile
            return None if part.num_bytes else b""
        if part.num_bytes and (inode != part.inode or not content.startswith(part.tail)):
            return None
        content = content[: content.rfind(b"\n") + 1]
        added = content[len(part.tail) :]
        self._parts[path] = _Part(inode, part.num_bytes + len(added), content[-_TAIL_BYTES:])
        return added


def _parse(text: bytes) -> list[dict[str, Any]]:
    lines = []
    for part in text.decode(errors="replace").split("\n"):
        try:
            line = json.loads(part)
        except ValueError:
            continue
        if isinstance(line, dict) and "run" in line:
            lines.append(line)
    return lines


def _time(line: dict[str, Any]) -> int:
    return int(line.get("at", 0))


def _replace(lines: dict[str, dict[str, Any]], key: str, line: dict[str, Any]) -> None:
    if key not in lines or _time(lines[key]) <= _time(line):
        lines[key] = line
