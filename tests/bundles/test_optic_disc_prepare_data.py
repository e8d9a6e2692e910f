"""The optic disc bundle's prepare_data.py on made-up downloads in each of its layouts, sound and broken."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.draw import disk

from bundlekit.inputs.picture_files import read_picture

PATH = Path(__file__).resolve().parents[2] / "bundles/optic_disc_fundus_segmentation/scripts/prepare_data.py"
SPEC = importlib.util.spec_from_file_location("optic_prepare_data", PATH)
prepare_data = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(prepare_data)
SHAPE, RADIUS = (60, 90), 12


def centre_of(number: int) -> tuple[int, int]:
    """(x, y)."""
    return 40 + number, 30


def mask_of(number: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    x, y = centre_of(number)
    mask[disk((y, x), RADIUS, shape=SHAPE)] = True
    return mask


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def photograph(number: int) -> np.ndarray:
    return np.full((*SHAPE, 3), 50 + number, np.uint8)


def drions(folder: Path, count: int = 10) -> None:
    for i in range(1, count + 1):
        save(folder / f"images/image_{i:03d}.jpg", photograph(i))
        for expert, radius in ((1, RADIUS), (2, RADIUS - 3)):
            angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
            x, y = centre_of(i)
            lines = [f"{x + radius * np.cos(a):.2f} , {y + radius * np.sin(a):.2f}" for a in angles]
            path = folder / f"experts_anotation/anotExpert{expert}_{i:03d}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join(lines) + "\n")


def drishti(folder: Path, with_test: bool = True) -> None:
    for part, gt, numbers in (("Training", "GT", range(10)), ("Test", "Test_GT", range(20, 23))):
        for i in numbers if part == "Training" or with_test else ():
            name = f"drishtiGS_{i:03d}"
            save(folder / f"{part}/Images/{name}.png", photograph(i))
            soft = 255 * mask_of(i) // 1
            soft[:, :10] = 64  # one of four experts
            save(folder / f"{part}/{gt}/{name}/SoftMap/{name}_ODsegSoftmap.png", soft.astype(np.uint8))
            save(folder / f"{part}/{gt}/{name}/SoftMap/{name}_cupsegSoftmap.png", soft.astype(np.uint8))


def refuge(folder: Path) -> None:
    for images, masks, letter, numbers in (
        ("Training400/Glaucoma", "Annotation-Training400/Disc_Cup_Masks/Glaucoma", "g", range(3)),
        ("Training400/Non-Glaucoma", "Annotation-Training400/Disc_Cup_Masks/Non-Glaucoma", "n", range(3)),
        ("REFUGE-Validation400", "REFUGE-Validation400-GT/Disc_Cup_Masks", "V", range(2)),
        ("Test400", "REFUGE-Test-GT/Disc_Cup_Masks/G", "T", range(2)),
    ):
        for i in numbers:
            save(folder / images / f"{letter}{i:04d}.jpg", photograph(i))
            values = np.where(mask_of(i), 128, 255).astype(np.uint8)
            x, y = centre_of(i)
            values[y - 3 : y + 4, x - 3 : x + 4] = 0  # the cup
            save(folder / masks / f"{letter}{i:04d}.bmp", values)


def simple(folder: Path, count: int = 10) -> None:
    for i in range(count):
        save(folder / f"images/s{i:02d}.png", photograph(i))
        values = mask_of(i).astype(np.uint8)
        x, y = centre_of(i)
        values[y : y + 4, x : x + 4] = 2  # the cup
        save(folder / f"labels/s{i:02d}.png", values)


def unmasked(folder: Path, rows: list[str], count: int = 6) -> Path:
    for i in range(count):
        save(folder / f"c{i}.tif", photograph(i))
    table = folder.with_suffix(".csv")
    table.write_text("name,x,y\n" + "\n".join(rows) + "\n")
    return table


GOOD_ROWS = [f"c{i}{'.tif' if i % 2 else ''},{centre_of(i)[0]}.5, {centre_of(i)[1]}" for i in range(6)]


def run(monkeypatch, capsys, *words: object) -> tuple[int, list[str]]:
    monkeypatch.setattr(sys, "argv", ["prepare_data.py", *map(str, words)])
    status = prepare_data.main()
    return status, [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


def check(output: Path) -> dict[str, list]:
    """The lists of dataset.json, after every label and centre was compared with the disc that was drawn."""
    dataset = json.loads((output / "dataset.json").read_text())
    lists = {name: value for name, value in dataset.items() if isinstance(value, list)}
    for item in (item for items in lists.values() for item in items):
        number = int(np.asarray(Image.open(output / item["image"])).mean().round()) - 50
        x, y = centre_of(number)
        if "label" not in item:
            assert item["centre"] == [x + 0.5, y]
            continue
        label = np.asarray(Image.open(output / item["label"]))
        assert set(np.unique(label)) == {0, 1}
        assert np.hypot(item["centre"][0] - x, item["centre"][1] - y) < 0.1
        # a circle of 60 corners lacks a two-hundredth of the disc, pixels on the outline a little more
        assert np.mean((label > 0) != mask_of(number)) < 0.01
    return lists


def test_every_layout_gives_the_same_labels_and_centres(tmp_path, monkeypatch, capsys):
    drions(tmp_path / "drions"), drishti(tmp_path / "drishti"), refuge(tmp_path / "refuge"), simple(tmp_path / "simple")
    counts = {
        "drions": {"training": 7, "validation": 1, "test": 2},
        "drishti": {"training": 9, "validation": 1, "test": 3},  # its own test images
        "refuge": {"training": 6, "validation": 2, "test": 2},  # its own lists
        "simple": {"training": 7, "validation": 1, "test": 2},
    }
    for name, wanted in counts.items():
        output = tmp_path / f"data_{name}"
        assert run(monkeypatch, capsys, "--source", tmp_path / name, "--output", output) == (0, [])
        assert {section: len(items) for section, items in check(output).items()} == wanted, name


def test_folds_of_several_sets_test_each_image_once(tmp_path, monkeypatch, capsys):
    drions(tmp_path / "drions"), drishti(tmp_path / "drishti", with_test=False)
    tested = []
    for fold in range(5):
        output = tmp_path / f"data{fold}"
        sources = (tmp_path / "drions", tmp_path / "drishti")
        assert run(monkeypatch, capsys, "--source", *sources, "--output", output, "--fold", fold)[0] == 0
        lists = check(output)
        names = [Path(item["image"]).stem for items in lists.values() for item in items]
        assert len(names) == len(set(names)) == 20
        tested += [Path(item["image"]).stem for item in lists["test"]]
        assert {name[:5] for name in tested[-4:]} == {"image", "drish"}  # a fifth of each set
    assert len(tested) == len(set(tested)) == 20


def test_across_sets(tmp_path, monkeypatch, capsys):
    drions(tmp_path / "drions"), drishti(tmp_path / "drishti", with_test=False)
    words = ("--source", tmp_path / "drions", "--test_source", tmp_path / "drishti", "--output", tmp_path / "data")
    assert run(monkeypatch, capsys, *words) == (0, [])
    lists = check(tmp_path / "data")
    assert {name: len(items) for name, items in lists.items()} == {"training": 9, "validation": 1, "test": 10}
    assert all("drishti" in item["image"] for item in lists["test"])


@pytest.mark.parametrize(("count", "validation"), [(1, 0), (2, 1), (7, 1), (16, 2)])
def test_small_sets_validate_too(tmp_path, monkeypatch, capsys, count, validation):
    simple(tmp_path / "few", count), drishti(tmp_path / "tests")
    words = ("--source", tmp_path / "few", "--test_source", tmp_path / "tests", "--output", tmp_path / "data")
    assert run(monkeypatch, capsys, *words) == (0, [])
    counts = {name: len(items) for name, items in check(tmp_path / "data").items()}
    assert counts.get("validation", 0) == validation and counts["training"] == count - validation


def test_the_other_expert(tmp_path, monkeypatch, capsys):
    drions(tmp_path / "drions")
    areas = []
    for expert in (1, 2):
        output = tmp_path / f"data{expert}"
        run(monkeypatch, capsys, "--source", tmp_path / "drions", "--output", output, "--expert", expert)
        areas.append(np.asarray(Image.open(output / "labels/image_001.png")).sum())
    assert areas[1] / areas[0] == pytest.approx((RADIUS - 3) ** 2 / RADIUS**2, rel=0.05)


def test_images_with_a_table_of_centres(tmp_path, monkeypatch, capsys):
    table = unmasked(tmp_path / "c", GOOD_ROWS)
    words = ("--source", tmp_path / "c", "--centres", table, "--output", tmp_path / "data")
    assert run(monkeypatch, capsys, *words) == (0, [])
    items = [item for items in check(tmp_path / "data").values() for item in items]
    assert len(items) == 6 and all(item["image"].endswith(".png") and "label" not in item for item in items)


@pytest.mark.parametrize(
    "rows, wanted",
    [
        (GOOD_ROWS[:4], ["has no row for c4.tif; expected a row", "has no row for c5.tif"]),
        ([*GOOD_ROWS[:5], "c5,far,30"], ["line 7: x is 'far' and y is '30'; expected two numbers"]),
        ([*GOOD_ROWS, "c9,1,2"], ["line 8: image 'c9' does not exist; expected one row for each image"]),
        ([*GOOD_ROWS, "c1,1,2"], ["line 8: image 'c1' has a second row"]),
        ([*GOOD_ROWS[:5], "c5,90,30"], ["c5.tif: its centre (90, 30) lies outside the image of 90 x 60"]),
        (
            [*GOOD_ROWS[:5], "c5,90,30", "c9,1,2"],
            ["line 8: image 'c9' does not exist", "c5.tif: its centre (90, 30) lies"],
        ),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path, monkeypatch, capsys, rows, wanted):
    table = unmasked(tmp_path / "c", rows)
    words = ("--source", tmp_path / "c", "--centres", table, "--output", tmp_path / "data")
    status, errors = run(monkeypatch, capsys, *words)
    assert status == 1 and len(errors) == len(wanted) and not (tmp_path / "data").exists()
    assert all(words in line for words, line in zip(wanted, errors, strict=True)), errors


def test_a_table_without_its_columns(tmp_path, monkeypatch, capsys):
    table = unmasked(tmp_path / "c", GOOD_ROWS)
    table.write_text(table.read_text().replace("name,x,y", "id,col,row"))
    words = ("--source", tmp_path / "c", "--centres", table, "--output", tmp_path / "data")
    status, (error,) = run(monkeypatch, capsys, *words)
    assert status == 1 and "has the columns id, col, row; expected name, x and y; begin it with" in error


def test_a_table_as_spreadsheets_write_it(tmp_path, monkeypatch, capsys):
    table = unmasked(tmp_path / "c", GOOD_ROWS)
    table.write_text(table.read_text().replace("name,x,y", "name ; x ; y").replace(",", " ;"), encoding="utf-8-sig")
    words = ("--source", tmp_path / "c", "--centres", table, "--output", tmp_path / "data")
    assert run(monkeypatch, capsys, *words) == (0, [])
    counts = {name: len(items) for name, items in check(tmp_path / "data").items()}
    assert counts == {"training": 3, "validation": 1, "test": 2}


def test_sixteen_bits_stay_and_thirty_two_are_refused(tmp_path, monkeypatch, capsys):
    simple(tmp_path / "simple")
    deep = photograph(2)[..., 0].astype(np.uint16) * 200
    for name, ending in (("s02", ".png"), ("s03", ".tif")):
        (tmp_path / f"simple/images/{name}.png").unlink()
        Image.fromarray(deep).save(tmp_path / f"simple/images/{name}{ending}")
    words = ("--source", tmp_path / "simple", "--output", tmp_path / "data")
    assert run(monkeypatch, capsys, *words) == (0, [])
    for name in ("s02", "s03"):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"data/images/{name}.png")), deep)
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "simple/images/s03.tif")
    status, (error,) = run(monkeypatch, capsys, *words)
    assert status == 1 and "s03.tif: holds grey values of 32 bits (F); expected 8 or 16 bits" in error


def test_a_photograph_to_be_turned_belongs_to_the_mask_of_the_upright_one(tmp_path, monkeypatch, capsys):
    simple(tmp_path / "simple")
    exif = Image.Exif()
    exif[274] = 6  # to be shown turned to the right
    (tmp_path / "simple/images/s04.png").unlink()
    Image.fromarray(np.rot90(photograph(4))).save(tmp_path / "simple/images/s04.png", exif=exif)
    words = ("--source", tmp_path / "simple", "--output", tmp_path / "data")
    assert run(monkeypatch, capsys, *words) == (0, [])
    check(tmp_path / "data")
    image, _ = read_picture(str(tmp_path / "data/images/s04.png"))
    assert np.array_equal(image, photograph(4))


@pytest.mark.parametrize("layout", ["drishti", "refuge"])
def test_photographs_without_a_mask_are_told(tmp_path, monkeypatch, capsys, layout):
    {"drishti": drishti, "refuge": refuge}[layout](tmp_path / layout)
    pattern = {"drishti": "*_ODsegSoftmap.png", "refuge": "*.bmp"}[layout]
    sorted((tmp_path / layout).rglob(pattern))[0].unlink()
    monkeypatch.setattr(
        sys, "argv", ["prepare_data.py", "--source", str(tmp_path / layout), "--output", str(tmp_path / "data")]
    )
    assert prepare_data.main() == 0
    assert "note: 1 photographs without a mask are left out: " in capsys.readouterr().err
    check(tmp_path / "data")


def test_one_part_of_drishti_alone(tmp_path, monkeypatch, capsys):
    drishti(tmp_path / "drishti")
    training = next(path for path in (tmp_path / "drishti").rglob("Training"))
    monkeypatch.chdir(training)
    assert run(monkeypatch, capsys, "--source", ".", "--output", tmp_path / "data") == (0, [])
    check(tmp_path / "data")
    for mask in training.rglob("*_ODsegSoftmap.png"):
        save(tmp_path / "loose" / mask.name, photograph(1))
    status, (error,) = run(monkeypatch, capsys, "--source", tmp_path / "loose", "--output", tmp_path / "other")
    assert status == 1 and "is not in a folder Training or Test; expected one of them as a parent folder" in error


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


BREAKS = {
    "cut image": (lambda f: cut(f / "images/image_003.jpg"), "image_003.jpg: cannot be read"),
    "missing contour": (
        lambda f: (f / "experts_anotation/anotExpert1_004.txt").unlink(),
        "anotExpert1_004.txt: cannot be read",
    ),
    "no contour": (
        lambda f: (f / "experts_anotation/anotExpert1_004.txt").write_text("not , numbers\n"),
        "anotExpert1_004.txt: cannot be read",
    ),
    "short contour": (
        lambda f: (f / "experts_anotation/anotExpert1_004.txt").write_text("1 , 2\n"),
        "anotExpert1_004.txt: holds (1, 2) numbers; expected at least three points",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_downloads(tmp_path, monkeypatch, capsys, name):
    drions(tmp_path / "drions")
    break_it, wanted = BREAKS[name]
    break_it(tmp_path / "drions")
    status, (error,) = run(monkeypatch, capsys, "--source", tmp_path / "drions", "--output", tmp_path / "data")
    assert status == 1 and wanted in error and not (tmp_path / "data").exists()


def test_masks_of_another_size_empty_ones_and_no_layout_at_all(tmp_path, monkeypatch, capsys):
    simple(tmp_path / "simple")
    save(tmp_path / "simple/labels/s03.png", np.zeros((60, 91), np.uint8))
    save(tmp_path / "simple/labels/s05.png", np.zeros(SHAPE, np.uint8))
    status, errors = run(monkeypatch, capsys, "--source", tmp_path / "simple", "--output", tmp_path / "data")
    assert status == 1 and len(errors) == 2
    assert "s03.png: is 91 x 60 px; expected 90 x 60 as " in errors[0]
    assert "s05.png: has only background; expected an optic disc" in errors[1]
    (tmp_path / "empty").mkdir()
    for source, words in (("empty", "has none of experts_anotation"), ("none", "is not a folder")):
        status, (error,) = run(monkeypatch, capsys, "--source", tmp_path / source, "--output", tmp_path / "data")
        assert status == 1 and words in error
    status, errors = run(monkeypatch, capsys, "--source", tmp_path / "simple", "--output", tmp_path / "simple")
    assert status == 1 and "is the folder of a source" in errors[-1]
