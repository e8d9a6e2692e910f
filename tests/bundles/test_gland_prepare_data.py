"""From the layouts of the GlaS download and of the nuclei folder to the one that the gland bundle reads."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from bundlekit.inputs.datalists import read_section
from bundlekit.inputs.entries import check_item
from tests.commands import run_script

SCRIPT = Path(__file__).resolve().parents[2] / "bundles/gland_histology_segmentation/scripts/prepare_data.py"
SECTIONS = ("training", "validation", "test")
GRADE_COLUMNS = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"  # as in the download


def prepare(source: Path, output: Path) -> subprocess.CompletedProcess:
    return run_script(SCRIPT, "--source", source, "--output", output)


def prepared(source: Path, output: Path) -> dict[str, list[str]]:
    """The names in each list that the program wrote."""
    result = prepare(source, output)
    assert result.returncode == 0, result.stderr
    content = json.loads((output / "dataset.json").read_text())
    lists = {key: value for key, value in content.items() if isinstance(value, list)}
    assert all(item["image"][6:] == item["label"][6:] for items in lists.values() for item in items)
    return {key: [Path(item["image"]).stem for item in items] for key, items in lists.items()}


def errors(source: Path) -> list[str]:
    """What the program says against a source; nothing may have been written."""
    result = prepare(source, source / "out")
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert not (source / "out").exists() and result.stdout == ""
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines), lines
    return [line.removeprefix("error: ") for line in lines]


def pair(seed: int, shape: tuple[int, int] = (5, 7)) -> tuple[np.ndarray, np.ndarray]:
    """An RGB image and a label with the ids 0, 3 and 200, each a band of columns."""
    rng = np.random.default_rng(seed)
    image, columns = rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, 3, shape[1])
    return image, np.tile(np.array([0, 3, 200], np.uint8)[np.sort(columns)], (shape[0], 1))


def write_glas(folder: Path, **counts: int) -> None:
    for part, count in counts.items():
        for i in range(1, count + 1):
            image, label = pair(i, (5, 6 + i % 3))  # sizes differ in the download too
            Image.fromarray(image).save(folder / f"{part}_{i}.bmp")
            Image.fromarray(label).save(folder / f"{part}_{i}_anno.bmp")


def write_grades(folder: Path, benign: set[int], count: int) -> None:
    grades = [f"train_{i},{i}, {'benign' if i in benign else 'malignant'}, healthy" for i in range(1, count + 1)]
    (folder / "Grade.csv").write_text("\n".join([GRADE_COLUMNS, "testA_1,4, benign, adenomatous", *grades]))


def write_folder(folder: Path, splits: str, names: str = "abcd") -> None:
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for i, name in enumerate(names):
        image, label = pair(i)
        Image.fromarray(image).save(folder / f"images/{name}.png")
        Image.fromarray(label.astype(np.uint16) * np.uint16(300)).save(folder / f"labels/{name}.png")
    (folder / "split.csv").write_text(splits)


def test_glas_download(tmp_path):
    write_glas(tmp_path, train=10, testA=3, testB=2)
    image, label = pair(2, (5, 8))
    palette = Image.fromarray(label)
    palette.putpalette(np.random.default_rng(0).permutation(768).astype(np.uint8).tobytes())  # ids are the indices
    palette.save(tmp_path / "train_2_anno.bmp")
    lists = prepared(tmp_path, tmp_path / "out")
    assert lists == {
        "training": [f"train_{i}" for i in (1, 2, 3, 4, 5, 6, 7, 9, 10)],
        "validation": ["train_8"],  # the eighth, by number and not by name, where there are no grades
        "test": ["testA_1", "testA_2", "testA_3", "testB_1", "testB_2"],
        "testA": ["testA_1", "testA_2", "testA_3"],
        "testB": ["testB_1", "testB_2"],
    }
    for name in lists["training"] + lists["validation"] + lists["test"]:
        i = int(name.split("_")[1])
        image, label = pair(i, (5, 6 + i % 3))
        found = Image.open(tmp_path / f"out/labels/{name}.png")
        assert found.mode == "I;16" and np.array_equal(np.asarray(found), label)  # gaps between ids stay
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"out/images/{name}.png")), image)
    content = json.loads((tmp_path / "out/dataset.json").read_text())
    assert content["labels"] == {"0": "background", "1": "gland"}
    assert content["modality"] == {"0": "red", "1": "green", "2": "blue"}


def test_validation_images_of_the_whole_download_have_both_grades(tmp_path):
    write_glas(tmp_path, train=85)
    benign = set(range(1, 38))  # 37 of 85, as in the challenge
    write_grades(tmp_path, benign, 85)
    lists = prepared(tmp_path, tmp_path / "out")
    held_back = [int(name.split("_")[1]) for name in lists["validation"]]
    # positions 8, 16, ..., 80 of 85; the first 37 of them benign, which 8, 16, 24 and 32 are
    assert held_back == [8, 16, 24, 32, 40, 48, 56, 64, 72, 80]
    assert len(lists["training"]) == 75 and not set(lists["training"]) & set(lists["validation"])


def test_every_eighth_is_counted_in_the_order_of_the_grades(tmp_path):
    write_glas(tmp_path, train=16)
    write_grades(tmp_path, set(range(1, 16, 2)), 16)
    # benign: 1, 3, ..., 15, the eighth of which is 15; malignant: 2, 4, ..., 16
    assert prepared(tmp_path, tmp_path / "out")["validation"] == ["train_15", "train_16"]


def test_folder_with_a_split(tmp_path):
    write_folder(tmp_path, "id,split,group\nb,val,0\nd,train,1\na,train,1\nc,test,2\n")
    Image.fromarray(np.zeros((5, 7), np.uint16)).save(tmp_path / "labels/a.png")  # an image without objects
    Image.fromarray(np.full((5, 7), 65535, np.uint16)).save(tmp_path / "labels/b.png")
    lists = prepared(tmp_path, tmp_path / "out")
    assert lists == {"training": ["a", "d"], "validation": ["b"], "test": ["c"]}
    expected = {"a": 0, "b": 65535, "c": pair(2)[1].astype(int) * 300, "d": pair(3)[1].astype(int) * 300}
    for i, (name, label) in enumerate(expected.items()):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"out/images/{name}.png")), pair(i)[0])
        found = np.asarray(Image.open(tmp_path / f"out/labels/{name}.png"))
        assert found.dtype == np.uint16 and np.array_equal(found, np.broadcast_to(label, (5, 7)))
    assert json.loads((tmp_path / "out/dataset.json").read_text())["labels"] == {"0": "background", "1": "nucleus"}


def test_the_checks_before_a_run_find_nothing_wrong(tmp_path):
    write_folder(tmp_path, "id,split\na,train\nb,val\nc,test\n")
    prepared(tmp_path, tmp_path / "out")
    for section in SECTIONS:
        [item] = read_section(tmp_path / "out", section)
        assert check_item(item, ("image", "label"), 2, 3, None) == []


@pytest.mark.parametrize("mode, channels", [("L", 1), ("LA", 1), ("RGBA", 3), ("P", 3)])
def test_images_lose_alpha_and_palette_but_no_value(tmp_path, mode, channels):
    write_folder(tmp_path, "id,split\na,train\n")
    # few colours, so that a palette holds each of them
    values = np.random.default_rng(0).choice(np.array([0, 51, 255], np.uint8), (5, 7, channels)).squeeze()
    Image.fromarray(values).convert(mode).save(tmp_path / "images/a.png")
    prepared(tmp_path, tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/images/a.png")), values)


def test_all_that_is_wrong_with_the_files_at_once(tmp_path):
    write_folder(tmp_path, "id,split\n" + "".join(f"{name},train\n" for name in "abcdefg"), "abcdefg")
    images, labels = tmp_path / "images", tmp_path / "labels"
    (images / "a.png").unlink()
    (labels / "a.png").unlink()
    (images / "b.png").write_bytes((images / "b.png").read_bytes()[:60])
    Image.fromarray(np.zeros((7, 5), np.uint16)).save(labels / "c.png")
    Image.fromarray(pair(3)[0]).save(labels / "d.png")
    Image.fromarray(np.full((5, 7), 65536, np.int32)).save(labels / "e.png", format="TIFF")
    Image.fromarray(np.where(pair(5)[1] > 0, 255, 0).astype(np.uint8)).save(labels / "f.png")
    Image.fromarray(np.zeros((5, 7), np.uint16)).save(images / "g.png")
    expected = [
        (images / "a.png", "cannot be read (No such file or directory)"),
        (labels / "a.png", "cannot be read (No such file or directory)"),
        (images / "b.png", "cannot be read"),
        (labels / "c.png", f"has (7, 5) rows and columns; expected (5, 7) as {images / 'c.png'}"),
        (labels / "d.png", "has pixels of the type 'RGB'; expected one integer per pixel"),
        (labels / "e.png", "holds ids from 65536 to 65536; expected 0 to 65535"),
        (labels / "f.png", "holds only the id 255 (a binary mask); expected an id for each object"),
        (images / "g.png", "has pixels of the type 'I;16'; expected grey values or RGB of 8 bits"),
    ]
    for line, (path, found) in zip(errors(tmp_path), expected, strict=True):
        assert line.startswith(f"{path}: {found}") and line.count("; ") == 2


def test_glas_pairs_without_a_partner(tmp_path):
    write_glas(tmp_path, train=8, testB=1)
    (tmp_path / "train_5_anno.bmp").unlink()
    (tmp_path / "testB_1.bmp").unlink()
    missing = "cannot be read (No such file or directory)"
    for line, name in zip(errors(tmp_path), ("testB_1.bmp", "train_5_anno.bmp"), strict=True):
        assert line.startswith(f"{tmp_path / name}: {missing}")


def test_wrong_sources(tmp_path):
    [line] = errors(tmp_path)
    assert line.startswith(f"{tmp_path}: has neither train_1.bmp nor split.csv")
    assert errors(tmp_path / "nowhere")[0].startswith(f"{tmp_path / 'nowhere'}: has neither")
    write_glas(tmp_path, train=7)
    assert "has 7 training images; expected at least 8" in errors(tmp_path)[0]
    result = prepare(tmp_path, tmp_path / "x/..")
    assert result.returncode == 1 and "is the folder of the source; expected another folder" in result.stderr


def test_wrong_split_file(tmp_path):
    write_folder(tmp_path, "id,split\na,train\na,test\n")
    [line] = errors(tmp_path)
    assert line.startswith(f"{tmp_path / 'split.csv'}: image 'a' is listed twice")


def test_grades_without_their_column(tmp_path):
    write_glas(tmp_path, train=8)
    (tmp_path / "Grade.csv").write_text("name;grade\ntrain_1;benign\n")
    assert errors(tmp_path)[0].startswith(f"{tmp_path / 'Grade.csv'}: has no column name and no column grade (GlaS)")


def test_a_run_cut_short_leaves_no_list(tmp_path):
    write_folder(tmp_path, "id,split\na,train\nb,train\n")
    output = tmp_path / "out"
    prepared(tmp_path, output)
    (output / "labels/b.png").unlink()
    (output / "labels/b.png").mkdir()  # what cannot be overwritten ends the second run in its middle
    result = prepare(tmp_path, output)
    assert result.returncode == 1 and "Is a directory" in result.stderr
    assert not list(output.glob("dataset.json*"))


@pytest.mark.data
@pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of real images")
def test_the_real_nuclei(tmp_path):
    source = Path(os.environ["DATA_ROOT"]) / "dsb2018_nuclei"
    lists = prepared(source, tmp_path)
    assert [len(lists[section]) for section in SECTIONS] == [400, 78, 93]
    for item in load_decathlon_datalist(tmp_path / "dataset.json", data_list_key="test"):
        for kind in ("image", "label"):
            original, found = (Image.open(folder / f"{kind}s" / Path(item[kind]).name) for folder in (source, tmp_path))
            assert original.mode == found.mode and np.array_equal(np.asarray(original), np.asarray(found))
