"""Dice with and without the pre-trained encoder, compared image by image, and the figure of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ttest_rel

from bundlekit.files import write_atomically
from studies.experiments import Row

__all__ = ["ARMS", "Comparison", "compare", "draw", "values_of"]

ARMS = {"pretrained": [], "random": ["net_random_init"]}
"""Overlays of the networks that are compared."""


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
