"""One phantom as different scanners and programs write it: the same Hounsfield units come out of each."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage

from bundlekit.inputs.checks import RunChecks
from bundlekit.phantoms.thorax import thorax
from bundlekit.transforms.hounsfield import HounsfieldUnitsd, find_offset, note_units

FILL, PADDING = 200, (-2000, -3024)


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    return thorax(np.random.default_rng(0), 48, stature=1).image


def outside_circle(chest: np.ndarray) -> np.ndarray:
    """Where a scanner has no data: beyond the circle that fits into a slice."""
    x, y = np.ogrid[-1 : 1 : chest.shape[0] * 1j, -1 : 1 : chest.shape[1] * 1j]
    return np.broadcast_to((np.hypot(x, y) > 1)[..., None], chest.shape)


def brought(path) -> np.ndarray:
    return HounsfieldUnitsd("image")({"image": LoadImage(image_only=True)(path)})["image"].numpy()


def test_hounsfield_units_stay(chest):
    assert find_offset(chest) == 0 and note_units("a", chest) is None
    assert np.array_equal(HounsfieldUnitsd("image")({"image": torch.as_tensor(chest)})["image"], chest)


def test_unsigned_values_with_slope_and_intercept_in_the_header(chest, tmp_path):
    image = nib.Nifti1Image(((chest.astype(int) + 1024) // 2).astype(np.uint16), np.eye(4))
    image.header.set_slope_inter(2, -1024)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.array_equal(brought(tmp_path / "a.nii.gz"), (chest.astype(int) + 1024) // 2 * 2 - 1024)


def test_unsigned_values_without_an_intercept_lose_1024(chest, tmp_path):
    stored = (chest.astype(int) + 1024).astype(np.uint16)
    nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii.gz")
    assert np.array_equal(brought(tmp_path / "a.nii.gz"), chest)
    note = str(note_units("a.nii.gz", stored))
    assert note.startswith(
        f"a.nii.gz: holds values from {stored.min()} to {stored.max()}, as if stored without intercept; "
    )
    assert note.endswith("; 1024 is subtracted: export it with its rescale intercept if that is wrong")


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("offset", [0, 1024])
def test_padding_becomes_dense_and_does_not_hide_an_offset(chest, padding, offset):
    outside = outside_circle(chest)
    assert 0.1 < outside.mean() < 0.3  # 1 - pi / 4 = 0.21 of a fine grid
    stored = np.where(outside, padding, chest.astype(int) + offset)
    hu = HounsfieldUnitsd("image")({"image": torch.as_tensor(stored)})["image"].numpy()
    assert (hu[outside] == FILL).all() and np.array_equal(hu[~outside], chest[~outside])


@pytest.mark.parametrize("axis", [0, 2])
def test_all_slices_are_looked_at_whatever_their_number(axis):
    """Every eighth of eight million values is of the first slice, which is padding."""
    stored = np.full((1000, 1000, 8), 1064, np.int16)
    stored[:400] = 24
    stored = np.moveaxis(stored, 2, axis)
    stored[(slice(None),) * axis + (0,)] = -2000
    assert find_offset(stored) == 1024


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(0, 255, 5000),  # a picture of 8 bits
        np.random.default_rng(0).gamma(2, 200, 5000),  # a magnetic resonance image
        np.linspace(-1, 1, 5000),  # normalised
        np.linspace(-100, 300, 5000),  # a CT of the head, without air
        np.full(5000, -2000.0),  # only padding
    ],
    ids=["8 bits", "MR", "normalised", "no air", "padding"],
)
def test_what_is_no_chest_is_noted_in_one_line(values):
    assert find_offset(values) is None
    line = str(note_units("x.nii", values))
    assert line.startswith("x.nii: holds values from ") and "\n" not in line
    assert "; expected a CT volume in Hounsfield units (air -1000, water 0); export it with its rescale slope" in line


def test_a_run_speaks_of_it_and_goes_on(chest, tmp_path, capsys):
    names = {"ct.nii.gz": chest, "grey.nii.gz": (chest.astype(int) + 1024) // 17}
    for name, values in names.items():
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.eye(4)), tmp_path / name)
    checks = RunChecks(spatial_dims=3, channels=1, examine=note_units)
    assert len(checks.images(tmp_path)) == 2
    checks.start([1])
    checks.finish()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {tmp_path}/grey.nii.gz: holds values from 0 to ")


def test_what_is_kept_beside_tells_padding_from_air(chest):
    outside = outside_circle(chest)
    stored = np.where(outside, -3024, chest.astype(int) + 1024)
    item = HounsfieldUnitsd("image", raw_key="raw")({"image": torch.as_tensor(stored)})
    assert np.array_equal(item["raw"], stored - 1024) and item["image"].min() == chest[~outside].min()
