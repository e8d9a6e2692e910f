"""The table over the folds and the scores of a run, against means and deviations worked out by hand."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

PATH = Path(__file__).resolve().parents[2] / "studies/hippocampus.py"
SPEC = importlib.util.spec_from_file_location("cross_validation", PATH)
folds = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(folds)


def row(network: str, fold: int, dice: float) -> dict[str, str]:
    others = {name: "1.0" for name in folds.METRICS if name != "dice"}
    return {"network": network, "vae": "no", "fold": str(fold), "epochs": "5", "dice": str(dice), **others}


def test_mean_and_deviation_over_the_folds_that_all_have():
    rows = [row("fully", fold, dice) for fold, dice in ((0, 0.5), (1, 0.7), (2, 0.9), (3, 0.1))]
    rows += [row("baseline", fold, dice) for fold, dice in ((2, 0.8), (0, 0.8), (1, 0.8))]
    lines = folds.table_of_folds(rows).split("\n")
    assert lines[0] == "folds 0, 1, 2"
    # mean 2.1 / 3 = 0.7; squares 0.04 + 0 + 0.04 = 0.08, over n - 1 = 2 the root of 0.04
    assert lines[4].startswith("| fully | no | 0.700 ± 0.200 | 1.000 ± 0.000 |")
    assert lines[5].startswith("| baseline | no | 0.800 ± 0.000 |")


def test_scores_are_the_means_over_the_volumes(tmp_path):
    images = [dict.fromkeys(folds.METRICS.values(), value) for value in (0.25, 0.5)]
    (tmp_path / "metrics.json").write_text(json.dumps({"images": images}))
    assert folds.scores(tmp_path / "metrics.json") == dict.fromkeys(folds.METRICS, "0.37500")
