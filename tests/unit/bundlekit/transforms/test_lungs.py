"""Phantoms whose lungs are known, with all that is as dark as lung and is none, on grids of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

from bundlekit.phantoms import Phantom
from bundlekit.phantoms.thorax import thorax
from bundlekit.transforms.lungs import LEFT, RIGHT, SeparateLungsd
from bundlekit.transforms.lungs import separate_lungs as separate_and_count

AXES = ["RAS", "LPS", "SPL", "PIR", "ASR"]


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return thorax(np.random.default_rng(3), 64, stature=1)


def separate_lungs(mask: np.ndarray, hu: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return separate_and_count(mask, hu, affine)[0]


def reoriented(phantom: Phantom, array: np.ndarray, axes: str) -> tuple[np.ndarray, np.ndarray]:
    change = ornt_transform(io_orientation(phantom.affine), axcodes2ornt(axes))
    return apply_orientation(array, change), phantom.affine @ inv_ornt_aff(change, array.shape)


def balls(phantom: Phantom, *centres_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, phantom.label.shape), indexing="ij"), axis=-1)
    xyz = index @ phantom.affine[:3, :3].T + phantom.affine[:3, 3]
    return np.any([np.linalg.norm(xyz - centre, axis=-1) <= radius_mm for centre in centres_mm], axis=0)


@pytest.mark.parametrize("axes", AXES)
def test_all_that_is_dark_gives_the_lungs_whatever_the_axes(chest, axes):
    """Thresholding at -500 takes air, the table's foam, windpipe and gas as well."""
    image, affine = reoriented(chest, chest.image, axes)
    wanted, _ = reoriented(chest, chest.label, axes)
    dark = image < -500
    assert dark.sum() > 5 * (wanted > 0).sum()
    found = separate_lungs(dark, image, affine)
    # nodule, vessels and the last half voxel of the surface are brighter than the threshold
    assert not found[wanted == 0].any() and np.isin(found[wanted == RIGHT], (0, RIGHT)).all()
    assert np.isin(found[wanted == LEFT], (0, LEFT)).all()
    assert all((found == side).sum() > 0.9 * (wanted == side).sum() for side in (RIGHT, LEFT))


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("thickness_mm", [8, 20])
def test_lungs_that_touch_are_parted_where_they_touch(chest, axes, thickness_mm):
    bridge = balls(chest, *((x, 30.0, 10.0) for x in range(-60, 61, 3)), radius_mm=thickness_mm / 2)
    label, affine = reoriented(chest, chest.label, axes)
    mask = reoriented(chest, (chest.label > 0) | bridge, axes)[0]
    assert ndimage.label(mask)[1] == 1
    found = separate_lungs(mask, reoriented(chest, chest.image, axes)[0], affine)
    assert np.array_equal(found > 0, mask)
    for side in (RIGHT, LEFT):
        assert (found[label == side] == side).mean() > 0.995


def test_lungs_joined_as_thickly_as_they_are_wide_are_parted_at_the_midline(chest):
    x = np.argwhere(chest.label > 0)[:, 0]
    mask = np.zeros_like(chest.label, bool)
    mask[x.min() : x.max() + 1, 26:38, 12:30] = True  # 72 mm thick
    found = separate_lungs(mask, np.where(mask, -800, chest.image), chest.affine)
    assert np.array_equal(found > 0, mask)
    right, left = (np.argwhere(found == side)[:, 0] for side in (RIGHT, LEFT))
    assert right.max() < left.min()  # x runs to the left in this file
    assert abs(right.max() + 0.5 - (mask.shape[0] - 1) / 2) <= 1  # the body stands in the middle


@pytest.mark.parametrize("side", [RIGHT, LEFT])
@pytest.mark.parametrize("axes", AXES)
def test_one_lung_alone_is_on_its_own_side(chest, side, axes):
    mask, affine = reoriented(chest, chest.label == side, axes)
    # where the other lung was there is fluid
    hu = np.where((chest.label > 0) & (chest.label != side), 10, chest.image)
    found = separate_lungs(mask, reoriented(chest, hu, axes)[0], affine)
    assert np.array_equal(found, side * mask)


def test_what_the_network_took_of_windpipe_gas_table_and_air_is_dropped(chest):
    windpipe = balls(chest, *((0.0, -15.0, z) for z in range(60, 150, 4)), radius_mm=8) & (chest.image < -500)
    gas = balls(chest, (-80.0, 25.0, -110.0), radius_mm=30) & (chest.image < -900)
    air = np.zeros_like(chest.label, bool)
    air[:, :12] = chest.image[:, :12] < -900  # in front of the patient, larger than a lung
    foam = np.zeros_like(air)
    foam[:, -14:] = (chest.image < -800)[:, -14:]
    for dirt in (windpipe, gas, air, foam):
        assert dirt.any() and not chest.label[dirt].any()
    mask = (chest.label > 0) | windpipe | gas | air | foam
    assert np.array_equal(separate_lungs(mask, chest.image, chest.affine), chest.label)


def test_lungs_at_the_side_of_a_cropped_volume_stay(chest):
    """Where the crop has opened the chest, lung is distinguished from air by its density."""
    x = np.argwhere(chest.label > 0)[:, 0]
    box = np.s_[x.min() + 5 : x.max() - 5, 16:48, 8:30]
    label, affine = chest.label[box], chest.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [x.min() + 5, 16, 8]
    assert label[0].any() and label[-1].any()
    assert np.array_equal(separate_lungs(label > 0, chest.image[box], affine), label)


def test_emphysema_at_the_side_of_a_cropped_volume_stays(chest):
    """As light as foam, it lies between the walls of the chest."""
    x = np.argwhere(chest.label > 0)[:, 0]
    box = np.s_[x.min() + 5 : x.max() - 5, :48]
    label, affine = chest.label[box], chest.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [x.min() + 5, 0, 0]
    assert label[0].any() and label[-1].any()
    hu = np.where(label > 0, chest.image[box] - chest.image[chest.label > 0].mean() - 945, chest.image[box])
    assert np.array_equal(separate_lungs(label > 0, hu, affine), label)


def test_padding_is_no_lung_and_what_it_cuts_open_stays(chest):
    x, y = np.indices(chest.label.shape[:2]) - 31.5
    padded = np.broadcast_to((np.hypot(x, y) > 18)[..., None], chest.label.shape)
    hu, lung = np.where(padded, -3024, chest.image), chest.label > 0
    assert 0.05 < padded[lung].mean() < 0.3
    found = separate_lungs(lung | padded, hu, chest.affine)
    assert np.array_equal(found, np.where(padded, 0, chest.label))


@pytest.mark.parametrize("overlap_mm", [4, 8])
def test_foam_of_a_table_that_touches_the_body_is_dropped(overlap_mm):
    """Table and body are one piece of tissue, which closes around the foam."""
    affine = np.diag([-4.0, -4, 10, 1])
    index = np.stack(np.meshgrid(*map(np.arange, (96, 76, 12)), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(index * [-4, -4, 10] + [190, 130, -55], -1, 0)
    body = np.hypot(x / 160, y / 110) <= 1
    depth_mm = -110 + overlap_mm - y
    table = ~body & (depth_mm >= 0) & (depth_mm <= 40) & (np.abs(x) < 180)
    foam = table & (depth_mm >= 8) & (depth_mm <= 32) & (np.abs(x) < 172) & (np.abs(z) < 50)
    label = sum(side * (np.hypot((x - sign * 70) / 45, y / 65) <= 1) for side, sign in ((RIGHT, 1), (LEFT, -1)))
    label = np.where(np.abs(z) < 50, label, 0)
    hu = np.select([label > 0, foam, table | body], [-850, -930, 40], -1000)
    assert ndimage.label(hu > -500)[1] == 1 and foam.sum() > 0.2 * (label > 0).sum()
    assert ndimage.binary_fill_holes(hu[..., 6] > -500)[foam[..., 6]].all()
    assert np.array_equal(separate_lungs((label > 0) | foam, hu, affine), label)


@pytest.mark.parametrize(("radius_mm", "is_lung"), [(20, False), (50, True)])
def test_a_second_lung_of_less_than_a_tenth_is_counted(chest, radius_mm, is_lung):
    small = balls(chest, (-70.0, 0.0, 0.0), radius_mm=radius_mm)
    mask = (chest.label == RIGHT) | small
    hu = np.where(chest.label == LEFT, 40, chest.image)
    hu[small] = -850
    voxel_ml = abs(np.linalg.det(chest.affine)) / 1000
    assert (small.sum() < 0.1 * (chest.label == RIGHT).sum()) != is_lung
    labels, left_out_ml = separate_and_count(mask, hu, chest.affine)
    assert np.array_equal(labels == RIGHT, chest.label == RIGHT) and (labels == LEFT).any() == is_lung
    assert left_out_ml == {"right": 0, "left": 0 if is_lung else pytest.approx(small.sum() * voxel_ml)}


def test_a_volume_without_lungs(chest):
    assert not separate_lungs(np.zeros_like(chest.label), chest.image, chest.affine).any()
    mask = np.zeros_like(chest.label)
    mask[30:33, 30:33, 5:8] = 1
    assert not separate_lungs(mask, np.full(mask.shape, -1000), chest.affine).any()  # no body, no side: air


@pytest.mark.parametrize("pixels", [2, 3])  # 0.72 and 1.08 cm2
def test_what_is_smaller_than_the_lung_of_a_newborn_is_none(chest, pixels):
    assert np.allclose(np.abs(chest.affine[:2, :2]), np.diag([6, 6]))
    inside = np.argwhere(chest.label == RIGHT)
    x, y, z = inside[np.argmin(np.abs(inside - inside.mean(axis=0)).sum(axis=1))]
    mask = np.zeros_like(chest.label)
    mask[x : x + pixels, y, z - 3 : z + 4] = 1
    assert separate_lungs(mask, chest.image, chest.affine).any() == (pixels == 3)


def test_the_transform_keeps_place_and_name(chest):
    meta = {"affine": torch.as_tensor(chest.affine), "filename_or_obj": "a.nii.gz"}
    item = {
        "hu": torch.as_tensor(chest.image)[None],
        "pred": MetaTensor(0.2 + 0.6 * torch.as_tensor(chest.label > 0).float()[None], meta=meta),
    }
    pred = SeparateLungsd("pred")(item)["pred"]
    assert np.array_equal(pred[0], chest.label) and pred.dtype == torch.uint8
    assert np.array_equal(pred.affine, chest.affine) and pred.meta["filename_or_obj"] == "a.nii.gz"
    assert not SeparateLungsd("pred", threshold=0.85)(item)["pred"].any()
    with pytest.raises(ValueError, match=r"have shapes .*; expected \(1, x, y, z\) for both"):
        SeparateLungsd("pred")({**item, "hu": item["hu"][..., 1:]})


def test_what_a_lung_encloses_is_part_of_it(chest):
    nodule = balls(chest, tuple(chest.truth["nodule_mm"]), radius_mm=12)
    assert (chest.label[nodule] > 0).all()
    assert np.array_equal(separate_lungs((chest.label > 0) & ~nodule, chest.image, chest.affine), chest.label)
