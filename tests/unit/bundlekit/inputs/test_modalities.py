"""Names of files in the layouts of BraTS, iSeg and of others that say nothing."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bundlekit.errors import InputError
from bundlekit.inputs.checks import RunChecks
from bundlekit.inputs.datalists import find_images
from bundlekit.inputs.modalities import group_files, pick_files

BRATS = ["flair", "t1", "t1ce", "t2"]


@pytest.mark.parametrize(
    ("paths", "modalities", "picked"),
    [
        (["x/B_t2.nii", "x/B_t1.nii", "x/B_flair.nii", "x/B_t1ce.nii"], BRATS, [2, 1, 3, 0]),
        (["B_t2.nii.gz", "B_t1.nii.gz", "B_FLAIR.nii.gz", "B_T1CE.nii.gz", "B_seg.nii.gz"], ["flair", "t1ce"], [2, 3]),
        (["subject-1-T2.hdr", "subject-1-T1.hdr"], ["T1", "T2"], [1, 0]),
        (["t1.nii", "t2.nii"], ["t2", "t1"], [1, 0]),
        (["a_0000.nii", "a_0001.nii"], ["t1", "t2"], [0, 1]),
        (["first.nii", "at1.nii"], ["t1", "t2"], [0, 1]),  # at1 is a word of its own
    ],
)
def test_files_come_in_the_order_of_the_modalities(paths, modalities, picked):
    assert pick_files(paths, modalities) == [paths[i] for i in picked]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a_t1.nii", "a_flair.nii", "a_t2.nii"], "has no file for t1ce next to it"),
        (["a_t1.nii"], "has no file for flair, t1ce, t2 next to it"),
        (["a.nii", "b.nii", "c.nii"], "has no file for flair, t1, t1ce, t2 next to it"),
        (
            ["a_t1.nii", "b_t1.nii", "a_t2.nii", "a_flair.nii"],
            "has no file for t1ce and 2 files for t1 next to it",
        ),
    ],
)
def test_a_modality_that_is_missing_or_there_twice(paths, found):
    with pytest.raises(InputError) as caught:
        pick_files(paths, BRATS)
    assert str(caught.value).startswith(f"{paths[0]}: {found}; expected one for each of flair, t1, t1ce, t2; ")


def test_cases_of_a_folder_are_kept_apart():
    paths = ["d/a_t1.nii", "d/a_t2.nii", "d/a_seg.nii", "d/a_b_t1.nii", "e/a_t1.nii", "d/notes_t1.txt.bak2"]
    assert group_files(paths, ["t1", "t2"]) == [["d/a_t1.nii", "d/a_t2.nii"], ["d/a_b_t1.nii"], ["e/a_t1.nii"]]


def write(folder, *names: str) -> list[str]:
    for name in names:
        nib.save(nib.Nifti1Image(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), np.eye(4)), folder / name)
    return [str(folder / name) for name in names]


def test_a_folder_and_one_file_of_a_case(tmp_path):
    a1, a2, b1, _ = write(tmp_path, "a_t1.nii", "a_t2.nii", "b_t1.nii", "b_seg.nii")
    assert find_images(tmp_path, ["t1", "t2"]) == [{"image": [a1, a2]}, {"image": [b1]}]
    assert find_images(a2, ["t1", "t2"]) == [{"image": [a1, a2]}]
    with pytest.raises(InputError, match=r"b_seg.nii: has a name without a modality; expected files such as case_t1"):
        find_images(tmp_path / "b_seg.nii", ["t1", "t2"])


def test_a_case_without_all_modalities_is_left_out(tmp_path, capsys):
    a1, a2, b1 = write(tmp_path, "a_t1.nii", "a_t2.nii", "b_t1.nii")
    checks = RunChecks(spatial_dims=3, channels=2, modalities=["t2", "t1"])
    assert checks.images(tmp_path) == [{"image": [a2, a1]}]
    checks.start([1])
    assert f"left out: {b1}: has no file for t2 next to it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        checks.finish()


def test_an_empty_label_is_used_and_spoken_of(tmp_path, capsys):
    (image,) = write(tmp_path, "a.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "label.nii")
    (tmp_path / "dataset.json").write_text('{"training": [{"image": "a.nii", "label": "label.nii"}]}')
    checks = RunChecks(spatial_dims=3, channels=1, label_values=[0, 1])
    assert checks.section(tmp_path, "training") == [{"image": image, "label": str(tmp_path / "label.nii")}]
    checks.start([1])
    assert capsys.readouterr().err == (
        f"note: {tmp_path}/label.nii: has only background; expected at least one label; keep it if that is correct; "
        "otherwise draw its labels or remove the entry\n"
    )
    checks.finish()
