"""The chests that the lung bundle's limits are measured on: their truth against what can be counted, and the table."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from bundlekit.phantoms.thorax import thorax
from bundlekit.transforms.lungs import separate_lungs

PATH = Path(__file__).resolve().parents[2] / "studies/lungs.py"
SPEC = importlib.util.spec_from_file_location("lung_limits", PATH)
limits = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(limits)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(limits, "SIZE", 80)
    monkeypatch.setattr(limits, "FIELD", 72)


@pytest.mark.parametrize(
    "case", ["adults", "children", pytest.param("infants_narrow_field", marks=pytest.mark.slow), "coarse", "oblique"]
)
def test_dark_voxels_in_the_body_have_the_lungs_volume(case):
    """A threshold finds the lungs of these: whatever the grid, they are whole and where its affine says."""
    volume = limits.CASES[case](np.random.default_rng([7, 0]))
    labels, _ = separate_lungs(volume.hu < -450, volume.hu, volume.affine)
    voxel_ml = abs(np.linalg.det(volume.affine)) / 1000
    for name, value in limits.LUNGS.items():
        assert (labels == value).sum() * voxel_ml == pytest.approx(volume.truth_ml[name], rel=0.04)


def middle_mm(volume) -> np.ndarray:
    labels, _ = separate_lungs(volume.hu < -450, volume.hu, volume.affine)
    return volume.affine[:3] @ [*np.argwhere(labels > 0).mean(axis=0), 1]


@pytest.mark.parametrize("case", ["coarse", "oblique", "lungs_900_hu"])
def test_another_grid_or_density_is_of_the_same_chest_at_its_place(case):
    plain, other = (limits.CASES[name](np.random.default_rng([7, 1])) for name in ("adults", case))
    assert other.truth_ml == plain.truth_ml
    assert np.linalg.norm(middle_mm(other) - middle_mm(plain)) < 1


@pytest.mark.parametrize("mean_hu", [-950, -650])
def test_lungs_get_their_density(mean_hu):
    phantom = thorax(np.random.default_rng([7, 2]), 80, stature=1)
    changed = limits.with_density(phantom, mean_hu)
    air = (phantom.label > 0) & (phantom.image < -500)
    assert changed.image[air].mean() == pytest.approx(mean_hu, abs=3)  # what falls below -1024 is cut
    assert np.array_equal(changed.image[~air], phantom.image[~air])


def test_the_side_of_a_volume_cuts_a_fifth_of_the_right_lung():
    phantom = thorax(np.random.default_rng([7, 3]), 80, stature=1)
    volume = limits.cut_by_side(phantom)
    start = phantom.image.shape[0] - volume.hu.shape[0]
    assert np.array_equal(volume.hu, phantom.image[start:])
    assert np.allclose(volume.affine @ [0, 0, 0, 1], phantom.affine @ [start, 0, 0, 1])
    voxel_ml = abs(np.linalg.det(phantom.affine)) / 1000
    all_ml = {name: (phantom.label == value).sum() * voxel_ml for name, value in limits.LUNGS.items()}
    assert volume.truth_ml["right"] == pytest.approx(0.8 * all_ml["right"], rel=0.05)
    assert volume.truth_ml["left"] == pytest.approx(all_ml["left"])


def test_padding_leaves_what_lies_in_its_circle():
    phantom = thorax(np.random.default_rng([7, 4]), 80, stature=1)
    volume = limits.cut_by_padding(phantom)
    kept = volume.hu != -3024
    assert kept[..., 0].mean() == pytest.approx(np.pi * 0.3**2, rel=0.02)
    voxel_ml = abs(np.linalg.det(phantom.affine)) / 1000
    for name, value in limits.LUNGS.items():
        assert volume.truth_ml[name] == pytest.approx(((phantom.label == value) & kept).sum() * voxel_ml)
        assert 0.7 < volume.truth_ml[name] / phantom.truth[f"{name}_ml"] < 0.95


def test_table_has_the_mean_and_the_worst_error_of_each_case():
    truth_ml = {
        "a_b-0.nii.gz": {"right": 100.0, "left": 200.0},
        "a_b-1.nii.gz": {"right": 50.0, "left": 100.0},
        "c-0.nii.gz": {"right": 10.0, "left": 10.0},
    }
    found_ml = {"c-0.nii.gz": (10, 0), "a_b-1.nii.gz": (50, 97), "a_b-0.nii.gz": (101, 200)}
    volumes = [
        {"image": name, "right": {"volume_ml": right}, "left": {"volume_ml": left}, "both": {"volume_ml": right + left}}
        for name, (right, left) in found_ml.items()
    ]
    # 1, 0, 0 and -3 %
    assert limits.table_of_errors(volumes, truth_ml).splitlines()[2:] == [
        "| a_b | 4 | -0.5 % | -3.0 % |",
        "| c | 2 | -50.0 % | -100.0 % |",
    ]
