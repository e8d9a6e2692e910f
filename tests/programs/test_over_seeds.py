"""The table over several runs, against means and deviations worked out by hand."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "studies/over_seeds.py"
SPEC = importlib.util.spec_from_file_location("report", PATH)
report = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(report)


def write(folder: Path, metrics: dict[str, float]) -> Path:
    folder.mkdir()
    path = folder / "metrics.json"
    path.write_text(json.dumps({"metrics": metrics, "number of images": 6}))
    return path


def test_mean_and_sample_standard_deviation(tmp_path):
    dice, distance_px = (0.5, 0.7, 0.9), (1.0, 2.0, 6.0)
    paths = [
        write(tmp_path / f"seed{i}", {"dice": a, "distance_px": b})
        for i, (a, b) in enumerate(zip(dice, distance_px, strict=True))
    ]
    # dice: mean 2.1 / 3 = 0.7, squares 0.04 + 0 + 0.04 = 0.08, over n - 1 = 2 the root of 0.04
    # distance: mean 9 / 3 = 3, squares 4 + 1 + 9 = 14, over 2 the root of 7 = 2.64575
    assert report.table_of_metrics(paths).split("\n") == [
        "| metric | seed0 | seed1 | seed2 | mean | std |",
        "|---|---|---|---|---|---|",
        "| dice | 0.5000 | 0.7000 | 0.9000 | 0.7000 | 0.2000 |",
        "| distance_px | 1.0000 | 2.0000 | 6.0000 | 3.0000 | 2.6458 |",
    ]


def test_one_run_has_no_deviation(tmp_path):
    path = write(tmp_path / "seed0", {"dice": 0.25})
    assert report.table_of_metrics([path]).split("\n")[-1] == "| dice | 0.2500 | 0.2500 | - |"


def test_the_file_with_other_metrics_is_named(tmp_path):
    paths = [
        write(tmp_path / "a", {"dice": 0.5}),
        write(tmp_path / "b", {"dice": 0.5}),
        write(tmp_path / "c", {"dice": 0.5, "rand": 0.1}),
    ]
    with pytest.raises(SystemExit) as caught:
        report.table_of_metrics(paths)
    assert str(caught.value).startswith(f"{paths[2]}: has metrics ['dice', 'rand']")
