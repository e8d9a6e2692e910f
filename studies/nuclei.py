"""Train and evaluate the nuclei network in each variant and seed; print tables of the scores, and of the mosaics.

    python -m studies.nuclei --source dsb2018_nuclei --output runs/nuclei [--variants cosine cyclic --seeds 0 1]

All runs have the same number of epochs. Each writes a line per list of test images (all, grey, colour) to SCORES
(default: OUTPUT/scores.csv). The command can be stopped and started again: finished runs are skipped, and an
interrupted run is continued. --variants and --seeds select runs, so that several processes can share the work once
OUTPUT/data exists. --options passes further keys of train.json to training and evaluation; runs with other options or
another precision need another OUTPUT. The tables give mean and standard deviation over the seeds of a variant with
these epochs and options. The variant both_lists is cosine trained on the training and validation images together, as
for weights to ship. --mosaics VARIANT SEED compares, for the weights of one run, each field of view segmented as a
whole with the same field segmented tile by tile.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bundlekit.files import write_atomically
from bundlekit.metrics import THRESHOLDS, match_counts
from studies.experiments import Row, mean_and_deviation, read_scores, train, write_scores
from studies.markdown import markdown_table
from tools.commands import call, run_bundle

BUNDLE = Path(__file__).resolve().parent.parent / "bundles/nuclei_microscopy_segmentation"
VARIANTS = {
    "cosine": [],
    "warm_restart": ["fit_warm_restart"],
    "cyclic": ["fit_cyclic"],
    "dice_loss": ["loss_dice"],
    "no_batch_norm": ["net_no_batch_norm"],
}
"""Overlays of those that are compared."""

BOTH_LISTS = "both_lists"
SECTIONS = ("test", "test_grey", "test_rgb")
METRICS = {
    "pixel_f1": "val_pixel_f1",
    "dice": "val_mean_dice",
    **{f"object_f1_{t}": f"val_object_f1_{t}" for t in (round(100 * t) for t in THRESHOLDS)},
    "object_f1_mean": "val_object_f1_mean",
    "map": "val_object_ap_per_image",
}
TABLES = (
    ("pixel_f1", "dice", "object_f1_50", "object_f1_mean", "map"),
    tuple(name for name in METRICS if name[-2:].isdecimal()),
)
KEY = ("variant", "seed", "epochs", "options", "images")
OWN_OPTIONS = ("dataset_dir", "output_dir", "ckpt_path", "section", "seed", "max_epochs", "val_interval", "resume")
"""Keys of train.json that are set for each run here."""


def with_both_lists(data: Path, folder: Path) -> Path:
    """A folder with a dataset.json whose training list has the images of both lists."""
    dataset = json.loads((data / "dataset.json").read_text())
    for name in ("training", "validation"):
        dataset[name] = [{key: str(data / item[key]) for key in ("image", "label")} for item in dataset[name]]
    lists = {"training": dataset["training"] + dataset["validation"], "validation": dataset["validation"]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(lists))
    return folder


def as_key(options: dict[str, Any]) -> str:
    """Of the scores' record: the same for the same options."""
    return json.dumps(options, sort_keys=True)


def read_options(text: str) -> dict[str, Any]:
    """The keys and values of --options."""
    try:
        options = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is {text!r}; expected JSON ({error})") from None
    if not isinstance(options, dict):
        raise argparse.ArgumentTypeError(f"is {text!r}; expected a JSON object")
    if own := sorted(options.keys() & {*OWN_OPTIONS, "amp"}):
        raise argparse.ArgumentTypeError(f"has {', '.join(own)}, which this program sets; leave it out")
    return options


def claim(output: Path, options: dict[str, Any]) -> None:
    """Reserve the folder for runs with these options, or stop if it has runs with others."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / "options.json"
    if path.exists() and (found := path.read_text(encoding="utf-8")) != as_key(options):
        raise SystemExit(f"{path}: has {found}; expected {as_key(options)}: pass another --output, or the same options")
    write_atomically(path, lambda part: part.write_text(as_key(options), encoding="utf-8"))


def train_and_score(data: Path, run: Path, variant: str, seed: int, args: argparse.Namespace) -> list[Row]:
    """A line of scores for each list of test images."""
    overlays = VARIANTS.get(variant, [])
    settings = {
        "dataset_dir": data,
        **args.options,
        "seed": seed,
        "max_epochs": args.max_epochs,
        "val_interval": args.val_interval,
    }
    if args.num_workers is not None:
        settings["num_workers"] = args.num_workers
    if variant == BOTH_LISTS:
        # the last epoch's weights are kept: a validation on images of the training cannot choose
        settings |= {"dataset_dir": with_both_lists(data, run / "data"), "val_interval": args.max_epochs}
    train(BUNDLE, overlays, run, **settings)
    rows = []
    for section in SECTIONS:
        folder = run / section
        if not (folder / "metrics.json").exists():
            places = {"dataset_dir": data, "output_dir": folder, "ckpt_path": run / "model.pt", "section": section}
            run_bundle(BUNDLE, ["train", "evaluate", *overlays], **{**args.options, **places, "amp": "false"})
        metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
        key = dict(zip(KEY, (variant, str(seed), str(args.max_epochs), as_key(args.options), section), strict=True))
        rows.append({**key, **{name: f"{metrics[source]:.5f}" for name, source in METRICS.items()}})
    return rows


def table_of_seeds(rows: list[Row], columns: Sequence[str]) -> str:
    """Mean and standard deviation (divided by n - 1) over the seeds of each variant and list of images."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["images"], row["variant"]), []).append(row)
    cells = []
    for images, variant in sorted(
        groups, key=lambda key: (SECTIONS.index(key[0]), [*VARIANTS, BOTH_LISTS].index(key[1]))
    ):
        found = groups[images, variant]
        scores = (mean_and_deviation([float(row[name]) for row in found]) for name in columns)
        cells.append([variant, images, len(found), *scores])
    return markdown_table(["variant", "images", "seeds", *columns], cells)


def stitch(labels: list[tuple[int, int, np.ndarray]]) -> np.ndarray:
    """Tiles of a field, by row and column, in order; each tile's objects keep numbers of their own."""
    rows: dict[int, list[np.ndarray]] = {}
    count = 0
    for row, _, tile in sorted(labels, key=lambda item: item[:2]):
        rows.setdefault(row, []).append(np.where(tile > 0, tile.astype(int) + count, 0))
        count += int(tile.max())
    return np.concatenate([np.concatenate(tiles, axis=1) for _, tiles in sorted(rows.items())])


def scores_of_field(prediction: np.ndarray, truth: np.ndarray) -> list[float]:
    """Pixel F1, and F1 of objects above an overlap of 0.5 and 0.75."""
    found, wanted = prediction > 0, truth > 0
    values = [2 * np.count_nonzero(found & wanted) / (np.count_nonzero(found) + np.count_nonzero(wanted))]
    counts = match_counts(prediction.astype(int), truth.astype(int))
    for threshold in (0.5, 0.75):
        tp, fp, fn = counts[THRESHOLDS.index(threshold)]
        values.append(2 * tp / (2 * tp + fp + fn))
    return values


def segment(images: Path, run: Path, output: Path, overlays: list[str]) -> None:
    """Write the instances of a folder's test images, or of one image."""
    networks = [name for name in overlays if name.startswith("net_")]
    places = {"dataset_dir": images, "output_dir": output, "ckpt_path": run / "model.pt"}
    run_bundle(BUNDLE, ["inference", *networks], **places, instances="true", amp="false")


def table_of_fields(source: Path, data: Path, run: Path, overlays: list[str]) -> str:
    """Each field of view, whole and tile by tile; the tiles' own borders cut nuclei in two."""
    with (source / "split.csv").open(newline="") as file:
        tiles = list(csv.DictReader(file))
    rows = []
    for item in json.loads((data / "dataset.json").read_text()).get("mosaics", []):
        name = Path(item["image"]).stem
        own = [row for row in tiles if row["group"] == name.removeprefix("group")]
        paths = [run / f"tiles/{row['id']}_instances.png" for row in own]
        if not all(path.exists() for path in paths):
            segment(data, run, run / "tiles", overlays)
        if not (run / f"whole/{name}_instances.png").exists():
            segment(data / item["image"], run, run / "whole", overlays)
        whole, *parts = (np.asarray(Image.open(path)) for path in (run / f"whole/{name}_instances.png", *paths))
        numbers = [(int(row["tile_row"]), int(row["tile_col"])) for row in own]
        stitched = stitch([(*place, part) for place, part in zip(numbers, parts, strict=True)])
        truth = np.asarray(Image.open(data / item["label"]))
        for how, labels in (("whole", whole), ("tile by tile", stitched)):
            values = (f"{value:.3f}" for value in scores_of_field(labels, truth))
            rows.append([name, how, *values, f"{len(np.unique(labels)) - 1} of {len(np.unique(truth)) - 1}"])
    columns = ("field", "how", "pixel F1", "object F1 at 0.5", "object F1 at 0.75", "objects")
    return markdown_table(columns, rows)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="what the bundle's prepare_data.py reads")
    parser.add_argument("--output", type=Path, required=True, help="folder of data and runs")
    parser.add_argument("--scores", type=Path, help="CSV of the runs")
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS, BOTH_LISTS], default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max_epochs", type=int, default=40)
    parser.add_argument("--val_interval", type=int, default=10)
    parser.add_argument(
        "--amp", choices=("true", "false"), default="false", help="train in mixed precision; scores are float32's"
    )
    parser.add_argument("--num_workers", type=int, help="processes that load images; default: the bundle's")
    parser.add_argument("--options", type=read_options, default={}, help='keys of each run, {"crop_size": [128, 128]}')
    parser.add_argument("--mosaics", nargs=2, metavar=("VARIANT", "SEED"), help="compare whole fields with their tiles")
    return parser


def main() -> None:
    args = make_parser().parse_args()
    output, source = args.output.resolve(), args.source.resolve()
    args.options = {**args.options, "amp": args.amp}
    claim(output, args.options)
    path = args.scores or output / "scores.csv"
    columns, data = [*KEY, *METRICS], output / "data"
    rows = read_scores(path, columns)
    if not (data / "dataset.json").exists():
        call(BUNDLE, "scripts/prepare_data.py", "--source", source, "--output", data)
    done = {tuple(row[name] for name in KEY[:4]) for row in rows}
    for seed in args.seeds:
        for variant in args.variants:
            key = (variant, str(seed), str(args.max_epochs), as_key(args.options))
            if key not in done:
                new = train_and_score(data, output / "_".join(key[:3]), variant, seed, args)
                rows = [*read_scores(path, columns), *new]  # another process may have added to it
                write_scores(path, rows)
    print(path)
    wanted = {"epochs": str(args.max_epochs), "options": as_key(args.options)}
    for names in TABLES:
        print(f"\n{table_of_seeds([row for row in rows if row | wanted == row], names)}")
    if args.mosaics:
        variant, seed = args.mosaics
        run = output / f"{variant}_{seed}_{args.max_epochs}"
        print(f"\n{table_of_fields(source, data, run, VARIANTS.get(variant, []))}")


if __name__ == "__main__":
    main()
