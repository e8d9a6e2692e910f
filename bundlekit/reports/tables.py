"""Tables of aligned columns, and CSV files."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomically

__all__ = ["align_columns", "write_csv"]


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """The rows as lines, the first column aligned to the left and the numbers in all others to the right.

    Args:
        rows: equally many cells in each.

    Example:
        >>> print(align_columns([["image", "dice"], ["a.png", "1.0"]]))
        image  dice
        a.png   1.0
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("  ".join(line) for line in lines)


def write_csv(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write a CSV file, which appears when it is complete.

    Args:
        path: the file.
        rows: the cells by column.
        columns: of the file; None takes those of the first row.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "scores.csv")
        >>> write_csv(path, [{"seed": 0, "dice": 0.5}])
        >>> path.read_text()
        'seed,dice\\n0,0.5\\n'
    """

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0] if columns is None else columns), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)
