"""Series of runs of a bundle: commands as a user would type them, and a record of scores that outlives a kill."""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .training import write_atomically

__all__ = ["call", "mean_and_deviation", "read_scores", "run_bundle", "train", "write_scores"]

Row = dict[str, str]


def call(folder: Path, *words: object) -> None:
    """Show ``python WORDS`` and run it in the folder.

    Raises:
        SystemExit: when it fails.

    Example:
        >>> call(Path("."), "-c", "pass")
        $ python -c pass
    """
    command = list(map(str, words))
    print(f"$ python {' '.join(command)}", flush=True)
    status = subprocess.run([sys.executable, *command], cwd=folder).returncode
    if status != 0:
        raise SystemExit(f"the command above failed with exit code {status}; mend what it says and start again")


def run_bundle(bundle: Path, configs: Sequence[str], **overrides: Any) -> None:
    """``python -m monai.bundle run`` in the bundle's folder.

    Args:
        bundle: its folder.
        configs: names in configs/, without ending, the first one complete and the others overlays.
        overrides: values by name; with "#" in the name, of an entry within.

    Raises:
        SystemExit: when it fails.
    """
    files = [f"configs/{name}.json" for name in configs]
    call(bundle, "-m", "monai.bundle", "run", "--config_file", files, *_words(overrides))


def _words(overrides: dict[str, Any]) -> list[str]:
    return [word for name, value in overrides.items() for word in (f"--{name}", str(value))]


def train(bundle: Path, overlays: Sequence[str], run: Path, base: str = "train", **overrides: Any) -> None:
    """Train to ``run/model.pt``; goes on where it was stopped, and does nothing once it is finished.

    Args:
        bundle: its folder.
        overlays: names of those over the base.
        run: folder of the run.
        base: name of the complete config, as "pretrain" where the bundle has one.
        overrides: as those of :func:`run_bundle`.

    Raises:
        SystemExit: when it fails.
    """
    finished = run / "finished"
    if not finished.exists():
        places = {"output_dir": run, "ckpt_path": run / "model.pt"}
        resume = str((run / "state.pt").exists()).lower()
        run_bundle(bundle, [base, *overlays], **places, resume=resume, **overrides)
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

    def write(name: str | os.PathLike) -> None:
        with open(name, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)


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
