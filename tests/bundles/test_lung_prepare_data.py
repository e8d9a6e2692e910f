"""From Kaggle's layout, and from folders of volumes with masks, to the one that the lung bundle reads."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from monai.bundle import ConfigParser

from bundlekit.inputs.checks import RunChecks
from bundlekit.prepare.volumes import nifti_name
from bundlekit.transforms.hounsfield import note_units
from tests.commands import run_script

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/lung_ct_segmentation"
SECTIONS = ("training", "validation", "test")
SHAPE = (7, 6, 5)
AFFINE = np.array([[-0.8, 0, 0, 5], [0, 0, 2.5, 7], [0, 0.8, 0, 9], [0, 0, 0, 1]])


def run(source: Path, output: Path, *options: str) -> subprocess.CompletedProcess:
    script = BUNDLE / "scripts/prepare_data.py"
    return run_script(script, "--source", source, "--output", output, *options)


def prepared(source: Path, output: Path, *options: str) -> dict:
    result = run(source, output, *options)
    assert result.returncode == 0, result.stderr
    return json.loads((output / "dataset.json").read_text())


def errors(source: Path) -> list[str]:
    result = run(source, source / "out")
    assert result.returncode == 1 and "Traceback" not in result.stderr and result.stdout == "", result.stderr
    assert not (source / "out").exists()
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines), lines
    return [line.removeprefix("error: ") for line in lines]


def names(items: list[dict]) -> list[str]:
    images, labels = ([nifti_name(Path(item[key])) for item in items] for key in ("image", "label"))
    assert images == labels
    return images


def usable(folder: Path) -> dict[str, int]:
    """How many entries of each list pass the checks that the bundle makes before a training."""
    parser = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs/train.json"))
    options = {key: parser.get(f"checks::{key}") for key in ("spatial_dims", "channels", "label_values", "min_size")}
    checks = RunChecks(**options, examine=note_units)
    content = json.loads((folder / "dataset.json").read_text())
    found = {name: len(checks.section(folder, name)) for name in SECTIONS if name in content}
    checks.finish()
    return found


def hu(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 400, shape)


def mask(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed + 100).random(shape) < 0.4


def save(path: Path, data: np.ndarray, dtype: type, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype(dtype), affine), path)


def write_kaggle(folder: Path, slices: dict[int, type], volumes: list[int]) -> None:
    """Slices of a patient's number and type of pixel; volumes as (slices, rows, columns), whose header says nothing."""
    for kind in ("2d_images", "2d_masks"):
        (folder / kind).mkdir(parents=True)
    for i, dtype in slices.items():
        tifffile.imwrite(folder / f"2d_images/ID_{i:04d}_Z_0142.tif", hu(i, (6, 7)).astype(dtype))
        tifffile.imwrite(folder / f"2d_masks/ID_{i:04d}_Z_0142.tif", (255 * mask(i, (6, 7))).astype(np.uint8))
    for i in volumes:
        stored = np.diag([5, 0.7, 0.6, 1])
        save(folder / f"3d_images/IMG_{i:04d}.nii.gz", hu(i, (4, 6, 6)), np.int16, stored)
        save(folder / f"3d_images/MASK_{i:04d}.nii.gz", 255 * mask(i, (4, 6, 6)), np.uint8, np.eye(4))


def test_kaggle_slices_train_unless_their_patient_is_held_back(tmp_path):
    types = {0: np.int32, 2: np.int16, 31: np.float32, 59: np.int32, 134: np.int32}
    write_kaggle(tmp_path / "in", types, [2, 31, 59, 79])
    (tmp_path / "in/2d_images/._ID_0000_Z_0142.tif").write_bytes(b"\0\5")
    dataset = prepared(tmp_path / "in", tmp_path / "out", "--fold", "1")
    assert names(dataset["test"]) == ["0031"] and names(dataset["validation"]) == ["0079"]
    # that of patient 31 is held back with the volume
    slices = [f"ID_{i:04d}_Z_0142" for i in (0, 2, 59, 134)]
    assert names(dataset["training"]) == ["0002", "0059", *slices]
    assert usable(tmp_path / "out") == {"training": 6, "validation": 1, "test": 1}
    assert {path.name.split(".")[0] for path in (tmp_path / "out/images").iterdir()} == {
        "0002",
        "0031",
        "0059",
        "0079",
        *slices,
    }


def test_kaggle_slices_and_volumes_lie_as_they_are_looked_at(tmp_path):
    """Rows run to the back, columns to the left, whatever the header says, and 16 or 32 bits keep their values."""
    write_kaggle(tmp_path / "in", {5: np.int32, 6: np.float32}, [2, 31, 59])
    prepared(tmp_path / "in", tmp_path / "out")
    for i in (5, 6):
        image, label = (nib.load(tmp_path / f"out/{kind}/ID_{i:04d}_Z_0142.nii.gz") for kind in ("images", "labels"))
        assert image.shape == (7, 6, 1) and nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert np.array_equal(np.asarray(image.dataobj)[..., 0].T, hu(i, (6, 7)))
        assert np.array_equal(np.asarray(label.dataobj)[..., 0].T, mask(i, (6, 7)))
        assert np.allclose(image.header.get_zooms(), (0.7, 0.7, 1))
    image, label = (nib.load(tmp_path / f"out/{kind}/0002.nii.gz") for kind in ("images", "labels"))
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S") and np.allclose(image.header.get_zooms(), (0.6, 0.7, 5))
    assert np.array_equal(np.asarray(image.dataobj).T, hu(2, (4, 6, 6)))
    assert np.array_equal(np.asarray(label.dataobj).T, mask(2, (4, 6, 6))) and np.allclose(label.affine, image.affine)


@pytest.mark.parametrize("shape", [(4, 6, 7), (6, 6, 6)])
def test_kaggle_volumes_whose_axis_of_slices_is_not_known(tmp_path, shape):
    write_kaggle(tmp_path, {5: np.int32}, [2, 31, 59])
    save(tmp_path / "3d_images/IMG_0031.nii.gz", hu(31, shape), np.int16)
    save(tmp_path / "3d_images/MASK_0031.nii.gz", mask(31, shape), np.uint8)
    [line] = errors(tmp_path)
    size = " x ".join(map(str, shape))
    assert line.startswith(f"{tmp_path}/3d_images/IMG_0031.nii.gz: has {size} voxels, which do not show which axis ")


def test_a_mask_from_kaggle_whose_axes_are_in_another_order(tmp_path):
    write_kaggle(tmp_path, {5: np.int32}, [2, 31, 59])
    save(tmp_path / "3d_images/MASK_0031.nii.gz", mask(31, (6, 6, 4)), np.uint8)
    [line] = errors(tmp_path)
    assert line.startswith(f"{tmp_path}/3d_images/MASK_0031.nii.gz: is 6 x 6 x 4; expected 4 x 6 x 6 as its image; ")


def test_kaggle_slices_alone(tmp_path):
    write_kaggle(tmp_path / "in", dict.fromkeys(range(12), np.int32), [])
    dataset = prepared(tmp_path / "in", tmp_path / "out")
    assert names(dataset["test"]) == [f"ID_{i:04d}_Z_0142" for i in (0, 5, 10)]
    assert usable(tmp_path / "out") == {"training": 8, "validation": 1, "test": 3}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/c{}.nii.gz", "masks/c{}.nii.gz"),
        ("images/c{}_ct.nii.gz", "labels/c{}_lung_mask.nii"),
        ("imagesTr/lung_c{}_0000.nii.gz", "labelsTr/lung_c{}.nii.gz"),  # as nnU-Net has it
        ("c{}.nii.gz", "c{}_mask.nii.gz"),
        ("IMG_c{}.nii", "MASK_c{}.nii"),
        ("c{}-volume.nii.gz", "c{}-Seg.nii.gz"),
        ("lung_c{}.nii.gz", "lung_c{}_mask.nii.gz"),
        ("c{}.nii.gz", "c{}_lung.nii.gz"),
        ("lung_c{}.nii.gz", "lung_c{}_lungs.nii.gz"),
    ],
)
def test_folders_of_volumes_with_masks(tmp_path, image, label):
    for i in range(4):
        save(tmp_path / "in" / image.format(i), hu(i), np.int16)
        save(tmp_path / "in" / label.format(i), 255 * mask(i), np.uint8)
    dataset = prepared(tmp_path / "in", tmp_path / "out", "--fold", "2")
    assert (names(dataset["training"]), names(dataset["validation"]), names(dataset["test"])) == (
        ["c0", "c1"],
        ["c3"],
        ["c2"],
    )
    assert usable(tmp_path / "out") == {"training": 2, "validation": 1, "test": 1}
    for i in range(4):
        found = nib.load(
            tmp_path / f"out/images/c{i}.nii.gz" if image.endswith("gz") else tmp_path / f"out/images/c{i}.nii"
        )
        assert np.array_equal(found.dataobj, hu(i)) and np.allclose(found.affine, AFFINE)


@pytest.mark.parametrize(
    ("values", "wanted"), [((0, 255), (0, 1)), ((0, 3), (0, 1)), ((0, 1, 2), (0, 1, 2)), ((0, 0), (0,))]
)
def test_values_of_masks(tmp_path, values, wanted):
    for i in range(3):
        save(tmp_path / f"in/c{i}.nii.gz", hu(i), np.int16)
        save(tmp_path / f"in/c{i}_mask.nii.gz", np.resize(values, SHAPE), np.float32)
    prepared(tmp_path / "in", tmp_path / "out")
    label = np.asarray(nib.load(tmp_path / "out/labels/c1.nii.gz").dataobj)
    assert label.dtype == np.uint8 and np.array_equal(label, np.resize(wanted, SHAPE))


def test_the_scale_in_a_header_is_applied(tmp_path):
    for i in range(3):
        image = nib.Nifti1Image((hu(i) + 1024).astype(np.uint16), AFFINE)
        image.header.set_slope_inter(1, -1024)
        (tmp_path / "in").mkdir(exist_ok=True)
        nib.save(image, tmp_path / f"in/c{i}.nii.gz")
        save(tmp_path / f"in/c{i}_mask.nii.gz", mask(i), np.uint8)
    prepared(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(nib.load(tmp_path / "out/images/c0.nii.gz").dataobj, hu(0))


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    for i in range(5):
        save(tmp_path / f"c{i}.nii.gz", hu(i), np.int16)
        save(tmp_path / f"c{i}_mask.nii.gz", mask(i), np.uint8)
    save(tmp_path / "c0_mask.nii.gz", np.resize((0, 3, 4, 5), SHAPE), np.uint8)
    save(tmp_path / "c1_mask.nii.gz", mask(1)[:-1], np.uint8)
    save(tmp_path / "c2_mask.nii.gz", mask(2), np.uint8, np.eye(4))
    save(tmp_path / "c3.nii.gz", hu(3, (*SHAPE, 2)), np.int16)
    (tmp_path / "c4.nii.gz").write_bytes((tmp_path / "c4.nii.gz").read_bytes()[:200])
    lines = errors(tmp_path)
    assert [line.split(": ")[0] for line in lines] == [
        *(f"{tmp_path}/c{i}_mask.nii.gz" for i in range(3)), f"{tmp_path}/c3.nii.gz", f"{tmp_path}/c4.nii.gz",
    ]  # fmt: skip
    assert (
        "holds the labels 3, 4, 5; expected 0 and one other value, or 0, 1 and 2; keep only the labels of the lungs"
        in lines[0]
    )
    assert "is 6 x 6 x 5; expected 7 x 6 x 5 as its image; resample it" in lines[1]
    assert "mm away from the voxels of its image; expected the same affine" in lines[2]
    assert "has 4 dimensions" in lines[3] and "cannot be read (" in lines[4]


def test_missing_masks_images_and_folders(tmp_path):
    assert "holds no CT data; expected 2d_images/ and 2d_masks/" in errors(tmp_path)[0]
    for i in range(3):
        save(tmp_path / f"c{i}.nii.gz", hu(i), np.int16)
        save(tmp_path / f"c{i + 1}_mask.nii.gz", mask(i), np.uint8)
    first, last = errors(tmp_path)
    assert first.startswith(f"{tmp_path}/c0_mask.nii.gz: cannot be opened") and last.startswith(
        f"{tmp_path}/c3.nii.gz: "
    )
    assert (
        errors(tmp_path / "none")[0]
        == f"{tmp_path}/none: is not a folder; expected the folder of the data; correct --source"
    )


def test_slices_with_the_name_of_a_volume_are_not_written_over_it(tmp_path):
    write_kaggle(tmp_path, {}, [])
    for i in (1, 2, 3):
        save(tmp_path / f"3d_images/IMG_{i}.nii.gz", hu(i, (4, 6, 6)), np.int16)
        save(tmp_path / f"3d_images/MASK_{i}.nii.gz", mask(i, (4, 6, 6)), np.uint8)
    for i in (1, 2, 7):
        tifffile.imwrite(tmp_path / f"2d_images/{i}.tif", hu(i, (6, 7)).astype(np.int16))
        tifffile.imwrite(tmp_path / f"2d_masks/{i}.tif", mask(i, (6, 7)).astype(np.uint8))
    assert errors(tmp_path) == [
        f"{tmp_path}/2d_images/{i}.tif: has the output name {i} of {tmp_path}/3d_images/IMG_{i}.nii.gz; expected "
        f"another name; rename the slice and its mask, as to ID_{i}_Z_0001.tif"
        for i in (1, 2)
    ]
    for i in (1, 2):
        for kind in ("2d_images", "2d_masks"):
            (tmp_path / f"{kind}/{i}.tif").rename(tmp_path / f"{kind}/ID_{i}_Z_0001.tif")
    dataset = prepared(tmp_path, tmp_path / "out")
    there = sorted(name for section in SECTIONS for name in names(dataset[section]))
    assert there == ["1", "2", "3", "7", "ID_2_Z_0001"]  # patient 1 tests


def test_slices_that_differ_in_their_ending(tmp_path):
    write_kaggle(tmp_path, dict.fromkeys(range(4), np.int16), [])
    (tmp_path / "2d_masks/ID_0002_Z_0142.tif").rename(tmp_path / "2d_masks/ID_0002_Z_0142.tiff")  # of an image in .tif
    assert len(prepared(tmp_path, tmp_path / "out")["training"]) == 2
    shutil.rmtree(tmp_path / "out")
    tifffile.imwrite(tmp_path / "2d_images/ID_0001_Z_0142.tiff", hu(8, (6, 7)).astype(np.int16))
    assert errors(tmp_path) == [
        f"{tmp_path}/2d_images/ID_0001_Z_0142.tiff: has the same case name, ID_0001_Z_0142, as "
        f"{tmp_path}/2d_images/ID_0001_Z_0142.tif; expected one file; rename one of them"
    ]


@pytest.mark.parametrize(("volumes", "fold", "wanted"), [([2], 0, "0002"), ([2, 31], 0, "0002"), ([2, 31], 1, "0031")])
def test_one_or_two_volumes_beside_slices(tmp_path, volumes, fold, wanted):
    """They test and validate, and slices of the same patients are in no list."""
    write_kaggle(tmp_path / "in", dict.fromkeys([*range(20), 31], np.int16), volumes)
    dataset = prepared(tmp_path / "in", tmp_path / "out", "--fold", str(fold))
    assert names(dataset["test"]) == [wanted]
    free = [f"ID_{i:04d}_Z_0142" for i in [*range(20), 31] if i not in volumes]
    validation = [free[7], free[15]] if len(volumes) == 1 else [f"{i:04d}" for i in volumes if f"{i:04d}" != wanted]
    assert names(dataset["validation"]) == validation
    assert names(dataset["training"]) == [name for name in free if name not in validation]
    assert usable(tmp_path / "out") == {section: len(dataset[section]) for section in SECTIONS}
    result = run(tmp_path / "in", tmp_path / "more", "--fold", str(len(volumes)))
    expected = " or ".join(map(str, range(len(volumes))))
    assert result.returncode == 1 and result.stderr == (
        f"error: --fold: is {len(volumes)}; expected {expected}, one for each volume; pass another one\n"
    )


def test_too_few_to_train_with(tmp_path):
    write_kaggle(tmp_path, {}, [2])
    assert errors(tmp_path) == [
        f"{tmp_path}: holds 1 volumes with masks; expected at least 3: one each to train, validate and test; add "
        "some, or slices in 2d_images/ and 2d_masks/"
    ]
    tifffile.imwrite(tmp_path / "2d_images/ID_0002_Z_0142.tif", hu(2, (6, 7)).astype(np.int16))
    tifffile.imwrite(tmp_path / "2d_masks/ID_0002_Z_0142.tif", mask(2, (6, 7)).astype(np.uint8))
    [line] = errors(tmp_path)
    assert line.startswith(f"{tmp_path}: has too few slices to train: 0 are of other patients than the volumes")


def test_two_files_of_one_case_and_a_source_that_is_the_output(tmp_path):
    for i in range(3):
        save(tmp_path / f"images/c{i}.nii.gz", hu(i), np.int16)
        save(tmp_path / f"masks/c{i}.nii.gz", mask(i), np.uint8)
    result = run(tmp_path, tmp_path)
    assert result.returncode == 1 and "is the folder of the source" in result.stderr
    save(tmp_path / "images/c1_ct.nii.gz", hu(1), np.int16)
    assert "c1_ct.nii.gz: has the same case name, c1, as " in errors(tmp_path)[0]
