"""Headers that were damaged byte by byte, and grids that were moved by known distances."""

from __future__ import annotations

import gzip
import struct
from contextlib import nullcontext
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt

from bundlekit.errors import InputError
from bundlekit.inputs.entries import check_item
from bundlekit.inputs.grids import Grid
from bundlekit.inputs.headers import check_header, check_resampled
from bundlekit.inputs.images import check_image

PIXDIM_BYTE = 76  # of the header of NIfTI-1 and Analyze; eight floats, the sizes of a voxel behind the first
SROW_BYTE = 280  # three rows of four floats
COS, SIN = 0.8, 0.6
# x runs to the front; y and z are turned about it; voxels measure 0.9 x 2 x 1.5 mm
OBLIQUE = np.array([[0, -2 * COS, 1.5 * SIN, 40], [0.9, 0, 0, -7], [0, 2 * SIN, 1.5 * COS, 3], [0, 0, 0, 1]])


def save(path: Path, affine: np.ndarray | None = None, shape: tuple[int, ...] = (5, 4, 3)) -> str:
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return str(path)


def fault(path: str, **changes) -> str:
    """What is wrong with one volume, without the file's name, which must stand first."""
    with pytest.raises(InputError) as caught:
        check_image(path, **{"spatial_dims": 3, "channels": 1, **changes})
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    return line[len(f"{path}: ") :]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_sizes_of_a_voxel_that_readers_mend_in_silence(tmp_path, ending, size):
    path = Path(save(tmp_path / f"a{ending}"))
    opened = gzip.open if ending == ".nii.gz" else open
    with opened(path, "rb") as file:
        content = bytearray(file.read())
    content[PIXDIM_BYTE + 8 : PIXDIM_BYTE + 12] = struct.pack("<f", size)
    with opened(path, "wb") as file:
        file.write(bytes(content))
    assert fault(str(path)) == (
        f"its header gives a voxel size of 1 x {size:g} x 1 mm; expected positive sizes; correct its pixdim, or "
        "convert it again from the scanner's files"
    )


def test_nifti_2_and_pairs_of_files_are_right(tmp_path):
    data = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
    nib.save(nib.Nifti2Image(data, OBLIQUE), tmp_path / "two.nii")
    nib.save(nib.Nifti1Pair(data, OBLIQUE), tmp_path / "pair.img")
    for name in ("two.nii", "pair.hdr"):
        grid = check_image(str(tmp_path / name), 3, 1)
        assert np.allclose(grid.affine, OBLIQUE, atol=1e-5), name  # float32 in the header


def test_analyze_holds_no_orientation(tmp_path):
    nib.save(nib.AnalyzeImage(np.ones((5, 4, 3), np.float32), None), tmp_path / "a.img")
    assert fault(str(tmp_path / "a.hdr")) == (
        "is an Analyze file, which holds no orientation; expected a NIfTI file; convert it with the bundle's "
        "scripts/prepare_data.py"
    )


CODES_BYTE = 252  # two short integers, qform_code and sform_code


def test_codes_that_say_nothing_of_the_orientation(tmp_path):
    path = Path(save(tmp_path / "a.nii", OBLIQUE))
    content = bytearray(path.read_bytes())
    content[CODES_BYTE : CODES_BYTE + 4] = struct.pack("<2h", 0, 0)
    path.write_bytes(content)
    assert fault(str(path)) == (
        "its header holds no orientation (qform_code and sform_code are 0); expected one of them above 0; convert it "
        "again from the scanner's files, or set its sform if you know it"
    )
    content[CODES_BYTE : CODES_BYTE + 4] = struct.pack("<2h", 0, 1)
    path.write_bytes(content)
    assert np.allclose(check_image(str(path), 3, 1).affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_affine_that_readers_replace_by_the_identity(tmp_path, value):
    path = Path(save(tmp_path / "a.nii", OBLIQUE))
    content = bytearray(path.read_bytes())
    content[SROW_BYTE + 4 : SROW_BYTE + 8] = struct.pack("<f", value)
    path.write_bytes(content)
    assert fault(str(path)) == (
        "its affine has values that are not finite; expected a matrix of finite numbers; correct its qform or sform, "
        "or convert it again from the scanner's files"
    )


QUATERN_B_BYTE = 256


def test_a_qform_that_is_not_finite(tmp_path):
    path = Path(save(tmp_path / "a.nii"))
    content = bytearray(path.read_bytes())
    content[CODES_BYTE : CODES_BYTE + 4] = struct.pack("<2h", 1, 0)
    content[QUATERN_B_BYTE : QUATERN_B_BYTE + 4] = struct.pack("<f", float("nan"))
    path.write_bytes(bytes(content))
    assert fault(str(path)).startswith("its affine has values that are not finite; expected a matrix of finite")


def with_sform(path: Path, sform: np.ndarray, qform: np.ndarray, qform_code: int = 1) -> str:
    """A volume with two forms, of which the qform agrees with the size of the voxels in the header."""
    image = nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(5, 4, 3), np.eye(4))
    image.header.set_qform(qform, qform_code)
    image.header.set_sform(sform, 1)
    nib.save(nib.Nifti1Image(image.dataobj, None, image.header), path)
    return str(path)


@pytest.mark.parametrize("qform_code", [0, 1])
def test_an_sform_that_monai_would_replace_by_the_qform(tmp_path, qform_code):
    path = with_sform(tmp_path / "a.nii", np.eye(4), np.diag([7.0, 7, 7, 1]), qform_code)
    # the last of 5 x 4 x 3 voxels lies 4, 3 and 2 times 6 mm from where the sform has it: 6 * 29 ** 0.5
    assert fault(path) == (
        "its sform has a voxel size of 1 x 1 x 1 mm and its pixdim of 7 x 7 x 7 mm, so that the positions of voxels "
        "differ by up to 32.3 mm; expected the same in both; save it with the correct size; if the sform is correct, "
        "by image.set_qform(image.affine, 1) in nibabel"
    )
    image = nib.load(path)
    image.set_qform(image.affine, 1)  # the remedy
    nib.save(image, tmp_path / "b.nii")
    assert np.allclose(check_image(str(tmp_path / "b.nii"), 3, 1).affine, np.eye(4))


def test_two_forms_that_both_fit_may_differ_and_rounding_is_no_fault(tmp_path):
    turned = with_sform(tmp_path / "turned.nii", OBLIQUE, np.diag([0.9, 2, 1.5, 1]))
    assert np.allclose(check_image(turned, 3, 1).affine, OBLIQUE, atol=1e-5)  # the sform, as in other programs
    rounded = with_sform(tmp_path / "rounded.nii", np.diag([1.0002, 1, 1, 1]), np.eye(4))
    assert np.allclose(check_image(rounded, 3, 1).affine, np.eye(4), atol=1e-3)


def test_what_resampling_leaves_nothing_of_is_refused():
    metres = Grid((36, 50, 36), np.diag([0.001, 0.001, 0.001, 1]))
    with pytest.raises(
        InputError, match=r"become 1 x 1 x 1 voxels of 1 x 1 x 1 mm; expected at least 4 along each axis; "
    ):
        check_resampled("a.nii", metres, 1.0)
    check_resampled("a.nii", Grid((36, 50, 3), np.diag([0.5, 0.5, 0.5, 1])), 1.0)  # 3 slices become 2
    check_resampled("a.nii", Grid((8, 8, 8), np.diag([0.5, 0.5, 0.5, 1])), 1.0)


def test_only_what_resampling_makes_too_large_is_refused():
    check_resampled("a.nii", Grid((512, 512, 512), np.eye(4)), 1)
    check_resampled("a.nii", Grid((600, 600, 600), np.eye(4)), 1)  # as large as it was
    check_resampled("a.nii", Grid((1000, 1000, 1000), np.diag([0.1, 0.1, 0.1, 1])), 1)
    for spacing_mm in (0.49, 0.01):
        with pytest.raises(InputError, match=r"its voxels of 1 x 1 x 1 mm become .* expected at most 512 x 512 x 512"):
            check_resampled("a.nii", Grid((256, 256, 256), np.eye(4)), spacing_mm)


@pytest.mark.parametrize("axes", ["RAS", "SPL", "ASR"])
@pytest.mark.parametrize(
    ("shape", "edges_mm", "spacing_mm", "is_left_out"),
    [
        ((500, 500, 100), (1, 1, 40), (1, 1, 0), False),
        ((500, 500, 100), (1, 1, 40), 1, True),  # cubes of 1 mm would be forty times as many
        ((900, 900, 300), (0.8, 0.8, 0.1), (0.8, 0.8, 0), False),
        ((900, 900, 300), (0.8, 0.8, 0.1), 0.4, False),  # cubes of 0.4 mm would be as many
        ((900, 900, 300), (0.8, 0.8, 0.1), (0.4, 0.4, 0), True),  # but all thin slices stay
    ],
)
def test_slices_that_keep_their_distance_are_not_resampled(axes, shape, edges_mm, spacing_mm, is_left_out):
    order = axcodes2ornt(axes)[:, 0].astype(int)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(edges_mm)[:, order]
    grid = Grid(tuple(np.array(shape)[order]), affine)
    with pytest.raises(InputError, match="expected at most 512 x 512 x 512") if is_left_out else nullcontext():
        check_resampled("a.nii", grid, spacing_mm)


@pytest.mark.parametrize("ending", [".txt", ".nii", ".hdr"])
def test_what_is_no_volume_is_left_to_the_reader(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_text("no volume")
    assert check_header(path) is None


def test_directions_that_span_no_volume(tmp_path):
    flat = OBLIQUE.copy()
    flat[:3, 2] = flat[:3, 0]  # z runs along x
    path = Path(save(tmp_path / "a.nii", OBLIQUE))
    content = bytearray(path.read_bytes())
    content[SROW_BYTE : SROW_BYTE + 48] = struct.pack("<12f", *flat[:3].ravel())
    content[PIXDIM_BYTE + 12 : PIXDIM_BYTE + 16] = struct.pack("<f", 0.9)  # else readers turn to the qform
    path.write_bytes(content)
    assert "is singular; expected three linearly independent axes" in fault(str(path))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_affine_that_is_not_finite(tmp_path, value):
    path = Path(save(tmp_path / "a.nii", OBLIQUE))
    content = bytearray(path.read_bytes())
    content[SROW_BYTE + 12 : SROW_BYTE + 16] = struct.pack("<f", value)
    path.write_bytes(content)
    assert fault(str(path)).startswith("its affine has values that are not finite; expected a matrix of finite")


def test_several_volumes_in_one_file(tmp_path):
    path = save(tmp_path / "a.nii.gz", shape=(5, 4, 3, 2))
    assert fault(path, channels=2) == (
        "holds several volumes (5 x 4 x 3 x 2); expected one volume of 3 dimensions; split it, as fslsplit or "
        "nibabel.four_to_three do, and list the files in the order of the modalities"
    )
    assert "holds several volumes" in fault(save(tmp_path / "b.nii.gz", shape=(5, 4, 3, 1, 2)))


def test_a_volume_of_one_value(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((5, 4, 3), np.uint8), OBLIQUE), tmp_path / "a.nii")
    line = "has the value 0 everywhere; expected different intensities; export it again, or remove it"
    assert fault(str(tmp_path / "a.nii")) == line


def test_the_largest_distance_is_that_of_a_corner():
    # 2 mm wide voxels against 1 mm: the last of 10 lies 9 mm off along x, and a shift by 12 along z is at right angles
    other = np.diag([2.0, 1, 1, 1])
    other[2, 3] = 12
    assert Grid((10, 7, 5), np.eye(4)).distance_mm(Grid((10, 7, 5), other)) == pytest.approx(15)  # 9, 12, 15


@pytest.mark.parametrize("shift_mm", [0.01, 3.0])
def test_modalities_on_other_grids(tmp_path, shift_mm):
    moved = OBLIQUE.copy()
    moved[1, 3] += shift_mm
    first, second = save(tmp_path / "a_t1.nii", OBLIQUE), save(tmp_path / "a_t2.nii", moved)
    with pytest.raises(InputError) as caught:
        check_image([first, second], 3, 2)
    assert str(caught.value) == (
        f"{second}: its voxels are up to {shift_mm:.3g} mm away from the voxels of {first}; expected the same affine; "
        "resample it to the same grid"
    )


@pytest.mark.parametrize(("shift_mm", "right"), [(0.01, True), (1.0, False)])  # the smallest edge is 0.9 mm
def test_a_label_on_another_grid(tmp_path, shift_mm, right):
    moved = OBLIQUE.copy()
    moved[0, 3] -= shift_mm
    item = {"image": save(tmp_path / "a.nii", OBLIQUE), "label": save(tmp_path / "b.nii", moved)}
    problems = check_item(item, ("image", "label"), 3, 1, range(60))
    line = (
        f"{item['label']}: its voxels are up to 1 mm away from the voxels of its image {item['image']}; expected "
        "the same affine; pair it with its own image"
    )
    assert [str(problem) for problem in problems] == ([] if right else [line])


def test_a_volume_that_itk_reads_lies_where_it_says(tmp_path):
    image = itk.image_from_array(np.arange(60, dtype=np.float32).reshape(3, 4, 5))  # z, y, x
    image.SetSpacing([2.0, 1.0, 3.0])
    image.SetOrigin([10.0, 20.0, 30.0])
    itk.imwrite(image, str(tmp_path / "a.nrrd"))
    grid = check_image(str(tmp_path / "a.nrrd"), 3, 1)
    assert grid.shape == (5, 4, 3)
    # ITK counts from right to left and from front to back, NIfTI the other way round
    assert np.allclose(grid.affine, [[-2, 0, 0, -10], [0, -1, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])
    assert grid.spacing_mm.tolist() == [2, 1, 3]
