"""Finds all files that an input consists of, and their state: a folder's slices, the values next to a header."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["find_parts", "find_state", "hash_item"]

_PAIRS = {".hdr": (".img", ".img.gz", ".IMG"), ".img": (".hdr", ".hdr.gz", ".HDR")}  # of NIfTI and Analyze
_DETACHED = re.compile(rb"^\s*(?:elementdatafile\s*=|data ?file:)[ \t]*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_MOST_BYTES = 1 << 16  # of a header
_WITH_HEADER = (".mha", ".mhd", ".nrrd", ".nhdr")


def find_parts(path: str | os.PathLike) -> list[Path]:
    """All files that are read for an input, sorted: the input itself, or the files of its folder.

    With a header come the files that hold its values: the .img of a .hdr, and those that a MetaImage's
    ``ElementDataFile`` or a NRRD's ``data file`` names, one or a list or a pattern. Hidden files do not count.

    Args:
        path: file, or folder with a DICOM series.

    Raises:
        OSError: where there is none.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.mhd").write_text("NDims = 3\\nElementDataFile = a.raw\\n")
        >>> (folder / "a.raw").touch()
        >>> [part.name for part in find_parts(folder / "a.mhd")], [part.name for part in find_parts(folder)]
        (['a.mhd', 'a.raw'], ['a.mhd', 'a.raw'])
    """
    path = Path(path)
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.name[0] != "." and file.is_file())
    ending = os.path.splitext(path.name.lower().removesuffix(".gz"))[1]
    others: list[Path] = []
    if ending in _PAIRS:
        stem = path.name[: path.name.lower().rindex(ending)]
        names = [stem + other for other in _PAIRS[ending]]
        others = [file for name in names if (file := path.with_name(name)).is_file()]
    elif ending in _WITH_HEADER:
        others = [file for name in _named(path) if (file := path.parent / name).is_file()]
    return sorted({path, *others})


def _named(path: Path) -> list[str]:
    """The files that a header names; none where the values follow it, or where no reader can make it out."""
    with open(path, "rb") as file:
        header = re.split(rb"\r?\n\r?\n", file.read(_MOST_BYTES), maxsplit=1)[0]  # NRRD ends it by an empty line
    match = _DETACHED.search(header)
    text = os.fsdecode(match[1]) if match else ""
    words = text.split()
    if not match or not words or words[0].lower() == "local":
        return []
    if words[0].lower() == "list":
        return [line.strip() for line in os.fsdecode(header[match.end() :]).splitlines() if line.strip()]
    if "%" not in words[0] or len(words) < 4:
        return [text]
    try:
        first, last, step = map(int, words[1:4])
        return [words[0] % number for number in range(first, last + 1, step)]
    except (ValueError, TypeError):
        return []


def find_state(path: str | os.PathLike) -> str:
    """A number that changes with the name, the size or the time of the last change of any of :func:`find_parts`.

    Args:
        path: file, or folder with a DICOM series.

    Raises:
        OSError: where a part is missing.
    """
    parts = find_parts(path)
    found = [(part.name, state.st_size, state.st_mtime_ns) for part in parts for state in [part.stat()]]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


def hash_item(item: Mapping[str, Any]) -> bytes:
    """A hash of an entry of a data list and of the state of its files, in letters.

    For the ``hash_func`` of MONAI's ``PersistentDataset``, which by itself knows files by their names only.

    Args:
        item: ``{"image": path or paths, "label": path}``.
    """
    values = [item[key] for key in sorted(item)]
    paths = [path for value in values for path in (value if isinstance(value, list) else [value])]
    text = json.dumps([item, [find_state(path) for path in paths]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest().encode()
