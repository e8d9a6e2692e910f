"""Photographs turned and cropped together with their discs, and the table of what is found in them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundlekit.phantoms import make_dataset

PATH = Path(__file__).resolve().parents[2] / "studies/optic_disc_limits.py"
SPEC = importlib.util.spec_from_file_location("optic_limits", PATH)
limits = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(limits)
LEFT, RIGHT = (slice(30, 50), slice(20, 40)), (slice(60, 80), slice(120, 140))


def photograph(place: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    disc = np.zeros((100, 160), bool)
    disc[place] = True
    return np.repeat(np.where(disc, 200, 50)[..., None], 3, axis=2).astype(np.uint8), disc


@pytest.mark.parametrize("place", [LEFT, RIGHT])
@pytest.mark.parametrize("case", limits.CASES)
def test_image_and_disc_change_together(case, place):
    image, disc = limits.CASES[case](*photograph(place))
    assert np.array_equal(image[..., 0] == 200, disc)
    assert disc.sum() == (0 if case == "no_disc" else 400)


@pytest.mark.parametrize("place", [LEFT, RIGHT])
def test_sizes_of_what_is_left(place):
    shapes = {case: limits.CASES[case](*photograph(place))[1].shape for case in limits.CASES}
    assert shapes["upright"] == (100, 160) and shapes["turned_90"] == shapes["turned_270"] == (160, 100)
    assert shapes["portrait"] == (100, 70) and shapes["half"] == (50, 50) and shapes["no_disc"] == (100, 110)


def test_turns_are_opposite():
    _, disc = photograph(LEFT)
    once, thrice = (limits.CASES[case](*photograph(LEFT))[1] for case in ("turned_90", "turned_270"))
    assert np.array_equal(np.rot90(once, 2), thrice) and not np.array_equal(once, np.rot90(disc, 3))


def test_scores_of_the_table(tmp_path):
    _, disc = photograph(LEFT)
    half = disc.copy()
    half[:40] = False
    for name, mask in {"upright-a": disc, "upright-b": half, "no_disc-a": disc}.items():
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path / f"{name}_seg.png")
    discs = {"upright-a": disc, "upright-b": disc, "no_disc-a": np.zeros_like(disc)}
    assert limits.table_of_cases(discs, tmp_path).splitlines()[2:] == [
        "| upright | 2 | 2 | 0.833 | 0.667 | 0 |",
        "| no_disc | 1 | 1 | - | - | - |",
    ]


def test_on_phantoms_with_the_shipped_weights(tmp_path, monkeypatch, capsys):
    make_dataset("optic_disc_fundus_segmentation", tmp_path / "data", training=1, validation=1, test=2)
    words = ["--data", tmp_path / "data", "--output", tmp_path / "out", "--cases", "upright", "no_disc"]
    monkeypatch.setattr(sys, "argv", ["optic_limits.py", *map(str, words)])
    limits.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row[:2] for row in rows] == [["| upright", "2"], ["| no_disc", "2"]]
    assert float(rows[0][3]) > 0.8
