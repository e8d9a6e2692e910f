"""From the layouts of the Data Science Bowl's download and of the folder with a split.csv to the bundle's own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundlekit.inputs.datalists import read_section
from bundlekit.inputs.entries import check_item
from tests.commands import run_script

SCRIPT = Path(__file__).resolve().parents[2] / "bundles/nuclei_microscopy_segmentation/scripts/prepare_data.py"


def prepare(source: Path, output: Path, *options: str) -> subprocess.CompletedProcess:
    return run_script(SCRIPT, "--source", source, "--output", output, *options)


def prepared(source: Path, output: Path, *options: str) -> dict[str, list[str]]:
    """The names in each list that the program wrote; every item passes the bundle's own checks."""
    result = prepare(source, output, *options)
    assert result.returncode == 0, result.stderr
    lists = {k: v for k, v in json.loads((output / "dataset.json").read_text()).items() if isinstance(v, list)}
    for name in lists:
        assert not [e for item in read_section(output, name) for e in check_item(item, item, 2, [1, 3], None)]
    return {key: [Path(item["image"]).stem for item in items] for key, items in lists.items()}


def error_of(source: Path, *options: str) -> str:
    """What the program says against a source; nothing may have been written."""
    result = prepare(source, source / "out", *options)
    assert result.returncode == 1 and "Traceback" not in result.stderr and not (source / "out").exists(), result.stderr
    return result.stderr


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def write_download(folder: Path, names: str) -> None:
    """As unzipped: RGBA images, alike in three channels but for those with a capital letter; masks of 255."""
    rng = np.random.default_rng(0)
    for name in names:
        for kind in ("images", "masks"):
            (folder / name / kind).mkdir(parents=True)
        image = np.full((9, 11, 4), 255, np.uint8)
        image[..., :3] = rng.integers(0, 256, (9, 11, 3 if name.isupper() else 1))
        Image.fromarray(image).save(folder / f"{name}/images/{name}.png")
        for number, box in enumerate((np.s_[1:4, 1:4], np.s_[3:8, 3:8], np.s_[0:2, 8:11])):
            mask = np.zeros((9, 11), np.uint8)
            mask[box] = 255
            Image.fromarray(mask).save(folder / f"{name}/masks/{number}.png")


def write_folder(folder: Path, splits: str, sizes: dict[str, tuple[int, ...]]) -> None:
    rng = np.random.default_rng(1)
    for kind in ("images", "labels", "mosaics"):
        (folder / kind).mkdir()
    for name, shape in sizes.items():
        image = rng.integers(0, 256, shape, np.uint8)
        bands = np.sort(rng.integers(0, 3, shape[1]))
        ids = np.tile(np.array([0, 3, 700], np.uint16)[bands], (shape[0], 1))
        image_path, label_path = (folder / kind / f"{name}.png" for kind in ("images", "labels"))
        if name.startswith("field"):
            image_path, label_path = (folder / f"mosaics/{name}{ending}.png" for ending in ("", "_label"))
        Image.fromarray(image).save(image_path)
        Image.fromarray(ids).save(label_path)
    (folder / "split.csv").write_text(splits)


def test_download_with_a_split(tmp_path):
    write_download(tmp_path / "in", "aBcD")
    (tmp_path / "split.csv").write_text("id,split,group\na,train,0\nB,val,1\nc,test,2\nD,test,3\n")
    lists = prepared(tmp_path / "in", tmp_path / "out", "--split", str(tmp_path / "split.csv"))
    wanted = {"training": ["a"], "validation": ["B"], "test": ["D", "c"], "test_grey": ["c"], "test_rgb": ["D"]}
    assert lists == wanted
    for name in "aBcD":
        image, label = (read(tmp_path / f"out/{kind}/{name}.png") for kind in ("images", "labels"))
        original = read(tmp_path / f"in/{name}/images/{name}.png")
        assert np.array_equal(image, original[..., :3] if name.isupper() else original[..., 0])
        wanted_ids = np.zeros((9, 11), int)
        wanted_ids[1:4, 1:4], wanted_ids[3:8, 3:8], wanted_ids[0:2, 8:11] = 1, 2, 3
        assert label.dtype == np.uint16 and np.array_equal(label, wanted_ids)


def test_download_without_a_split_is_divided_with_a_warning(tmp_path):
    write_download(tmp_path, "abcdefghi")
    result = prepare(tmp_path, tmp_path.with_name("out"))
    assert result.returncode == 0 and "warning: no --split: tiles of one field" in result.stderr
    lists = json.loads((tmp_path.with_name("out") / "dataset.json").read_text())
    names = {key: [Path(item["image"]).stem for item in lists[key]] for key in ("training", "validation", "test")}
    assert names == {"training": [*"abcdefi"], "validation": ["g"], "test": ["h"]}


SIZES = {"a": (5, 7), "b": (6, 7, 3), "c": (8, 4), "d": (7, 7, 3), "field1": (9, 12)}
SPLITS = "id,split\nd,test\na,train\nb,val\nc,test\n"


def test_folder_with_mosaics(tmp_path):
    write_folder(tmp_path, SPLITS, SIZES)
    lists = prepared(tmp_path, tmp_path / "out")
    assert lists == {
        "training": ["a"],
        "validation": ["b"],
        "test": ["c", "d"],
        "test_grey": ["c"],
        "test_rgb": ["d"],
        "mosaics": ["field1"],
    }
    for name in "abcd":
        for kind in ("images", "labels"):
            assert np.array_equal(read(tmp_path / f"out/{kind}/{name}.png"), read(tmp_path / f"{kind}/{name}.png"))
    assert np.array_equal(read(tmp_path / "out/labels/field1.png"), read(tmp_path / "mosaics/field1_label.png"))


def test_slices_cover_training_images_alone(tmp_path):
    write_folder(tmp_path, "id,split\na,train\nc,test\n", {"a": (10, 7), "c": (10, 7)})
    lists = prepared(tmp_path, tmp_path / "out", "--slice_px", "4")
    assert lists["test"] == ["c"] and lists["training"] == [f"a_{i:02d}" for i in range(6)]
    image, ids = (read(tmp_path / f"{kind}/a.png") for kind in ("images", "labels"))
    corners = [(top, left) for top in (0, 4, 6) for left in (0, 3)]  # the last ones end with the image
    for name, (top, left) in zip(lists["training"], corners, strict=True):
        assert np.array_equal(read(tmp_path / f"out/images/{name}.png"), image[top : top + 4, left : left + 4])
        found, wanted = read(tmp_path / f"out/labels/{name}.png"), ids[top : top + 4, left : left + 4]
        numbers = np.unique(wanted[wanted > 0])
        assert found.dtype == np.uint16 and np.array_equal(found, np.searchsorted(numbers, wanted) + (wanted > 0))


def test_a_slice_with_one_nucleus_is_no_mask(tmp_path):
    """Its number in the whole image is that of a mask's foreground."""
    write_folder(tmp_path, "id,split\na,train\n", {"a": (4, 8)})
    Image.fromarray(np.kron(np.array([[255, 7]], np.uint8), np.ones((4, 4), np.uint8))).save(tmp_path / "labels/a.png")
    assert prepared(tmp_path, tmp_path / "out", "--slice_px", "4")["training"] == ["a_00", "a_01"]
    assert read(tmp_path / "out/labels/a_00.png").tolist() == [[1] * 4] * 4


def test_16_bits_stay(tmp_path):
    write_folder(tmp_path, "id,split\na,train\n", {"a": (5, 7)})
    deep = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000
    Image.fromarray(deep).save(tmp_path / "images/a.png")
    prepared(tmp_path, tmp_path / "out")
    assert np.array_equal(read(tmp_path / "out/images/a.png"), deep)


def test_wrong_split_file(tmp_path):
    write_folder(tmp_path, "id,split\na,dev\n", SIZES)
    assert f"error: {tmp_path}/split.csv: image 'a' has the split 'dev'; expected train, val" in error_of(tmp_path)


def test_wrong_size_of_slices(tmp_path):
    write_folder(tmp_path, SPLITS, SIZES)
    assert "error: --slice_px: is 1; expected at least 2" in error_of(tmp_path, "--slice_px", "1")


def test_all_wrong_files_are_told_at_once(tmp_path):
    write_folder(tmp_path, SPLITS, SIZES)
    (tmp_path / "images/a.png").write_bytes((tmp_path / "images/a.png").read_bytes()[:40])
    Image.fromarray(np.zeros((6, 6), np.uint16)).save(tmp_path / "labels/b.png")
    Image.fromarray(np.full((8, 4), 255, np.uint8)).save(tmp_path / "labels/c.png")
    Image.fromarray(np.zeros((7, 7, 3), np.uint8)).save(tmp_path / "labels/d.png")
    lines = error_of(tmp_path).splitlines()
    assert len(lines) == 4
    for line, part in zip(
        sorted(lines),
        (
            "images/a.png: cannot be read",
            "labels/b.png: has (6, 6) rows and columns; expected (6, 7)",
            "labels/c.png: holds only the id 255 (a binary mask); expected an id for each nucleus",
            "labels/d.png: has pixels of the type 'RGB'",
        ),
        strict=True,
    ):
        assert part in line


def test_wrong_downloads_are_named(tmp_path):
    assert "has neither ID/images nor split.csv" in error_of(tmp_path)
    write_download(tmp_path, "ab")
    for path in (tmp_path / "a/masks").iterdir():
        path.unlink()
    assert "a/masks: holds no mask; expected a PNG for each nucleus" in error_of(tmp_path)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of real images")
def test_the_real_images(tmp_path):
    lists = prepared(Path(os.environ["DATA_ROOT"]) / "dsb2018_nuclei", tmp_path)
    counts = {"training": 400, "validation": 78, "test": 93, "test_grey": 77, "test_rgb": 16, "mosaics": 2}
    assert {name: len(items) for name, items in lists.items()} == counts
