"""Positions in and outside of their images, in planes and volumes, directly and through a run's checks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from bundlekit.inputs.centres import check_centre
from bundlekit.inputs.checks import RunChecks
from bundlekit.inputs.grids import Grid

ITEM = {"image": "a.png"}


@pytest.mark.parametrize("centre", [(0, 0), (-0.5, 7.5), (9.4, 3)])
def test_inside(centre):
    assert check_centre(ITEM, centre, Grid((10, 8))) == []


@pytest.mark.parametrize(
    "centre, words",
    [
        ((10, 3), r"its centre \(10, 3\) lies outside the image of 10 x 8; expected \(0, 0\) to \(9, 7\)"),
        ((-1, 3), r"its centre \(-1, 3\) lies outside"),
        ((3,), "has the centre"),
        ((1, 2, 3), "has the centre"),
        ("here", "has the centre 'here'; expected \"centre\": a number for each axis"),
        (None, "has the centre None"),
        ([float("nan"), 1], "has the centre"),
    ],
)
def test_outside_or_no_position(centre, words):
    (error,) = check_centre(ITEM, centre, Grid((10, 8)))
    assert str(error).startswith("a.png: ")
    with pytest.raises(ValueError, match=words):
        raise error


def test_millimetres_of_a_volume():
    grid = Grid((10, 10, 10), np.array([[-2.0, 0, 0, 9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    assert check_centre(ITEM, (-9, 5, 5), grid) == []  # voxel 9
    (error,) = check_centre(ITEM, (12, 5, 5), grid)
    assert "voxel (-1.5, 5, 5), lies outside the image of 10 x 10 x 10" in str(error)


def test_a_run_names_all_bad_centres_and_needs_no_label(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for name in "abcd":
        Image.new("L", (20, 10)).save(tmp_path / f"images/{name}.png")
    Image.new("L", (20, 10), 7).save(tmp_path / "wrong.png")
    items = [
        {"image": "images/a.png", "centre": [3, 4]},
        {"image": "images/b.png", "centre": [3, 10]},
        {"image": "images/c.png"},
        {"image": "images/d.png", "centre": [3, 4], "label": "wrong.png"},
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": items}))
    checks = RunChecks(spatial_dims=2, channels=1, label_values=[0, 1])
    (usable,) = checks.section(tmp_path, "training", ("image", "centre"), optional=("label",))
    assert usable == {"image": str(tmp_path / "images/a.png"), "centre": [3, 4]}
    checks.start([usable])
    left_out = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert len(left_out) == 3
    wanted = ("b.png: its centre", "c.png: has the centre None", "wrong.png: holds other labels: 7")
    assert all(words in line for line, words in zip(left_out, wanted, strict=True))
