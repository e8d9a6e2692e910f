"""Train and score the hippocampus networks, with and without the VAE, on every fold; print the table of their scores.

    python tools/cross_validation.py --source Task04_Hippocampus --output runs/folds

Each run has the same epochs and seed, and writes a line to SCORES (default: OUTPUT/scores.csv): the means over the test
volumes of its fold. A run whose line is there is not repeated and one that was stopped is taken up again, so the
command may be killed and started anew; --folds 0 1 does a part of it. The table gives mean and standard deviation over
the folds that all variants have.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

from bundlekit.training import write_atomically

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "bundles/hippocampus_mri_segmentation"
OVERLAYS = {"baseline": ["net_baseline"], "partially": ["net_partially"], "fully": []}
NUM_FOLDS = 5
"""Of the bundle's prepare_data.py."""
METRICS = {
    "dice": "val_mean_dice",
    "dice_anterior": "val_mean_dice_anterior",
    "dice_posterior": "val_mean_dice_posterior",
    "hausdorff95_mm": "val_hausdorff95_mm",
}
KEY = ("network", "vae", "fold", "epochs")

Row = dict[str, str]


def call(*command: str) -> None:
    print(f"$ python {' '.join(command)}", flush=True)
    status = subprocess.run([sys.executable, *command], cwd=BUNDLE).returncode
    if status != 0:
        raise SystemExit(f"the command above failed with exit code {status}; mend what it says and start again")


def train_and_score(data: Path, run: Path, network: str, vae: str, epochs: str) -> None:
    """Both commands that a user would type; neither is repeated when it was finished before."""
    places = ["--dataset_dir", str(data), "--output_dir", str(run), "--ckpt_path", str(run / "model.pt")]
    places += ["--max_epochs", epochs, "--network_def#vae", str(vae == "yes")]
    if (run / "metrics.json").exists():
        return
    for parts, more in (
        (["train"], ["--resume", str((run / "state.pt").exists()).lower()]),
        (["train", "evaluate"], []),
    ):
        files = [f"configs/{name}.json" for name in [*parts, *OVERLAYS[network]]]
        call("-m", "monai.bundle", "run", "--config_file", str(files), *places, *more)


def scores(metrics: Path) -> Row:
    """Means over the test volumes of a run."""
    images = json.loads(metrics.read_text())["images"]
    return {name: f"{statistics.mean(image[key] for image in images):.5f}" for name, key in METRICS.items()}


def read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and list(rows[0]) != [*KEY, *METRICS]:
        raise SystemExit(f"{path}: has columns {list(rows[0])}; expected {[*KEY, *METRICS]}: pass another --scores")
    return rows


def write_rows(path: Path, rows: list[Row]) -> None:
    def write(name: str) -> None:
        with open(name, "w", newline="") as file:
            writer = csv.DictWriter(file, [*KEY, *METRICS], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)


def table(rows: list[Row]) -> str:
    """Mean and standard deviation over the folds that every variant has."""
    of: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        of.setdefault((row["network"], row["vae"]), {})[row["fold"]] = row
    folds = sorted(set.intersection(*map(set, of.values())))
    lines = [f"folds {', '.join(folds)}\n", f"| network | VAE | {' | '.join(METRICS)} |", "|---|---" * 3 + "|"]
    for (network, vae), found in of.items():
        cells = [network, vae]
        for name in METRICS:
            values = [float(found[fold][name]) for fold in folds]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}" if values else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="what the bundle's prepare_data.py reads")
    parser.add_argument("--output", type=Path, required=True, help="folder of data and runs")
    parser.add_argument("--scores", type=Path, help="CSV of the runs")
    parser.add_argument("--folds", type=int, nargs="+", choices=range(NUM_FOLDS), default=list(range(NUM_FOLDS)))
    parser.add_argument("--max_epochs", type=int, default=5)
    args = parser.parse_args()
    output = args.output.resolve()
    path = args.scores or output / "scores.csv"
    rows = read_rows(path)
    done = {tuple(row[name] for name in KEY) for row in rows}
    variants = [(network, vae) for network in OVERLAYS for vae in ("no", "yes")]
    for fold in args.folds:
        for network, vae in variants:
            key = (network, vae, str(fold), str(args.max_epochs))
            if key in done:
                continue
            data, run = output / f"data{fold}", output / "_".join(key)
            if not (data / "dataset.json").exists():
                places = ["--source", str(args.source.resolve()), "--output", str(data)]
                call("scripts/prepare_data.py", *places, "--fold", str(fold))
            train_and_score(data, run, network, vae, str(args.max_epochs))
            rows.append({**dict(zip(KEY, key, strict=True)), **scores(run / "metrics.json")})
            write_rows(path, rows)
    print(f"{path}\n\n{table([row for row in rows if row['epochs'] == str(args.max_epochs)])}")


if __name__ == "__main__":
    main()
