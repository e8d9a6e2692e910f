"""Ellipsoids cut flat against counted voxels, and what may be taken for lung."""

from __future__ import annotations

import numpy as np
import pytest

from bundlekit.phantoms.thorax import _Lung, thorax

PHANTOMS = [thorax(np.random.default_rng(seed), 64, stature=1) for seed in range(3)]


def voxel_ml(phantom):
    return abs(np.linalg.det(phantom.affine)) / 1000


def positions(phantom, where):
    return np.argwhere(where) @ phantom.affine[:3, :3].T + phantom.affine[:3, 3]


@pytest.mark.parametrize("phantom", PHANTOMS)
def test_lungs_have_the_volumes_of_their_ellipsoids_and_lie_on_their_sides(phantom):
    for value, name in ((1, "right"), (2, "left")):
        lung = phantom.label == value
        # a surface through N voxels of a body of V moves the count by some sqrt(N) of V: under 1 % at this size
        assert lung.sum() * voxel_ml(phantom) == pytest.approx(phantom.truth[f"{name}_ml"], rel=0.015)
        assert (positions(phantom, lung)[:, 0] > 0).all() == (name == "right")


def test_a_child_is_a_small_grown_up():
    child, grown_up = (thorax(np.random.default_rng(0), 64, stature=stature) for stature in (0.5, 1))
    for name in ("right_ml", "left_ml", "nodule_ml"):
        assert child.truth[name] == pytest.approx(grown_up.truth[name] / 8)
    lung = child.label == 1
    assert lung.sum() * voxel_ml(child) == pytest.approx(
        child.truth["right_ml"], rel=0.05
    )  # of an eighth of the voxels


def test_every_other_patient_is_a_child():
    ml = [thorax(np.random.default_rng(seed), 64).truth["right_ml"] for seed in range(24)]
    least = min(phantom.truth["right_ml"] for phantom in PHANTOMS)
    assert 4 <= sum(volume < 0.5 * least for volume in ml) <= 16 and min(ml) < 0.1 * least
    assert min(thorax(np.random.default_rng(seed), 32).truth["right_ml"] for seed in range(8)) > 0.5 * least


def test_the_truth_is_that_of_a_ball_cut_flat():
    """Of a ball of radius 1 the part beyond a cut 0.5 from its centre is pi / 3 (1 - 0.5)^2 (3 - 0.5), by its cap."""
    half_axes = np.array([50.0, 80, 120])
    whole, cap = 4 / 3 * np.pi, np.pi / 3 * 0.5**2 * 2.5
    lung = _Lung(np.zeros(3), half_axes, 0.5)
    assert lung.volume_ml() == pytest.approx((whole - cap) * half_axes.prod() / 1000)
    points = np.random.default_rng(0).uniform(-1, 1, (200_000, 3)) * half_axes
    # the share of 200,000 points has a standard deviation of 0.1 %
    assert lung.contains(points).mean() * 8 == pytest.approx(whole - cap, rel=0.01)


@pytest.mark.parametrize("phantom", PHANTOMS)
def test_other_dark_places_are_as_large_as_lungs_and_as_dark(phantom):
    dark, lung = phantom.image < -500, phantom.label > 0
    assert np.mean(dark[lung]) > 0.8  # all but vessels, nodule and surface
    xyz = positions(phantom, dark & ~lung)
    windpipe = (np.hypot(xyz[:, 0], xyz[:, 1] + 15) < 10) & (xyz[:, 2] > 40)
    assert windpipe.sum() * voxel_ml(phantom) > 5
    back = positions(phantom, phantom.image > -500)[:, 1].min()  # of the table
    assert ((xyz[:, 1] > back) & (xyz[:, 1] < -110)).any()
    assert phantom.image.min() >= -1024 and phantom.image.max() <= 3071 and phantom.image.dtype == np.int16


@pytest.mark.parametrize("phantom", PHANTOMS)
def test_the_nodule_is_tissue_in_a_lung(phantom):
    centre = np.linalg.inv(phantom.affine) @ [*phantom.truth["nodule_mm"], 1]
    index = tuple(np.rint(centre[:3]).astype(int))
    assert phantom.label[index] > 0 and phantom.image[index] > -400
    assert 4 / 3 * np.pi * 0.6**3 < phantom.truth["nodule_ml"] < 4 / 3 * np.pi * 1.4**3


def test_too_small_a_phantom_is_named():
    with pytest.raises(ValueError, match="size is 31 voxels; expected at least 32"):
        thorax(np.random.default_rng(0), 31)
