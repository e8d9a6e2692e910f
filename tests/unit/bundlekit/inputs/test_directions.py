"""Volumes of every format with and without an orientation, as images and as labels."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import tifffile

from bundlekit.errors import InputError
from bundlekit.inputs.entries import check_item
from bundlekit.inputs.images import check_image
from tests.dicom_files import write_frames

VALUES = np.arange(60, dtype=np.int16).reshape(3, 4, 5)  # z, y, x
AFFINE = np.array([[-2.0, 0, 0, -10], [0, -1, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nendian: little\nencoding: raw\n"
SPACE = "space: {}\nspace directions: ({},0,0) (0,{},0) (0,0,3)\nspace origin: ({},{},30)\n"
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 5 4 3\nElementType = MET_SHORT\n"
MATRIX, SPACING = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 10 20 30\n", "ElementSpacing = 2 1 3\n"


def save_text(path: Path, header: str) -> None:
    path.write_bytes(header.encode() + VALUES.astype("<i2").tobytes())


def save_nifti(path: Path, code: int) -> None:
    image = nib.Nifti1Image(VALUES.T, None)
    image.header.set_zooms((2, 1, 3))
    if code:
        image.set_sform(AFFINE, code)
    nib.save(image, path)


WITH = {
    "lps.nrrd": lambda path: save_text(path, NRRD + SPACE.format("left-posterior-superior", 2, 1, 10, 20) + "\n"),
    "ras.nrrd": lambda path: save_text(path, NRRD + SPACE.format("RAS", -2, -1, -10, -20) + "\n"),
    "las.nrrd": lambda path: save_text(path, NRRD + SPACE.format("left-anterior-superior", 2, -1, 10, -20) + "\n"),
    "a.mha": lambda path: save_text(path, META + MATRIX + SPACING + "ElementDataFile = LOCAL\n"),
    "a.nii.gz": lambda path: save_nifti(path, 1),
}
WITHOUT = {
    "small.mha": (
        lambda path: save_text(path, META + MATRIX.lower() + SPACING + "ElementDataFile = LOCAL\n"),
        "its header holds no orientation (no TransformMatrix)",
    ),
    "behind.mha": (
        lambda path: save_text(path, META + SPACING + "ElementDataFile = LOCAL\n" + MATRIX),
        "its header holds no orientation (no TransformMatrix)",
    ),
    "small spacing.mha": (
        lambda path: save_text(path, META + MATRIX + SPACING.lower() + "ElementDataFile = LOCAL\n"),
        "its header gives no voxel size (no ElementSpacing)",
    ),
    "a.nrrd": (lambda path: save_text(path, NRRD + "spacings: 2 1 3\n\n"), "its header holds no orientation (no field"),
    "b.nrrd": (
        lambda path: save_text(path, NRRD + SPACE.format("scanner-xyz", 2, 1, 10, 20) + "\n"),
        "its header holds no orientation (its space is scanner-xyz)",
    ),
    "c.nrrd": (
        lambda path: save_text(path, NRRD + "space: left-posterior-superior\n\n"),
        "its header holds no orientation (no three vectors",
    ),
    "a.mha": (
        lambda path: save_text(path, META + SPACING + "ElementDataFile = LOCAL\n"),
        "its header holds no orientation (no TransformMatrix); expected a TransformMatrix",
    ),
    "b.mha": (
        lambda path: save_text(path, META + MATRIX + "ElementDataFile = LOCAL\n"),
        "its header gives no voxel size (no ElementSpacing); expected an ElementSpacing",
    ),
    "a.nii.gz": (lambda path: save_nifti(path, 0), "its header holds no orientation (qform_code and sform_code are 0)"),
    "a.img": (lambda path: nib.save(nib.AnalyzeImage(VALUES.T, None), path), "is an Analyze file, which holds no"),
    "a.tif": (
        lambda path: tifffile.imwrite(path, VALUES, photometric="minisblack"),
        "is of a format that holds no orientation; expected NIfTI",
    ),
    "a.npy": (lambda path: np.save(path, VALUES.T), "is of a format that holds no orientation; expected NIfTI"),
    "a.vtk": (
        lambda path: itk.imwrite(itk.image_from_array(VALUES), str(path)),
        "is of a format that holds no orientation; expected NIfTI",
    ),
}


@pytest.mark.parametrize("name", WITH)
def test_what_holds_an_orientation_is_read_to_its_place(tmp_path, name):
    WITH[name](tmp_path / name)
    assert np.allclose(check_image(str(tmp_path / name), 3, 1).affine, AFFINE)


@pytest.mark.parametrize("name", WITHOUT)
def test_what_holds_none_is_refused_as_an_image_and_as_a_label(tmp_path, name):
    write, found = WITHOUT[name]
    write(tmp_path / name)
    with pytest.raises(InputError) as caught:
        check_image(str(tmp_path / name), 3, 1)
    assert str(caught.value).startswith(f"{tmp_path / name}: {found}")
    WITH["lps.nrrd"](tmp_path / "image.nrrd")
    item = {"image": str(tmp_path / "image.nrrd"), "label": str(tmp_path / name)}
    [problem] = check_item(item, ("image", "label"), 3, 1, range(60))
    assert str(problem).startswith(f"{tmp_path / name}: {found}")


def test_a_label_that_lies_otherwise_than_its_image(tmp_path):
    save_text(tmp_path / "image.nrrd", NRRD + SPACE.format("left-posterior-superior", 2, 1, 10, 20) + "\n")
    save_text(tmp_path / "label.nrrd", NRRD + SPACE.format("scanner-xyz", 2, 1, 10, 20) + "\n")
    save_text(tmp_path / "mirrored.nrrd", NRRD + SPACE.format("RAS", 2, 1, 10, 20) + "\n")
    for name, found in (("label", "its header holds no orientation"), ("mirrored", "its voxels are up to")):
        item = {"image": str(tmp_path / "image.nrrd"), "label": str(tmp_path / f"{name}.nrrd")}
        [problem] = check_item(item, ("image", "label"), 3, 1, range(60))
        assert str(problem).startswith(f"{item['label']}: {found}")


def test_a_dicom_file_read_by_another_reader_to_another_place(tmp_path):
    """MONAI's reader takes frames as they follow each other."""
    write_frames(tmp_path / "a.dcm", VALUES.T, AFFINE, [2, 1, 0])
    with pytest.raises(InputError, match=r"a.dcm: its (first slice is read|slices are sheared)"):
        check_image(str(tmp_path / "a.dcm"), 3, 1)
