"""Series written by ITK's GDCM writer, with slope and intercept, against the values and places that went in."""

from __future__ import annotations

import shutil

import itk
import numpy as np
import pytest
from monai.transforms import LoadImage

from bundlekit.errors import InputError
from bundlekit.inputs.datalists import find_images
from bundlekit.inputs.dicom import check_dicom, is_series
from bundlekit.inputs.images import check_image

AFFINE = np.eye(4)  # oblique, of 0.7 x 0.8 x 5 mm, x and y as scanners have them
AFFINE[:3, :3] = np.array([[-1, 0, 0], [0, -0.96, 0.28], [0, 0.28, 0.96]]) * [0.7, 0.8, 5]
AFFINE[:3, 3] = 11, -7, 100


@pytest.fixture
def hu() -> np.ndarray:
    return 2 * np.random.default_rng(0).integers(-512, 500, (6, 5, 4))


def fault(folder) -> str:
    with pytest.raises(InputError) as caught:
        check_image(str(folder), 3, 1)
    line = str(caught.value)
    assert line.startswith(f"{folder}: ") and "\n" not in line
    return line.removeprefix(f"{folder}: ")


def test_a_series_is_one_volume_in_hounsfield_units_at_its_place(write_series, hu, tmp_path):
    write_series(tmp_path / "s", hu, AFFINE)
    stored = itk.GDCMImageIO.New()
    stored.SetFileName(str(tmp_path / "s/IM000"))
    stored.ReadImageInformation()
    assert (stored.GetRescaleSlope(), stored.GetRescaleIntercept()) == (2, -1024)
    grid = check_image(str(tmp_path / "s"), 3, 1)
    assert grid.shape == hu.shape and np.allclose(grid.affine, AFFINE)
    assert np.array_equal(LoadImage(image_only=True)(tmp_path / "s"), hu)


def test_series_are_found_alone_and_beside_files(write_series, hu, tmp_path, monkeypatch):
    write_series(tmp_path / "in/a", hu, AFFINE)
    write_series(tmp_path / "in/b", hu, AFFINE, uid="1.2.4")
    (tmp_path / "in/c.nii.gz").touch()
    (tmp_path / "in/empty").mkdir()
    (tmp_path / "in/a/AAA.txt").write_text("not an image, and first by name")
    assert [item["image"] for item in find_images(tmp_path / "in")] == [
        str(tmp_path / "in" / name) for name in ("a", "b", "c.nii.gz")
    ]
    assert find_images(tmp_path / "in/a") == [{"image": str(tmp_path / "in/a")}]
    monkeypatch.chdir(tmp_path / "in/a")
    assert find_images(".") == [{"image": str(tmp_path / "in/a")}]  # "." names no output
    assert not is_series(tmp_path / "in") and not is_series(tmp_path / "in/empty")


def test_two_series_in_one_folder(write_series, hu, tmp_path):
    write_series(tmp_path / "s", hu, AFFINE)
    write_series(tmp_path / "t", hu, AFFINE, uid="1.2.4")
    for path in (tmp_path / "t").iterdir():
        shutil.copy(path, tmp_path / "s" / f"other_{path.name}")
    assert fault(tmp_path / "s") == "holds 2 DICOM series; expected one; put each series into a folder of its own"


def test_a_missing_slice(write_series, hu, tmp_path):
    write_series(tmp_path / "s", hu, AFFINE, skip=(2,))
    found = "its slices are 5 to 10 mm apart; expected equal distances; "
    assert fault(tmp_path / "s") == found + "copy the missing slices, or resample the series"


def test_a_single_slice(write_series, hu, tmp_path):
    write_series(tmp_path / "s", hu[..., :1], AFFINE)
    assert "expected" in fault(tmp_path / "s")


def test_a_truncated_file(write_series, hu, tmp_path):
    write_series(tmp_path / "s", hu, AFFINE)
    path = tmp_path / "s/IM001"
    path.write_bytes(path.read_bytes()[:-40])
    assert "; expected " in fault(tmp_path / "s")


def test_files_with_the_ending_of_dicom_that_are_none(tmp_path):
    (tmp_path / "a.dcm").write_text("text")
    assert is_series(tmp_path)
    with pytest.raises(InputError, match="holds 0 DICOM series; expected one"):
        check_dicom(tmp_path)


def replace_in(path, tag: bytes, old: bytes, new: bytes) -> None:
    """Change a value of a DICOM file to one of the same length, behind its tag."""
    content = path.read_bytes()
    start = content.index(tag)
    at = content.index(old, start)
    assert len(old) == len(new) and at - start < 40
    path.write_bytes(content[:at] + new + content[at + len(old) :])


@pytest.mark.parametrize("which", [["IM000"], ["IM002"], ["IM000", "IM001", "IM002", "IM003"]])
def test_a_series_of_inverted_values_is_left_out(which, write_series, hu, tmp_path):
    write_series(tmp_path / "s", hu, AFFINE)
    for name in which:
        replace_in(tmp_path / "s" / name, b"\x28\0\x04\0", b"MONOCHROME2", b"MONOCHROME1")
    with pytest.raises(InputError) as caught:
        check_image(str(tmp_path / "s"), 3, 1)
    assert str(caught.value) == (
        f"{tmp_path / 's' / which[0]}: has the PhotometricInterpretation MONOCHROME1, whose larger values are darker; "
        "expected MONOCHROME2; export it again as MONOCHROME2, or as NIfTI"
    )


@pytest.mark.parametrize(
    ("tag", "old", "new"),
    [(b"\x28\0\x30\0", b".8", b".9"), (b"\x20\0\x37\0", b"1\\", b"0\\")],
    ids=["pixel spacing", "orientation"],
)
def test_slices_of_another_spacing_or_orientation_are_left_out(tag, old, new, write_series, hu, tmp_path):
    write_series(tmp_path / "s", hu, AFFINE)
    replace_in(tmp_path / "s/IM002", tag, old, new)
    found = (
        "1 of its 4 slices differ from the first in orientation or spacing; expected one volume of parallel slices; "
    )
    assert fault(tmp_path / "s") == found + "put the slices of each orientation and spacing into a folder of their own"
