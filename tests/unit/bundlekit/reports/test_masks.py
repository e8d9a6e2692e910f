"""Measures of a disc that is known, and an image without one."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from skimage.draw import disk

from bundlekit.inference.record import RunRecord
from bundlekit.reports.masks import MaskReport, measure_mask


def disc(x: float, y: float, radius: float) -> np.ndarray:
    mask = np.zeros((90, 60), np.float32)
    mask[disk((x, y), radius, shape=mask.shape)] = 1
    return mask


def test_centre_diameter_and_area_of_a_disc():
    found = measure_mask(disc(50, 21, 15))
    assert (found["centre_x_px"], found["centre_y_px"]) == (50, 21)
    assert found["diameter_px"] == pytest.approx(30, abs=0.3)
    assert found["area_px"] == pytest.approx(np.pi * 15**2, rel=0.02)


def test_table_and_json_say_where_nothing_was_found(tmp_path, capsys):
    masks = {"a.png": disc(50, 21, 15), "b.png": np.zeros((90, 60), np.float32)}

    def step(engine, name):
        image = MetaTensor(torch.zeros(1, 4, 4), meta={"filename_or_obj": f"/data/{name}"})
        return [{"image": image, "pred": torch.from_numpy(masks[name])[None]}]

    engine, record = Engine(step), RunRecord(tmp_path)
    engine.add_event_handler(Events.STARTED, record.begin)
    MaskReport(record, "optic disc").attach(engine)
    for _ in range(2):  # a second run starts again from nothing
        engine.run(list(masks))
    rows = json.loads((tmp_path / "report.json").read_text())
    assert rows == [{"image": name, **measure_mask(mask)} for name, mask in masks.items()]
    with (tmp_path / "report.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["found"] for row in table] == ["yes", "no"]
    assert table[1] == {
        "image": "b.png",
        "found": "no",
        "centre_x_px": "",
        "centre_y_px": "",
        "diameter_px": "",
        "area_px": "0",
    }
    (line, _) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: /data/b.png: no optic disc found; expected one; ")
