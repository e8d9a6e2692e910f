"""Compare U-Nets with and without the pre-trained encoder, trained on growing shares of the masks of the optic disc.

    python -m studies.optic_disc --drions fundus_drions --drishti fundus_drishti --output runs/optic [--folds 0 1]

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
from matplotlib.figure import Figure
from scipy.stats import ttest_rel

from bundlekit.files import write_atomically
from studies.experiments import Row, mean_and_deviation, read_scores, train, write_scores
from tools.commands import call, run_bundle

BUNDLE = Path(__file__).resolve().parent.parent / "bundles/optic_disc_fundus_segmentation"
NUM_FOLDS = 5
"""Of the bundle's prepare_data.py."""
SHARES = (5, 10, 20, 40, 100)
ARMS = {"pretrained": [], "random": ["net_random_init"]}
LOCALIZER = "localizer"
KEY = ("experiment", "arm", "share", "epochs", "side_px")
METRICS = {
    "dice": "val_mean_dice",
    "distance_px": "val_distance_px",
    "distance_diameters": "val_distance_diameters",
}
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


def values_of(rows: Sequence[Row], metric: str, **wanted: str) -> dict[tuple[str, str], float]:
    """A measure by experiment and image, of the rows that have it."""
    chosen = [row for row in rows if row[metric] and all(row[name] == value for name, value in wanted.items())]
    return {(row["experiment"], row["image"]): float(row[metric]) for row in chosen}


class Comparison(NamedTuple):
    """Dice of both arms on the same images, and what a paired t-test says of the difference."""

    share: int
    masks: str
    steps: str
    dice: dict[str, np.ndarray]
    p_images: float
    effect: float
    p_folds: float


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """One comparison for each share, over the images that both arms have."""
    rows = [row for row in rows if row["experiment"].startswith("fold")]
    found = []
    for share in sorted({int(row["share"]) for row in rows if row["arm"] in ARMS}):
        arms = [values_of(rows, "dice", arm=arm, share=str(share)) for arm in ARMS]
        images = sorted(set.intersection(*map(set, arms)))
        if len(images) < 2:
            continue
        dice = {arm: np.array([values[image] for image in images]) for arm, values in zip(ARMS, arms, strict=True)}
        difference = dice["pretrained"] - dice["random"]
        folds = [experiment for experiment, _ in images]
        means = [[values[np.array(folds) == fold].mean() for fold in sorted(set(folds))] for values in dice.values()]
        own = [row for row in rows if row["arm"] in ARMS and row["share"] == str(share)]
        masks, steps = (" to ".join(sorted({row[name] for row in own}, key=int)) for name in ("masks", "steps"))
        pairs = (list(dice.values()), means)
        p_images, p_folds = (float(ttest_rel(*p).pvalue) if len(p[0]) > 1 else float("nan") for p in pairs)
        effect = float(difference.mean() / difference.std(ddof=1))
        found.append(Comparison(share, masks, steps, dice, p_images, effect, p_folds))
    return found


def table(rows: Sequence[Row]) -> str:
    """The arms at each share; the localiser; across data sets."""
    lines = ["| share of masks | masks | steps | images | pre-trained | random | lowest | p (images) | d | p (folds) |"]
    lines.append("|---" * 10 + "|")
    for c in compare(rows):
        dice = [mean_and_deviation(list(values)) for values in c.dice.values()]
        lowest = " / ".join(f"{values.min():.3f}" for values in c.dice.values())
        cells = [f"{c.share} %", c.masks, c.steps, len(c.dice["random"]), *dice, lowest]
        lines.append(f"| {' | '.join(map(str, cells))} | {c.p_images:.2g} | {c.effect:.2f} | {c.p_folds:.2g} |")
    heads = ("experiment", "images", "Dice pre-trained", "Dice random", "median px", "median diameters", "MSE, px^2")
    lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in dict.fromkeys(row["experiment"] for row in rows):
        dice = [list(values_of(rows, "dice", experiment=name, arm=arm, share="100").values()) for arm in ARMS]
        px, diameters = (
            list(values_of(rows, metric, experiment=name, arm=LOCALIZER).values())
            for metric in ("distance_px", "distance_diameters")
        )
        distances = [f"{statistics.median(values):.3g}" if values else "-" for values in (px, diameters)]
        squared = f"{statistics.mean(value**2 / 2 for value in px):.0f}" if px else "-"  # of one coordinate
        cells = [name, str(max(map(len, [*dice, px]))), *map(mean_and_deviation, dice), *distances, squared]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(comparisons: Sequence[Comparison], path: Path) -> None:
    """Mean and standard deviation of Dice by the share of masks, each image as a point, and the p-values."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    places = np.arange(len(comparisons))
    for i, (arm, colour) in enumerate({"random": "tab:blue", "pretrained": "tab:orange"}.items()):
        at, values = places + 0.2 * i - 0.1, [c.dice[arm] for c in comparisons]
        for x, points in zip(at, values, strict=True):
            left.plot(np.full(len(points), x), points, ".", color=colour, alpha=0.2, markersize=4)
        label = {"random": "random weights", "pretrained": "pre-trained to localise"}[arm]
        means, spreads = [v.mean() for v in values], [v.std(ddof=1) for v in values]
        left.errorbar(at, means, spreads, color=colour, capsize=4, label=label)
    labels = [f"{c.share} %\n({c.masks})" for c in comparisons]
    left.set(xlabel="share of the masks (number)", ylabel="Dice on held-back images", xticks=places, xticklabels=labels)
    left.legend(loc="lower right")
    right.semilogy(places, [c.p_images for c in comparisons], "o-", label="over images")
    right.semilogy(places, [c.p_folds for c in comparisons], "s--", label="over folds")
    right.axhline(0.05, color="grey", linewidth=0.8)
    right.set(xlabel="share of the masks", ylabel="p of the paired t-test", xticks=places)
    right.set_xticklabels([f"{c.share} %" for c in comparisons])
    right.legend()
    write_atomically(path, lambda part: figure.savefig(part, format="png", dpi=120))


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
    print(f"{scores}\n\n{table(rows)}")
    if comparisons := compare(rows):
        draw(comparisons, args.figure or output / "dice_by_masks.png")


if __name__ == "__main__":
    main()
