"""What is particular to the EM bundle: the challenge's files become this project's layout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from monai.data import load_decathlon_datalist
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "bundles/membrane_em_segmentation/scripts/prepare_data.py"


def prepare(source: Path, output: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), "--source", str(source), "--output", str(output), *options]
    return subprocess.run(command, capture_output=True, text=True)


def slices(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, and interiors (255) with one membrane column, another in each slice."""
    images = np.random.default_rng(0).integers(0, 256, (num, 16, 12), dtype=np.uint8)
    interiors = np.full((num, 16, 12), 255, np.uint8)
    for i in range(num):
        interiors[i, :, i % 12] = 0
    return images, interiors


def check_item(output: Path, item: dict, image: np.ndarray, interior: np.ndarray) -> None:
    assert np.array_equal(np.asarray(Image.open(item["image"])), image)
    assert np.array_equal(np.asarray(Image.open(item["label"])), (interior == 0).astype(np.uint8))
    assert Path(item["image"]).parent == output / "images"


def test_challenge_volumes(tmp_path):
    images, interiors = slices(8)
    tifffile.imwrite(tmp_path / "train-volume.tif", images)
    tifffile.imwrite(tmp_path / "train-labels.tif", interiors)
    tifffile.imwrite(tmp_path / "test-volume.tif", images[:3])
    output = tmp_path / "out"
    result = prepare(tmp_path, output, "--num_validation", "2")
    assert result.returncode == 0, result.stderr
    read = lambda name: load_decathlon_datalist(output / "dataset.json", data_list_key=name)  # noqa: E731
    order = [*read("training"), *read("validation"), *read("test")]
    # three quarters train, of which the last two validate; blocks, since neighbouring slices are alike
    assert [len(read(name)) for name in ("training", "validation", "test")] == [4, 2, 2]
    for i, item in enumerate(order):
        check_item(output, item, images[i], interiors[i])
    challenge = json.loads((output / "dataset.json").read_text())["challenge"]
    assert len(challenge) == 3 and all(item.keys() == {"image"} for item in challenge)


def test_folder_of_slices_with_a_split(tmp_path):
    images, interiors = slices(5)
    for name, arrays in (("images", images), ("labels", interiors // 255)):
        (tmp_path / name).mkdir()
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(tmp_path / name / f"{i:02d}.png")
    (tmp_path / "split.csv").write_text("id,split\n03,test\n00,train\n01,train\n02,train\n04,test\n")
    output = tmp_path / "out"
    result = prepare(tmp_path, output, "--num_validation", "1")
    assert result.returncode == 0, result.stderr
    for name, expected in (("training", [0, 1]), ("validation", [2]), ("test", [3, 4])):
        items = load_decathlon_datalist(output / "dataset.json", data_list_key=name)
        for i, item in zip(expected, items, strict=True):
            check_item(output, item, images[i], interiors[i])


def test_wrong_sources_are_named(tmp_path):
    result = prepare(tmp_path, tmp_path / "out")
    assert result.returncode == 1 and "found neither train-volume.tif nor split.csv" in result.stderr
    tifffile.imwrite(tmp_path / "train-volume.tif", slices(4)[0])
    tifffile.imwrite(tmp_path / "train-labels.tif", slices(3)[1])
    result = prepare(tmp_path, tmp_path / "out")
    assert result.returncode == 1 and "4 slices in train-volume.tif, 3 in train-labels.tif" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.data
@pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of real images")
def test_the_real_slices(tmp_path):
    source = Path(os.environ["DATA_ROOT"]) / "isbi2012_em"
    assert prepare(source, tmp_path).returncode == 0
    items = load_decathlon_datalist(tmp_path / "dataset.json", data_list_key="test")
    shares = [np.asarray(Image.open(item["label"])).mean() for item in items]
    assert len(items) == 6 and all(0.15 < share < 0.3 for share in shares)  # membranes are the smaller class
