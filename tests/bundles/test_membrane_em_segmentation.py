"""What is particular to the EM bundle: the layout of the challenge's files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from monai.data import load_decathlon_datalist
from PIL import Image

from tests.commands import run_script

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/membrane_em_segmentation"


def prepare(source: Path, output: Path, *options: str) -> subprocess.CompletedProcess:
    return run_script(BUNDLE / "scripts/prepare_data.py", "--source", source, "--output", output, *options)


def slices(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, and interiors (255) with one membrane column, another in each slice."""
    images = np.random.default_rng(0).integers(0, 256, (num, 16, 12), dtype=np.uint8)
    interiors = np.full((num, 16, 12), 255, np.uint8)
    for i in range(num):
        interiors[i, :, i % 12] = 0
    return images, interiors


def write_volumes(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for name, volume in (("train-volume.tif", images), ("train-labels.tif", labels)):
        tifffile.imwrite(folder / name, volume, photometric="rgb" if volume.ndim == 4 else "minisblack")


def check_item(output: Path, item: dict, image: np.ndarray, interior: np.ndarray) -> None:
    assert np.array_equal(np.asarray(Image.open(item["image"])), image)
    assert np.array_equal(np.asarray(Image.open(item["label"])), (interior == 0).astype(np.uint8))
    assert Path(item["image"]).parent == output / "images"


def test_challenge_volumes(tmp_path):
    images, interiors = slices(8)
    write_volumes(tmp_path, images, interiors)
    tifffile.imwrite(tmp_path / "test-volume.tif", images[:3], photometric="minisblack")
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


def test_training_on_all_keeps_the_test_slices_apart(tmp_path):
    images, interiors = slices(8)
    write_volumes(tmp_path, images, interiors)
    assert prepare(tmp_path, tmp_path / "out", "--train_on_all", "--num_validation", "2").returncode == 0
    dataset = json.loads((tmp_path / "out/dataset.json").read_text())
    names = {key: [Path(item["image"]).stem for item in dataset[key]] for key in ("training", "validation", "test")}
    assert names == {"training": ["00", "01", "02", "03", "04", "05"], "validation": ["04", "05"], "test": ["06", "07"]}


def test_wrong_sources_are_named(tmp_path):
    result = prepare(tmp_path, tmp_path / "out")
    assert result.returncode == 1 and "has neither train-volume.tif nor split.csv" in result.stderr
    write_volumes(tmp_path, slices(4)[0], slices(3)[1])
    result = prepare(tmp_path, tmp_path / "out")
    assert result.returncode == 1 and "4 slices in train-volume.tif, 3 in train-labels.tif" in result.stderr
    assert "Traceback" not in result.stderr


def write_folder(folder: Path, splits: str) -> None:
    for name, arrays in zip(("images", "labels"), slices(3), strict=True):
        (folder / name).mkdir()
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(folder / name / f"{i:02d}.png")
    (folder / "split.csv").write_text(splits)


def check_refused(folder: Path, *parts: str) -> None:
    """The last line names the file and all parts, and nothing was written."""
    result = prepare(folder, folder / "out", "--num_validation", "1")
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: ") and all(part in line for part in (str(folder), *parts)), line
    assert not (folder / "out").exists()


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_whole_numbers_of_any_type_become_the_same_slices(tmp_path, dtype):
    images, interiors = slices(4)
    write_volumes(tmp_path, images.astype(dtype), interiors.astype(dtype))
    result = prepare(tmp_path, tmp_path / "out", "--num_validation", "1")
    assert result.returncode == 0, result.stderr
    for i, item in enumerate(load_decathlon_datalist(tmp_path / "out/dataset.json", data_list_key="training")):
        check_item(tmp_path / "out", item, images[i], interiors[i])


@pytest.mark.parametrize(
    "value, found", [(256, "from 0 to 256"), (-1, "from -1 to"), (0.5, "float64"), (np.nan, "nan")]
)
def test_values_that_8_bits_cannot_hold(tmp_path, value, found):
    images, interiors = slices(4)
    images = images.astype(np.float64 if isinstance(value, float) else np.int64)
    images[2, 0, 0], images[2, 0, 1] = value, 0
    write_volumes(tmp_path, images, interiors)
    check_refused(tmp_path, "train-volume.tif, slice 2: ", found, "integers from 0 to 255")


@pytest.mark.parametrize(
    "change, found",
    [
        (lambda label: label[:, :, :11], "slice 0: has shape (16, 11); expected (16, 12)"),
        (lambda label: np.stack([label] * 3, -1), "slice 0: has shape (16, 12, 3); expected (rows, columns)"),
        (lambda label: np.where(np.arange(4)[:, None, None] == 3, 0, label), "slice 3: has no cell pixel"),
        (lambda label: np.where(np.arange(4)[:, None, None] == 1, 255, label), "slice 1: has no membrane pixel"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, change, found):
    images, interiors = slices(4)
    write_volumes(tmp_path, images, change(interiors).astype(np.uint8))
    check_refused(tmp_path, f"train-labels.tif, {found}")


@pytest.mark.parametrize("kept", [0, 4, 100, 761])
def test_truncated_volume(tmp_path, kept):
    write_volumes(tmp_path, *slices(4))
    path = tmp_path / "train-labels.tif"
    path.write_bytes(path.read_bytes()[:kept])
    check_refused(tmp_path, "train-labels.tif: cannot be read", "download it again")


def test_missing_and_truncated_png(tmp_path):
    write_folder(tmp_path, "id,split\n00,train\n01,train\n02,test\n")
    path = tmp_path / "labels/01.png"
    path.write_bytes(path.read_bytes()[:50])
    check_refused(tmp_path, f"{path}: cannot be read")
    path.unlink()
    check_refused(tmp_path, f"{path}: cannot be read (No such file or directory)")


@pytest.mark.parametrize(
    "splits, found",
    [
        ("", "has no column id and no column split (columns there: none)"),
        ("name,split\n00,train\n", "has no column id (columns there: name, split)"),
        ("id,fold\n00,train\n", "has no column split"),
        ("id,split\n00,train\n01,val\n", "slice '01' has the split 'val'; expected train or test"),
        ("id,split\n00,train\n01\n", "slice '01' has the split ''"),
        ("id,split\n00,train\n00,test\n", "slice '00' is listed twice"),
        ("id,split\n00,train\n01,test\n", "has 1 training slice(s); expected 2 or more"),
    ],
)
def test_wrong_split_files(tmp_path, splits, found):
    write_folder(tmp_path, splits)
    check_refused(tmp_path, found)


def test_too_many_validation_slices(tmp_path):
    write_volumes(tmp_path, *slices(4))
    result = prepare(tmp_path, tmp_path / "out", "--num_validation", "3")
    assert result.returncode == 1 and "--num_validation: is 3; expected 1 to 2" in result.stderr


@pytest.mark.data
@pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of real images")
def test_the_real_slices(tmp_path):
    source = Path(os.environ["DATA_ROOT"]) / "isbi2012_em"
    assert prepare(source, tmp_path).returncode == 0
    items = load_decathlon_datalist(tmp_path / "dataset.json", data_list_key="test")
    shares = [np.asarray(Image.open(item["label"])).mean() for item in items]
    assert len(items) == 6 and all(0.15 < share < 0.3 for share in shares)  # membranes are the smaller class
