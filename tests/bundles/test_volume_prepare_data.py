"""From the layouts of the Decathlon, BraTS and iSeg downloads to the one that the bundles for volumes read."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundlekit.inputs.volumes import VolumeChecks
from tests.commands import run_script

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
AFFINE = np.array([[-1.0, 0, 0, 5], [0, 0, 2, 7], [0, 1.5, 0, 9], [0, 0, 0, 1]])
BRATS = ("flair", "t1", "t1ce", "t2")


def run(bundle: str, source: Path, output: Path, *options: str) -> subprocess.CompletedProcess:
    script = BUNDLES / bundle / "scripts/prepare_data.py"
    return run_script(script, "--source", source, "--output", output, *options)


def prepared(bundle: str, source: Path, output: Path, *options: str) -> dict:
    """dataset.json as the program wrote it."""
    result = run(bundle, source, output, *options)
    assert result.returncode == 0, result.stderr
    return json.loads((output / "dataset.json").read_text())


def errors(bundle: str, source: Path, *options: str) -> list[str]:
    """What the program says against a source; nothing may have been written."""
    result = run(bundle, source, source / "out", *options)
    assert result.returncode == 1 and "Traceback" not in result.stderr and result.stdout == "", result.stderr
    assert not (source / "out").exists()
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines), lines
    return [line.removeprefix("error: ") for line in lines]


def usable(bundle: str, folder: Path) -> dict[str, int]:
    """How many entries of each list pass the checks that the bundle makes before a run."""
    train = json.loads((BUNDLES / bundle / "configs/train.json").read_text())
    modalities = train.get("modalities", [])
    content = json.loads((folder / "dataset.json").read_text())
    if len(content["modality"]) < len(modalities):
        modalities = list(content["modality"].values())
    checks = VolumeChecks(3, max(len(modalities), 1), train["checks"]["label_values"], modalities)
    found = {name: len(checks.section(folder, name)) for name in ("training", "validation", "test") if name in content}
    checks.finish()
    return found


def volume(path: Path, seed: int, values: tuple[int, ...] = ()) -> np.ndarray:
    """Write noise, or labels of the values, as NIfTI or Analyze by the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    data = rng.choice(np.array(values, np.int16), (4, 5, 6)) if values else rng.integers(1, 99, (4, 5, 6), np.int16)
    if path.suffix == ".img":
        nib.save(nib.AnalyzeImage(data[..., None], None), path)  # the challenge's files have a fourth axis of one
    else:
        nib.save(nib.Nifti1Image(data, AFFINE), path)
    return data


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


# ---- hippocampus


def write_decathlon(folder: Path, count: int, images: str = "imagesTr", labels: str = "labelsTr") -> None:
    for i in range(count):
        volume(folder / images / f"hippocampus_{i:03d}.nii.gz", i)
        volume(folder / labels / f"hippocampus_{i:03d}.nii.gz", i, (0, 1, 2))
        (folder / images / f"._hippocampus_{i:03d}.nii.gz").write_bytes(b"\0\5\x16\7")  # as in the official archive


@pytest.mark.parametrize("folders", [("imagesTr", "labelsTr"), ("images", "labels")])
def test_decathlon_download(tmp_path, folders):
    write_decathlon(tmp_path / "in", 12, *folders)
    name = "hippocampus_mri_segmentation"
    dataset = prepared(name, tmp_path / "in", tmp_path / "out", "--fold", "1", "--split", "name")
    assert [item["image"] for item in dataset["test"]] == [f"images/hippocampus_{i:03d}.nii.gz" for i in (1, 6, 11)]
    assert [item["label"] for item in dataset["validation"]] == ["labels/hippocampus_009.nii.gz"]
    assert usable(name, tmp_path / "out") == {"training": 8, "validation": 1, "test": 3}
    for kind, folder in zip(("images", "labels"), folders, strict=True):
        files = sorted((tmp_path / "out" / kind).iterdir())
        assert len(files) == 12
        assert all(file.read_bytes() == (tmp_path / "in" / folder / file.name).read_bytes() for file in files)


def test_both_sides_of_a_person_are_in_one_list(tmp_path):
    write_decathlon(tmp_path / "in", 24)  # 000, the pairs 001 and 002 to 021 and 022, and 023
    name = "hippocampus_mri_segmentation"
    tested = []
    for fold in range(5):
        dataset = prepared(name, tmp_path / "in", tmp_path / f"out{fold}", "--fold", str(fold))
        lists = [{int(item["image"][-10:-7]) for item in dataset[key]} for key in ("training", "validation", "test")]
        assert set.union(*lists) == set(range(24)) and sum(map(len, lists)) == 24
        for numbers in lists:
            assert all({2 * k - 1, 2 * k} <= numbers or not {2 * k - 1, 2 * k} & numbers for k in range(1, 12))
        tested += sorted(lists[2])
    assert sorted(tested) == list(range(24)) and tested[:5] == [0, 9, 10, 19, 20]


def test_decathlon_files_without_a_partner(tmp_path):
    write_decathlon(tmp_path, 6)
    (tmp_path / "imagesTr/hippocampus_002.nii.gz").unlink()
    (tmp_path / "labelsTr/hippocampus_004.nii.gz").write_bytes(b"")
    first, second = errors("hippocampus_mri_segmentation", tmp_path)
    assert first.startswith(f"{tmp_path}/imagesTr/hippocampus_002.nii.gz: cannot be opened (No such file")
    assert second.startswith(f"{tmp_path}/labelsTr/hippocampus_004.nii.gz: is empty (0 bytes)")


def test_decathlon_output_over_its_source(tmp_path):
    write_decathlon(tmp_path, 6, "images", "labels")
    result = run("hippocampus_mri_segmentation", tmp_path, tmp_path)
    assert result.returncode == 1 and f"error: {tmp_path}: is the folder of the source" in result.stderr


@pytest.mark.parametrize("name", sorted(path.name for path in BUNDLES.glob("*_mri_segmentation")))
def test_sources_that_hold_nothing(tmp_path, name):
    for source in (tmp_path, tmp_path / "nowhere"):
        [line] = errors(name, source)
        assert line.startswith(f"{source}: ") and "; expected " in line


# ---- brain tumours


def write_brats(folder: Path, count: int, ending: str = ".nii.gz", labels: bool = True) -> None:
    for i in range(1, count + 1):
        patient = f"BraTS20_Training_{i:03d}"
        for j, modality in enumerate(BRATS):
            volume(folder / patient / f"{patient}_{modality}{ending}", 10 * i + j)
        if labels:
            volume(folder / patient / f"{patient}_seg{ending}", i, (0, 1, 2, 4))
    (folder / "name_mapping.csv").write_text("Grade,BraTS_2020_subject_ID\n")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_brats_download(tmp_path, ending):
    write_brats(tmp_path / "in", 7, ending)
    odd = tmp_path / "in/BraTS20_Training_003"  # as patient 355 of 2020
    (odd / f"BraTS20_Training_003_seg{ending}").rename(odd / f"W39_1998.09.19_Segm{ending}")
    name = "brain_tumor_mri_segmentation"
    dataset = prepared(name, tmp_path / "in", tmp_path / "out")
    assert [item["label"] for item in dataset["test"]] == [f"labels/BraTS20_Training_00{i}{ending}" for i in (1, 6)]
    assert usable(name, tmp_path / "out") == {"training": 4, "validation": 1, "test": 2}
    assert dataset["modality"] == {"0": "flair", "1": "t1", "2": "t1ce", "3": "t2"}
    for item in dataset["training"]:
        patient = Path(item["label"]).name.removesuffix(ending)
        for modality, image in zip(BRATS, item["image"], strict=True):
            source = tmp_path / "in" / patient / f"{patient}_{modality}{ending}"
            assert (tmp_path / "out" / image).read_bytes() == source.read_bytes()
    copied = tmp_path / f"out/labels/BraTS20_Training_003{ending}"
    assert copied.read_bytes() == (odd / f"W39_1998.09.19_Segm{ending}").read_bytes()


def test_brats_download_in_two_grades(tmp_path):
    """As up to 2019; the patients are sorted by name, not by grade."""
    write_brats(tmp_path / "in", 7)
    for i in range(1, 8):
        patient = tmp_path / f"in/BraTS20_Training_{i:03d}"
        grade = tmp_path / "in" / ("LGG" if i % 2 else "HGG")
        grade.mkdir(exist_ok=True)
        patient.rename(grade / patient.name)
    (tmp_path / "in/LGG/BraTS20_Training_005/BraTS20_Training_005_seg.nii.gz").rename(tmp_path / "taken.nii.gz")
    [line] = errors("brain_tumor_mri_segmentation", tmp_path / "in")
    assert line.startswith(f"{tmp_path}/in/LGG/BraTS20_Training_005/BraTS20_Training_005_seg.nii.gz: cannot be opened")
    (tmp_path / "taken.nii.gz").rename(tmp_path / "in/LGG/BraTS20_Training_005/BraTS20_Training_005_seg.nii.gz")
    dataset = prepared("brain_tumor_mri_segmentation", tmp_path / "in", tmp_path / "out", "--fold", "1")
    assert [item["label"] for item in dataset["test"]] == [f"labels/BraTS20_Training_00{i}.nii.gz" for i in (2, 7)]
    assert sum(len(dataset[name]) for name in ("training", "validation", "test")) == 7
    inside = tmp_path / "in/out"
    assert prepared("brain_tumor_mri_segmentation", tmp_path / "in", inside, "--fold", "1") == dataset
    again = tmp_path / "in/again"
    assert prepared("brain_tumor_mri_segmentation", tmp_path / "in", again, "--fold", "1") == dataset


def test_brats_validation_data_has_no_labels(tmp_path):
    write_brats(tmp_path / "in", 2, labels=False)
    dataset = prepared("brain_tumor_mri_segmentation", tmp_path / "in", tmp_path / "out")
    assert [list(item) for item in dataset["test"]] == [["image"], ["image"]] and "training" not in dataset


def test_brats_patients_with_files_missing(tmp_path):
    write_brats(tmp_path, 6)
    (tmp_path / "BraTS20_Training_002/BraTS20_Training_002_t1ce.nii.gz").unlink()
    (tmp_path / "BraTS20_Training_005/BraTS20_Training_005_seg.nii.gz").unlink()
    lines = errors("brain_tumor_mri_segmentation", tmp_path)
    for line, file in zip(lines, ("002/BraTS20_Training_002_t1ce", "005/BraTS20_Training_005_seg"), strict=True):
        assert line.startswith(f"{tmp_path}/BraTS20_Training_{file}.nii.gz: cannot be opened")


def write_few(folder: Path) -> None:
    for i in (3, 4, 5, 6):
        for j, kind in enumerate(("Flair_subtrMeanDivStd", "T1c_subtrMeanDivStd", "brainmask")):
            volume(folder / f"images/pat000{i}_1_{kind}.nii.gz", 10 * i + j, (0, 1) if j == 2 else ())
        volume(folder / f"labels/pat000{i}_1.nii.gz", i, (0, 1, 2, 3, 4))


def test_few_patients_with_two_modalities(tmp_path):
    write_few(tmp_path / "in")
    name = "brain_tumor_mri_segmentation"
    dataset = prepared(name, tmp_path / "in", tmp_path / "out")
    names = {key: [item["label"][10:14] for item in dataset[key]] for key in ("training", "validation", "test")}
    assert names == {"training": ["0005", "0006"], "validation": ["0003", "0004"], "test": ["0003", "0004"]}
    assert dataset["training"][0]["image"] == ["images/pat0005_1_flair.nii.gz", "images/pat0005_1_t1ce.nii.gz"]
    assert usable(name, tmp_path / "out") == {"training": 2, "validation": 2, "test": 2}
    image, mask = (read(tmp_path / f"in/images/pat0005_1_{k}.nii.gz") for k in ("T1c_subtrMeanDivStd", "brainmask"))
    assert np.array_equal(read(tmp_path / "out/images/pat0005_1_t1ce.nii.gz"), image * mask)  # air is 0


def test_few_patients_without_a_mask(tmp_path):
    write_few(tmp_path)
    (tmp_path / "images/pat0004_1_brainmask.nii.gz").unlink()
    [line] = errors("brain_tumor_mri_segmentation", tmp_path)
    assert line.startswith(f"{tmp_path}/images/pat0004_1_brainmask.nii.gz: cannot be opened")


# ---- infants


def write_iseg(folder: Path, numbers: list[int], labels: bool = True) -> dict[str, np.ndarray]:
    data = {}
    for i in numbers:
        for j, modality in enumerate(("T1", "T2")):
            data[f"{i}-{modality}"] = volume(folder / f"subject-{i}-{modality}.img", 10 * i + j)
        if labels:
            data[f"{i}-label"] = volume(folder / f"subject-{i}-label.img", i, (0, 10, 150, 250))
    return data


def test_iseg_download(tmp_path):
    data = write_iseg(tmp_path / "in", [1, 2, 9, 10])
    name = "infant_brain_mri_segmentation"
    dataset = prepared(name, tmp_path / "in", tmp_path / "out", "--fold", "3")
    assert dataset["test"] == [
        {
            "image": ["images/subject-10_T1.nii.gz", "images/subject-10_T2.nii.gz"],
            "label": "labels/subject-10.nii.gz",
        }
    ]
    assert usable(name, tmp_path / "out") == {"training": 2, "validation": 1, "test": 1}
    classes = {0: 0, 10: 1, 150: 2, 250: 3}
    for i in (1, 2, 9, 10):
        label = read(tmp_path / f"out/labels/subject-{i:02d}.nii.gz")
        assert label.dtype == np.uint8 and np.array_equal(label, np.vectorize(classes.get)(data[f"{i}-label"]))
        for modality in ("T1", "T2"):
            image = nib.load(tmp_path / f"out/images/subject-{i:02d}_{modality}.nii.gz")
            assert np.array_equal(image.dataobj, data[f"{i}-{modality}"])
            assert nib.aff2axcodes(image.affine) == ("L", "A", "S")


def test_iseg_test_data_has_no_labels(tmp_path):
    write_iseg(tmp_path / "in", [24, 25], labels=False)
    dataset = prepared("infant_brain_mri_segmentation", tmp_path / "in", tmp_path / "out")
    assert [list(item) for item in dataset["test"]] == [["image"], ["image"]] and "training" not in dataset


def test_iseg_files_that_are_missing_broken_or_labelled_otherwise(tmp_path):
    write_iseg(tmp_path, [1, 2, 3, 4])
    volume(tmp_path / "subject-3-label.img", 0, (0, 10, 100, 250))
    (tmp_path / "subject-2-T2.img").write_bytes(b"\0" * 20)
    unread, unknown = errors("infant_brain_mri_segmentation", tmp_path)
    assert unread.startswith(f"{tmp_path}/subject-2-T2.hdr: cannot be read (")
    assert unknown.startswith(f"{tmp_path}/subject-3-label.hdr: holds other labels: 100; expected 0, 10, 150, 250; ")
    (tmp_path / "subject-1-T1.img").unlink()
    (tmp_path / "subject-4-label.hdr").unlink()
    missing = errors("infant_brain_mri_segmentation", tmp_path)
    assert [line.split(": ")[0] for line in missing] == [
        f"{tmp_path}/subject-4-label.hdr",
        f"{tmp_path}/subject-1-T1.img",
    ]


@pytest.mark.data
@pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of real volumes")
@pytest.mark.parametrize(
    ("name", "folder", "counts"),
    [
        ("hippocampus_mri_segmentation", "msd_hippocampus", {"training": 140, "validation": 20, "test": 40}),
        ("brain_tumor_mri_segmentation", "brats2015", {"training": 2, "validation": 2, "test": 2}),
    ],
)
def test_the_real_volumes(tmp_path, name, folder, counts):
    prepared(name, Path(os.environ["DATA_ROOT"]) / folder, tmp_path)
    assert usable(name, tmp_path) == counts
