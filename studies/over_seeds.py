"""Print mean and standard deviation over runs that differ only in their seed, as a Markdown table.

    python -m studies.over_seeds RUNS/seed*/metrics.json

Each file is what an evaluation writes: {"metrics": {name: mean over images}, ...}. The standard deviation is
the sample's (divided by n - 1).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from studies.markdown import markdown_table


def table_of_metrics(paths: Sequence[Path]) -> str:
    """A row for each metric: the runs one by one, their mean and standard deviation."""
    runs = [json.loads(path.read_text())["metrics"] for path in paths]
    for path, run in zip(paths, runs, strict=True):
        if run.keys() != runs[0].keys():
            raise SystemExit(f"{path}: has metrics {sorted(run)}; expected {sorted(runs[0])} as in {paths[0]}")
    rows = []
    for name in runs[0]:
        values = [run[name] for run in runs]
        spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else "-"
        rows.append([name, *(f"{value:.4f}" for value in [*values, statistics.mean(values)]), spread])
    return markdown_table(["metric", *(path.parent.name for path in paths), "mean", "std"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", type=Path, nargs="+")
    print(table_of_metrics(parser.parse_args().metrics))


if __name__ == "__main__":
    main()
