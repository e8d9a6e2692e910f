"""The pictures of README.md: panels of real outputs, each in its place, and a plain word where an image is missing."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from bundlekit.phantoms import make_dataset
from bundlekit.prepare.folds import split_fold

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("picture_row", ROOT / "tools/picture_row.py")
picture_row = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = picture_row  # dataclasses look their module up
SPEC.loader.exec_module(picture_row)
REAL = {name: panel.real for name, panel in picture_row.PANELS.items() if panel.real}


def panel(page: Image.Image, i: int) -> np.ndarray:
    """The i-th picture of a row of one line."""
    left = picture_row.GAP_PX + i * (picture_row.PANEL_PX + picture_row.GAP_PX)
    top = picture_row.GAP_PX
    return np.asarray(page.convert("RGB").crop((left, top, left + picture_row.PANEL_PX, top + picture_row.PANEL_PX)))


def test_every_bundle_has_a_panel():
    bundles = {path.parent.parent.name for path in ROOT.glob("bundles/*/configs/inference.json")}
    assert bundles and set(picture_row.PANELS) == bundles


def test_panel_is_the_labelled_part_and_nothing_of_the_page_around_it():
    image = np.full((64, 96, 1), 100, np.uint8)
    labels = np.zeros((64, 96))
    labels[20:44, 60:84] = 1  # centre at (32, 72): a square about it reaches the right edge
    page = np.asarray(picture_row.draw_square(image, labels)).astype(int)
    assert page.shape == (300, 300, 3)
    scale = 300 / 64  # of the 96 columns the square shows 64, of which 72 / 96 of the other 32 are cut off on the left
    left, top = (60 - 24) * scale, 20 * scale
    inside = page[int(top) + 9 : int(top + 24 * scale) - 9, int(left) + 9 : int(left + 24 * scale) - 9]
    fill = [100 + 0.35 * (colour - 100) for colour in (230, 159, 0)]  # a third of the colour of label 1
    assert np.abs(inside - fill).max() <= 1
    assert np.abs(page[: int(top) - 9] - 100).max() <= 1 and np.abs(page[:, : int(left) - 9] - 100).max() <= 1


def test_small_inputs_give_a_row_of_what_the_weights_make_of_them(tmp_path):
    make_dataset("nuclei_microscopy_segmentation", tmp_path / "made", 0, 0, 1, size=96)
    image = tmp_path / REAL["nuclei_microscopy_segmentation"]
    image.parent.mkdir(parents=True)
    (tmp_path / "made/images/000.png").rename(image)
    bundles = ["nuclei_microscopy_segmentation", "membrane_em_segmentation"]
    options = ["--data_root", tmp_path, "--output", tmp_path / "row.png", "--size", "64", "--bundles", *bundles]
    picture_row.main(list(map(str, options)))
    with Image.open(tmp_path / "row.png") as page:
        assert page.size == (2 * 310 + 10, 300 + 2 * 20 + 10 + 10)
        nuclei, membranes = panel(page, 0), panel(page, 1)
    assert (nuclei != membranes).any(-1).mean() > 0.5
    for found in (nuclei, membranes):  # both images are grey, what is painted on them is not
        painted = np.ptp(found.astype(int), axis=-1) > 20
        assert 0.02 < painted.mean() < 0.9


@pytest.mark.slow
def test_same_command_gives_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        options = ["--output", str(tmp_path / name), "--size", "64", "--bundles", "membrane_em_segmentation"]
        picture_row.main(options)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_page_has_rows_of_four_and_their_names():
    panels = {name: Image.new("RGB", (300, 300), "red") for name in list(picture_row.PANELS)[:5]}
    page = picture_row.compose(panels).convert("RGB")
    assert page.size == (4 * 310 + 10, 2 * 350 + 10)
    name, what = list(panels)[4], picture_row.PANELS[list(panels)[4]].what
    line = Image.new("RGB", (300, 20), "white")
    ImageDraw.Draw(line).text((0, 2), name, "black", picture_row.ImageFont.load_default(16))
    assert np.abs(np.asarray(page.crop((10, 660, 310, 680))).astype(int) - np.asarray(line)).max() < 40
    assert "phantom" in what and page.getpixel((320 + 150, 360 + 150)) == (255, 255, 255)


@pytest.mark.parametrize("name", sorted(REAL))
def test_missing_image_is_named_before_anything_runs(name, tmp_path, capfd):
    path = tmp_path / REAL[name]
    found = f"error: {path}: cannot be opened (No such file or directory)"
    wanted = re.escape(f"{found}; expected a file; pass --data_root")
    bundles = ["membrane_em_segmentation", name]
    with pytest.raises(SystemExit, match=wanted):
        picture_row.main(["--data_root", str(tmp_path), "--output", str(tmp_path / "row.png"), "--bundles", *bundles])
    assert not (tmp_path / "row.png").exists() and "monai.bundle" not in capfd.readouterr().out


@pytest.mark.data
@pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of real images")
def test_images_of_data_sets_are_of_the_test_lists():
    root = Path(os.environ["DATA_ROOT"])
    with (root / "dsb2018_nuclei/split.csv").open(newline="") as file:
        splits = {row["id"]: row["split"] for row in csv.DictReader(file)}
    assert splits[Path(REAL["nuclei_microscopy_segmentation"]).stem] == "test"
    cases = [path.name.removesuffix(".nii.gz") for path in (root / "msd_hippocampus/images").glob("*.nii.gz")]
    case = Path(REAL["hippocampus_mri_segmentation"]).name.removesuffix(".nii.gz")
    assert case in split_fold(cases, fold=0, num_folds=5)["test"]
