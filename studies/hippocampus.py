"""Train and evaluate the hippocampus networks with and without the VAE on every fold; print a table of their scores.

    python -m studies.hippocampus --source Task04_Hippocampus --output runs/folds

All runs have the same epochs and seed. Each writes a line to SCORES (default: OUTPUT/scores.csv) with its mean scores
over the test volumes of the fold. The command can be stopped and started again: finished runs are skipped, and an
interrupted run is continued. --folds 0 1 runs only some folds. The table gives mean and standard deviation over the
folds that all variants have.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from studies.experiments import Row, mean_and_deviation, read_scores, train, write_scores
from studies.markdown import markdown_table
from tools.commands import call, run_bundle

BUNDLE = Path(__file__).resolve().parent.parent / "bundles/hippocampus_mri_segmentation"
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


def scores(metrics: Path) -> Row:
    """Means over the test volumes of a run."""
    images = json.loads(metrics.read_text())["images"]
    return {name: f"{statistics.mean(image[key] for image in images):.5f}" for name, key in METRICS.items()}


def table_of_folds(rows: list[Row]) -> str:
    """Mean and standard deviation over the folds that every variant has."""
    of: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        of.setdefault((row["network"], row["vae"]), {})[row["fold"]] = row
    folds = sorted(set.intersection(*map(set, of.values())))
    cells = []
    for key, found in of.items():
        values = ([float(found[fold][name]) for fold in folds] for name in METRICS)
        cells.append([*key, *map(mean_and_deviation, values)])
    return f"folds {', '.join(folds)}\n\n{markdown_table(['network', 'VAE', *METRICS], cells)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="what the bundle's prepare_data.py reads")
    parser.add_argument("--output", type=Path, required=True, help="folder of data and runs")
    parser.add_argument("--scores", type=Path, help="CSV of the runs")
    parser.add_argument("--folds", type=int, nargs="+", choices=range(NUM_FOLDS), default=list(range(NUM_FOLDS)))
    parser.add_argument("--max_epochs", type=int, default=5)
    parser.add_argument("--split", choices=("pair", "name"), default="pair", help="of the bundle's prepare_data.py")
    args = parser.parse_args()
    output = args.output.resolve()
    path = args.scores or output / "scores.csv"
    rows = read_scores(path, [*KEY, *METRICS])
    done = {tuple(row[name] for name in KEY) for row in rows}
    variants = [(network, vae) for network in OVERLAYS for vae in ("no", "yes")]
    for fold in args.folds:
        for network, vae in variants:
            key = (network, vae, str(fold), str(args.max_epochs))
            if key in done:
                continue
            data, run = output / f"data{fold}", output / "_".join(key)
            if not (data / "dataset.json").exists():
                source = args.source.resolve()
                options = ("--source", source, "--output", data, "--fold", fold, "--split", args.split)
                call(BUNDLE, "scripts/prepare_data.py", *options)
            settings = {"dataset_dir": data, "max_epochs": args.max_epochs, "network_def#vae": vae == "yes"}
            train(BUNDLE, OVERLAYS[network], run, **settings)
            places = {"output_dir": run, "ckpt_path": run / "model.pt"}
            run_bundle(BUNDLE, ["train", "evaluate", *OVERLAYS[network]], **places, **settings)
            rows.append({**dict(zip(KEY, key, strict=True)), **scores(run / "metrics.json")})
            write_scores(path, rows)
    print(f"{path}\n\n{table_of_folds([row for row in rows if row['epochs'] == str(args.max_epochs)])}")


if __name__ == "__main__":
    main()
