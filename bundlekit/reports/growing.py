"""Appends rows to a report on the disk without rewriting it."""

from __future__ import annotations

import csv
import io
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["append_to_csv", "append_to_json"]


def append_to_json(path: str | os.PathLike, rows: Sequence[Any]) -> bool:
    """Add elements to the list that a JSON file ends with; whether the file ends with one that has elements.

    What is written is what ``json.dumps(..., indent=1)`` of all elements would be. A single call of the system writes
    it, so that a process that is killed leaves the file as it was before or after.

    Args:
        path: a file that ``json.dumps`` has written with ``indent=1`` and a new line at its end: a list, or an object
            whose last value is a list.
        rows: what to add.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = tempfile.mkdtemp() + "/a.json"
        >>> _ = Path(path).write_text(json.dumps({"rows": [{"a": 1}]}, indent=1) + "\\n")
        >>> append_to_json(path, [{"a": 2}]), json.loads(Path(path).read_text())
        (True, {'rows': [{'a': 1}, {'a': 2}]})
    """
    for indent, tail in ((2, b"\n ]\n}\n"), (1, b"\n]\n")):
        try:
            with open(path, "r+b", buffering=0) as file:
                end = file.seek(0, os.SEEK_END) - len(tail)
                file.seek(max(end - 1, 0))
                if end < 1 or file.read()[1:] != tail:
                    continue
                texts = (textwrap.indent(json.dumps(row, indent=1, allow_nan=False), " " * indent) for row in rows)
                file.seek(end)
                file.write("".join(f",\n{text}" for text in texts).encode() + tail)
                return True
        except FileNotFoundError:
            return False
    return False


def append_to_csv(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to a table, in one call of the system.

    Args:
        path: a file that ``csv.DictWriter`` has written, its header included.
        rows: by the columns of the file.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = tempfile.mkdtemp() + "/a.csv"
        >>> _ = Path(path).write_text("a,b\\n1,2\\n")
        >>> append_to_csv(path, [{"b": 4, "a": 3}])
        >>> Path(path).read_text().splitlines()
        ['a,b', '1,2', '3,4']
    """
    with open(path, "rb") as file:
        header = file.readline().decode()
    text = io.StringIO(newline="")
    ending = "\r\n" if header.endswith("\r\n") else "\n"
    csv.DictWriter(text, next(csv.reader([header])), lineterminator=ending).writerows(rows)
    with open(path, "ab", buffering=0) as file:
        file.write(text.getvalue().encode())
