"""The comparison of two arms against values worked out by hand, and lists of few masks that are as long as many."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
from PIL import Image
from scipy.special import stdtr

PATH = Path(__file__).resolve().parents[2] / "studies/optic_disc_masks.py"
SPEC = importlib.util.spec_from_file_location("optic_evidence", PATH)
evidence = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(evidence)


def row(experiment: str, arm: str, share: int, image: str, **values: float) -> dict[str, str]:
    numbers = {name: f"{values[name]:.5f}" if name in values else "" for name in evidence.METRICS}
    key = dict(zip(evidence.KEY, (experiment, arm, str(share), "25", "256"), strict=True))
    return {**key, "masks": str(share), "steps": "325", "image": image, **numbers}


def rows_of_two_folds() -> list[dict[str, str]]:
    rows = []
    differences = {"fold0": (0.1, 0.2), "fold1": (0.3, 0.4)}
    for fold, values in differences.items():
        for image, difference in zip("ab", values, strict=True):
            rows.append(row(fold, "random", 5, image, dice=0.5))
            rows.append(row(fold, "pretrained", 5, image, dice=0.5 + difference))
            rows.append(row(fold, "localizer", 100, image, distance_px=10 * difference, distance_diameters=difference))
    rows.append(row("fold0", "random", 5, "only here", dice=0.0))
    rows.append(row("drions_to_drishti", "random", 100, "a", dice=0.9))
    return rows


def test_paired_t_test_and_effect_size():
    (found,) = evidence.compare(rows_of_two_folds())
    assert (found.share, found.masks, found.steps, len(found.dice["random"])) == (5, "5", "325", 4)
    # differences 0.1 to 0.4: mean 0.25, variance (0.0225 + 0.0025 + 0.0025 + 0.0225) / 3 = 0.05 / 3
    deviation = math.sqrt(0.05 / 3)
    assert found.effect == pytest.approx(0.25 / deviation, rel=1e-4)
    t = 0.25 / (deviation / 2)  # root of 4 images
    assert found.p_images == pytest.approx(2 * stdtr(3, -t), rel=1e-3)
    # means of the folds 0.15 and 0.35: mean 0.25, deviation sqrt(0.02), root of 2 folds
    assert found.p_folds == pytest.approx(2 * stdtr(1, -0.25 / 0.1), rel=1e-3)


def test_table_and_figure(tmp_path):
    rows = rows_of_two_folds()
    text = evidence.table_of_arms(rows).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text]
    assert cells[2][:7] == ["5 %", "5", "325", "4", "0.750 ± 0.129", "0.500 ± 0.000", "0.600 / 0.500"]
    # distances of fold0: 1 and 2 px; the mean of half their squares is (0.5 + 2) / 2
    assert ["fold0", "2", "-", "-", "1.5", "0.15", "1"] in cells
    assert ["drions_to_drishti", "1", "-", "0.900", "-", "-", "-"] in cells
    evidence.draw(evidence.compare(rows), tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").size[0] > 500


def test_few_masks_are_repeated_to_as_many_steps_and_belong_to_more(tmp_path):
    items = [{"image": f"images/{i}.png", "label": f"labels/{i}.png", "centre": [i, i]} for i in range(20)]
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "x", "training": items, "test": items[:1]}))
    chosen: set[str] = set()
    for share, count in ((5, 1), (10, 2), (40, 8), (100, 20)):
        dataset, masks = evidence.share_of(tmp_path, share)
        images = [item["image"] for item in dataset["training"]]
        assert masks == count == len(set(images)) and len(images) == 20
        assert max(map(images.count, images)) - min(map(images.count, images)) <= 1
        assert chosen <= set(images) and all(Path(name).is_relative_to(tmp_path) for name in images)
        chosen = set(images)
    assert dataset["test"][0]["label"] == str(tmp_path / "labels/0.png")
