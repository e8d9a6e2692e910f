"""Tables in Markdown, as the bundles' pages show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["markdown_table"]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a line for the columns' names, one that separates them, and one for each row.

    Args:
        columns: names.
        rows: cells, as many as columns.

    Example:
        >>> print(markdown_table(["image", "dice"], [["a.png", 0.5]]))
        | image | dice |
        |---|---|
        | a.png | 0.5 |
    """
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in [columns, *rows]]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:]])
