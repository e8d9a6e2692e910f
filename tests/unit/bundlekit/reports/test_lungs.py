"""Boxes and phantoms, whose volumes, areas and densities follow from how they were made."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from bundlekit.inference.record import RunRecord
from bundlekit.reports.lungs import LungReport, measure_lungs, save_lung_picture

SHEAR = np.array([[0.8, 0, 0.5, 1], [0, -0.7, 0, 2], [0.1, 0, 2, 3], [0, 0, 0, 1]])


def boxes() -> tuple[np.ndarray, np.ndarray]:
    """A right lung of 4 x 5 x 2 voxels of -800 HU, a left one of 2 x 5 x 3 of -700, in tissue."""
    labels = np.zeros((10, 8, 6), np.uint8)
    labels[5:9, 1:6, 2:4], labels[1:3, 1:6, 1:4] = 1, 2
    return labels, np.array([40, -800, -700])[labels]


def test_boxes_on_a_sheared_grid():
    measured = measure_lungs(*boxes(), SHEAR)
    voxel_ml = 0.7 * (0.8 * 2 - 0.5 * 0.1) / 1000  # the determinant
    pixel_cm2 = 0.7 * np.hypot(0.8, 0.1) / 100  # y is at right angles to x and z
    for name, voxels, pixels, mean_hu in (("right", 40, 20, -800), ("left", 30, 10, -700), ("both", 70, 30, -757.1)):
        lung = measured[name]
        assert lung["volume_ml"] == pytest.approx(voxels * voxel_ml, abs=1e-3)
        assert lung["largest_axial_area_cm2"] == pytest.approx(pixels * pixel_cm2, abs=1e-3)
        assert lung["mean_hu"] == pytest.approx(mean_hu, abs=0.1)


def test_axial_is_across_the_body_axis_whatever_the_file_s_axes_are():
    labels, hu = boxes()
    affine = np.diag([3.0, 4, 5, 1])
    measured = measure_lungs(labels, hu, affine)
    assert measured["right"]["largest_axial_area_cm2"] == 20 * 12 / 100
    turned = affine[:, [2, 0, 1, 3]] * [-1, 1, -1, 1]  # the axes are z, x and y now, two of them reversed
    assert measure_lungs(labels.transpose(2, 0, 1), hu.transpose(2, 0, 1), turned) == measured


def iteration(labels: np.ndarray, hu: np.ndarray, name: str, left_out_ml: tuple[float, float]) -> SimpleNamespace:
    meta = {"affine": torch.diag(torch.tensor([1.0, 1, 2, 1])), "filename_or_obj": f"/data/{name}.nii.gz"}
    pred, scan = (MetaTensor(torch.as_tensor(array)[None], meta=meta) for array in (labels, hu))
    output = [{"pred": pred, "left_out_ml": dict(zip(("right", "left"), left_out_ml, strict=True))}]
    return SimpleNamespace(state=SimpleNamespace(batch=[{"hu": scan}], output=output))


def test_tables_pictures_and_a_volume_without_lungs(tmp_path, capsys):
    labels, hu = boxes()
    report = LungReport(RunRecord(tmp_path))
    report(iteration(labels, hu, "a", (0, 1.25)))
    assert capsys.readouterr().err == ""
    report(iteration(np.zeros_like(labels), hu, "b", (0, 0)))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: /data/b.nii.gz: no lung was found in it; expected one or two lungs; check ")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a_report.png", "b_report.png", "report.csv", "report.json",
    ]  # fmt: skip
    a, b = json.loads((tmp_path / "report.json").read_text())["volumes"]
    assert (a["image"], a["right"]["volume_ml"], a["note"]) == ("a.nii.gz", 0.08, None)
    nothing = {"volume_ml": 0.0, "largest_axial_area_cm2": 0.0, "mean_hu": None, "left_out_ml": 0}
    assert b["right"] == b["left"] == b["both"] == nothing and f"warning: {b['note']}" == line
    assert [a[lung]["left_out_ml"] for lung in ("right", "left", "both")] == [0, 1.25, 1.25]
    rows = list(csv.reader((tmp_path / "report.csv").read_text().splitlines()))
    assert rows[0] == ["image", "lung", "volume_ml", "largest_axial_area_cm2", "mean_hu", "left_out_ml"]
    assert rows[1] == ["a.nii.gz", "right", "0.08", "0.2", "-800.0", "0"]
    assert rows[-1] == ["b.nii.gz", "both", "0.0", "0.0", "", "0"] and len(rows) == 7


@pytest.mark.parametrize("missing", ["right", "left"])
@pytest.mark.parametrize("small_ml", [0, 61.8])
def test_one_lung_alone_is_spoken_of_and_what_was_left_out_on_its_other_side(tmp_path, capsys, missing, small_ml):
    labels, hu = boxes()
    labels[labels == (1 if missing == "right" else 2)] = 0
    left_out_ml = (small_ml, 3.0) if missing == "right" else (3.0, small_ml)
    report = LungReport(RunRecord(tmp_path))
    report(iteration(labels, hu, "a", left_out_ml))
    [line] = capsys.readouterr().err.splitlines()
    small = " (62 ml on that side were left out, in pieces of less than a tenth of the other one)" if small_ml else ""
    assert line == (
        f"warning: /data/a.nii.gz: no {missing} lung was found in it{small}; expected two lungs; check the volume, "
        "unless the patient has only one lung"
    )
    [volume] = json.loads((tmp_path / "report.json").read_text())["volumes"]
    assert f"warning: {volume['note']}" == line and volume[missing]["left_out_ml"] == small_ml


def test_a_report_that_nobody_asked_for_still_speaks_of_missing_lungs(tmp_path, capsys):
    labels, hu = boxes()
    report = LungReport(RunRecord(tmp_path), enabled=False)
    report(iteration(0 * labels, hu, "b", (0, 0)))
    assert "no lung was found" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_the_picture_has_the_proportions_of_the_body(tmp_path):
    """A cube of lung in thick slices is as wide as it is high in both panels, the right lung on the left."""
    labels = np.zeros((60, 60, 12), np.uint8)
    labels[15:45, 15:45, 3:9] = 1  # 30 mm each way
    labels[15:30] *= 2  # x grows to the right: the lower half is the left lung
    save_lung_picture(labels, np.full(labels.shape, -600), np.diag([1.0, 1, 5, 1]), tmp_path / "a.png")
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    orange = (picture[..., 0] - picture[..., 2]) > 40
    blue = (picture[..., 2] - picture[..., 0]) > 40
    middle = picture.shape[1] // 2
    for half in (np.s_[:, :middle], np.s_[:, middle:]):
        rows, columns = np.nonzero(orange[half] | blue[half])
        assert np.ptp(rows) == pytest.approx(np.ptp(columns), rel=0.03)
        assert np.nonzero(orange[half])[1].max() < np.nonzero(blue[half])[1].min()
