"""What the truth of a phantom of the fundus says, measured again in its label and its colours."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from bundlekit.phantoms import make_dataset
from bundlekit.phantoms.fundus import fundus


@pytest.fixture(scope="module")
def phantoms():
    return [fundus(np.random.default_rng([7, i]), 180) for i in range(16)]


def test_centre_area_and_diameter_are_those_of_the_label(phantoms):
    for phantom in phantoms:
        assert phantom.image.shape == (120, 180, 3) and phantom.label.shape == (120, 180)
        assert set(np.unique(phantom.label)) == {0, 1}
        centre = np.argwhere(phantom.label).mean(axis=0)[::-1]
        assert np.hypot(*(centre - phantom.truth["centre"])) < 0.3
        area = phantom.label.sum()
        assert area == pytest.approx(phantom.truth["area_px"], rel=0.03)
        assert phantom.truth["diameter_px"] == pytest.approx(np.sqrt(4 * phantom.truth["area_px"] / np.pi))


def test_the_disc_is_on_the_side_of_the_nose_and_lighter_than_its_surroundings(phantoms):
    assert {phantom.truth["eye"] for phantom in phantoms} == {"left", "right"}
    for phantom in phantoms:
        x, y = phantom.truth["centre"]
        assert (x > 179 / 2) == (phantom.truth["eye"] == "right")
        rows, columns = np.mgrid[:120, :180]
        distance = np.hypot(columns - x, rows - y) / (phantom.truth["diameter_px"] / 2)
        grey = phantom.image.mean(axis=-1)
        ring = grey[(distance > 1.3) & (distance < 1.8)]
        assert np.median(grey[distance < 0.8]) > np.median(ring) + 5


def test_the_field_is_round_and_black_outside(phantoms):
    for phantom in phantoms:
        assert not phantom.image[:3, :3].any() and not phantom.image[-3:, -3:].any()
        assert phantom.image[60, 90].any()


def test_same_generator_same_phantom():
    a, b = (fundus(np.random.default_rng([1, 2]), 96) for _ in range(2))
    assert np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label) and a.truth == b.truth


def test_size_below_the_least():
    with pytest.raises(ValueError, match="size is 47 px; expected at least 48 px"):
        fundus(np.random.default_rng(0), 47)


def test_entries_of_the_data_set_have_the_centre(tmp_path):
    make_dataset("optic_disc_fundus_segmentation", tmp_path, training=2, validation=0, test=1, size=96)
    dataset = json.loads((tmp_path / "dataset.json").read_text())
    truth = {image["image"]: image["centre"] for image in json.loads((tmp_path / "truth.json").read_text())["images"]}
    items = dataset["training"] + dataset["test"]
    assert {item["image"]: item["centre"] for item in items} == truth and len(truth) == 3
    assert Image.open(tmp_path / items[0]["image"]).size == (96, 64)
