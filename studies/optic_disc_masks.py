"""Compare U-Nets with and without the pre-trained encoder, trained on growing shares of the masks of the optic disc.

    python -m studies.optic_disc_masks --drions fundus_drions --drishti fundus_drishti --output runs/optic [--folds 0 1]

For each fold of both sets together, phase 1 trains on the centres of all training images. Then, for each share of the
masks, two U-Nets are trained: one from that encoder, frozen, and one from random weights. Lists with fewer images are
filled up by repetition, so all runs take the same number of steps. --across also trains on all images of one set and
tests on the other.

Each run writes a line per test image to SCORES (default: OUTPUT/scores.csv). The command can be stopped and started
again: finished runs are skipped, and an interrupted run is continued. --folds and --shares select runs. At the end it
prints tables of all scores and draws FIGURE (default: OUTPUT/dice_by_masks.png). The paired t-test is over the test
images, although the images of one fold share their networks, and over the means of the folds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from studies.experiments import Row, mean_and_deviation, read_scores, train, write_scores
from studies.markdown import markdown_table
from studies.optic_disc_comparison import ARMS, compare, draw, values_of
from tools.commands import call, run_bundle

BUNDLE = Path(__file__).resolve().parent.parent / "bundles/optic_disc_fundus_segmentation"
NUM_FOLDS = 5
"""Of the bundle's prepare_data.py."""
SHARES = (5, 10, 20, 40, 100)
LOCALIZER = "localizer"
KEY = ("experiment", "arm", "share", "epochs", "side_px")
METRICS = {
    "dice": "val_mean_dice",
    "distance_px": "val_distance_px",
    "distance_diameters": "val_distance_diameters",
}
ARM_COLUMNS = [
    "share of masks",
    "masks",
    "steps",
    "images",
    "pre-trained",
    "random",
    "lowest",
    "p (images)",
    "d",
    "p (folds)",
]
EXPERIMENT_COLUMNS = [
    "experiment",
    "images",
    "Dice pre-trained",
    "Dice random",
    "median px",
    "median diameters",
    "MSE, px^2",
]
COLUMNS = (*KEY, "masks", "steps", "image", *METRICS)


class Experiment(NamedTuple):
    """What is trained and tested on, as options of prepare_data.py, and at which shares of the masks."""

    name: str
    options: tuple[object, ...]
    shares: Sequence[int]


def experiments(args: argparse.Namespace) -> list[Experiment]:
    both = ("--source", args.drions.resolve(), args.drishti.resolve())
    planned = [Experiment(f"fold{fold}", (*both, "--fold", fold), args.shares) for fold in args.folds]
    if args.across:
        for name, first, second in (
            ("drions_to_drishti", args.drions, args.drishti),
            ("drishti_to_drions", args.drishti, args.drions),
        ):
            planned.append(Experiment(name, ("--source", first.resolve(), "--test_source", second.resolve()), (100,)))
    return planned


def share_of(data: Path, share: int) -> tuple[dict, int]:
    """A dataset.json with some of the masks, repeated to the length of the whole list, and how many they are.

    A larger share holds the images of a smaller one.
    """
    dataset = json.loads((data / "dataset.json").read_text())
    for items in (value for value in dataset.values() if isinstance(value, list)):
        for item in items:
            item |= {key: str(data / item[key]) for key in ("image", "label")}
    items = dataset["training"]
    num_masks = max(round(share / 100 * len(items)), 1)
    chosen = [items[i] for i in np.random.default_rng(0).permutation(len(items))[:num_masks]]
    dataset["training"] = [chosen[i % num_masks] for i in range(len(items))]
    return dataset, num_masks


def run_one(
    run: Path,
    data: Path,
    key: tuple[object, ...],
    masks: int,
    overlays: Sequence[str],
    pretrained: Path | None,
    amp: str | None = None,
) -> list[Row]:
    """Train, score on the test images, and give a line for each; the last epoch counts, as no validation may choose."""
    base, evaluate = ("pretrain", "evaluate_pretrain") if key[1] == LOCALIZER else ("train", "evaluate")
    inputs = {"dataset_dir": data, "longest_side_px": key[4]}
    settings: dict[str, object] = {**inputs, "max_epochs": key[3], "val_interval": key[3]}
    if pretrained is not None:
        settings["pretrained_path"] = pretrained
    if amp is not None:
        settings["amp"] = amp
    train(BUNDLE, overlays, run, base=base, **settings)
    places = {"output_dir": run, "ckpt_path": run / "model.pt"}
    run_bundle(BUNDLE, [base, *overlays, evaluate], **places, **inputs)
    steps = torch.load(run / "state.pt", map_location="cpu", weights_only=True)["iteration"]
    common = dict(zip(KEY, map(str, key), strict=True)) | {"masks": str(masks), "steps": str(steps)}
    rows = []
    for image in json.loads((run / "metrics.json").read_text())["images"]:
        values = {name: image.get(source) for name, source in METRICS.items()}
        numbers = {name: "" if value is None else f"{value:.5f}" for name, value in values.items()}
        rows.append({**common, "image": image["image"], **numbers})
    return rows


def run_all(args: argparse.Namespace, rows: list[Row], scores: Path) -> None:
    """Every run that has no line yet; the record is replaced after each."""
    output = args.output.resolve()
    for name, options, shares in experiments(args):
        data, pretrained = output / name / "data", output / name / LOCALIZER / "model.pt"
        if not (data / "dataset.json").exists():
            call(BUNDLE, "scripts/prepare_data.py", *options, "--output", data)
        planned = [(LOCALIZER, 100, args.pretrain_epochs)]
        planned += [(arm, share, args.max_epochs) for share in shares for arm in ARMS]
        for arm, share, epochs in planned:
            key = (name, arm, share, epochs, args.longest_side_px)
            if tuple(map(str, key)) in {tuple(row[column] for column in KEY) for row in rows}:
                continue
            folder = data
            dataset, masks = share_of(data, share)
            if arm != LOCALIZER:
                folder = output / name / f"share{share}"
                folder.mkdir(exist_ok=True)
                (folder / "dataset.json").write_text(json.dumps(dataset))
            run = output / name / (LOCALIZER if arm == LOCALIZER else f"{arm}_{share}")
            source = pretrained if arm == "pretrained" else None
            rows += run_one(run, folder, key, masks, ARMS.get(arm, []), source, args.amp)
            write_scores(scores, rows)


def table_of_arms(rows: Sequence[Row]) -> str:
    """The arms at each share; the localiser; across data sets."""
    arms = []
    for c in compare(rows):
        dice = [mean_and_deviation(list(values)) for values in c.dice.values()]
        lowest = " / ".join(f"{values.min():.3f}" for values in c.dice.values())
        tests = (f"{c.p_images:.2g}", f"{c.effect:.2f}", f"{c.p_folds:.2g}")
        arms.append([f"{c.share} %", c.masks, c.steps, len(c.dice["random"]), *dice, lowest, *tests])
    experiments = []
    for name in dict.fromkeys(row["experiment"] for row in rows):
        dices = [list(values_of(rows, "dice", experiment=name, arm=arm, share="100").values()) for arm in ARMS]
        px, diameters = (
            list(values_of(rows, metric, experiment=name, arm=LOCALIZER).values())
            for metric in ("distance_px", "distance_diameters")
        )
        distances = [f"{statistics.median(values):.3g}" if values else "-" for values in (px, diameters)]
        squared = f"{statistics.mean(value**2 / 2 for value in px):.0f}" if px else "-"  # of one coordinate
        num_images = max(map(len, [*dices, px]))
        experiments.append([name, num_images, *map(mean_and_deviation, dices), *distances, squared])
    return f"{markdown_table(ARM_COLUMNS, arms)}\n\n{markdown_table(EXPERIMENT_COLUMNS, experiments)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drions", type=Path, required=True, help="source folder for prepare_data.py")
    parser.add_argument("--drishti", type=Path, required=True, help="another source folder")
    parser.add_argument("--output", type=Path, required=True, help="folder of data and runs")
    parser.add_argument("--scores", type=Path, help="CSV of the runs")
    parser.add_argument("--figure", type=Path, help="PNG to draw")
    parser.add_argument("--folds", type=int, nargs="*", choices=range(NUM_FOLDS), default=list(range(NUM_FOLDS)))
    parser.add_argument("--shares", type=int, nargs="+", default=list(SHARES), help="percentages of the masks")
    parser.add_argument("--across", action="store_true", help="train on one set and test on the other, both ways")
    parser.add_argument("--max_epochs", type=int, default=25, help="epochs of phase 2")
    parser.add_argument("--pretrain_epochs", type=int, default=60, help="epochs of phase 1")
    parser.add_argument(
        "--longest_side_px", type=int, default=256, help="longest side of the images given to the networks"
    )
    parser.add_argument("--amp", choices=("true", "false"), help="bfloat16, on processors that have it")
    args = parser.parse_args()
    output = args.output.resolve()
    scores = args.scores or output / "scores.csv"
    rows = read_scores(scores, COLUMNS)
    run_all(args, rows, scores)
    epochs = {LOCALIZER: str(args.pretrain_epochs)}
    rows = [row for row in rows if row["side_px"] == str(args.longest_side_px)]
    rows = [row for row in rows if row["epochs"] == epochs.get(row["arm"], str(args.max_epochs))]
    print(f"{scores}\n\n{table_of_arms(rows)}")
    if comparisons := compare(rows):
        draw(comparisons, args.figure or output / "dice_by_masks.png")


if __name__ == "__main__":
    main()
