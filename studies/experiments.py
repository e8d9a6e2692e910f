"""Runs series of trainings that can be stopped and continued, and records their scores."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundlekit.reports.tables import write_csv
from tools.commands import run_bundle

__all__ = ["Row", "mean_and_deviation", "read_scores", "train", "write_scores"]

Row = dict[str, str]


def train(bundle: Path, overlays: Sequence[str], run: Path, base: str = "train", **overrides: Any) -> None:
    """Train to ``run/model.pt``; goes on where it was stopped, and does nothing once it is finished.

    Args:
        bundle: its folder.
        overlays: names of those over the base.
        run: folder of the run.
        base: name of the complete config, as "pretrain" where the bundle has one.
        overrides: as for :func:`tools.commands.run_bundle`.

    Raises:
        SystemExit: when it fails.
    """
    finished = run / "finished"
    if not finished.exists():
        places = {"output_dir": run, "ckpt_path": run / "model.pt"}
        run_bundle(bundle, [base, *overlays], **places, resume="true", **overrides)
        finished.touch()


def read_scores(path: Path, columns: Sequence[str]) -> list[Row]:
    """The lines of a record; none where there is no file yet.

    Args:
        path: a CSV.
        columns: that it must have.

    Raises:
        SystemExit: where it has others.

    Example:
        >>> read_scores(Path("/nowhere/scores.csv"), ["seed"])
        []
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    found = list(reader.fieldnames or [])
    if found != list(columns):
        raise SystemExit(f"{path}: has columns {', '.join(found)}; expected {', '.join(columns)}: pass another file")
    return rows


def write_scores(path: Path, rows: Sequence[Row]) -> None:
    """Replace the record as a whole.

    Args:
        path: a CSV.
        rows: at least one; all with the same columns.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "scores.csv")
        >>> write_scores(path, [{"seed": "0", "dice": "0.5"}])
        >>> read_scores(path, ["seed", "dice"])
        [{'seed': '0', 'dice': '0.5'}]
    """
    write_csv(path, rows)


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean and standard deviation (divided by n - 1) in words; "-" for none.

    Example:
        >>> mean_and_deviation([0.5, 0.7, 0.9]), mean_and_deviation([0.25]), mean_and_deviation([])
        ('0.700 ± 0.200', '0.250', '-')
    """
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"
