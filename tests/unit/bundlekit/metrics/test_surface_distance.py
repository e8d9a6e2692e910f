"""Distances of surfaces against scipy's nearest neighbours of their voxels, and those of boxes and of nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from scipy import ndimage
from scipy.spatial import cKDTree

from bundlekit.metrics.surface_distance import HausdorffDistanceMm

SPACING_MM = np.array([0.7, 1.0, 2.5])


def volume(mask: np.ndarray, spacing_mm: np.ndarray = SPACING_MM) -> MetaTensor:
    """One channel; axes turned about z, so that only the lengths of the affine's columns are the spacing."""
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing_mm
    return MetaTensor(torch.as_tensor(mask[None].astype(np.float32)), affine=torch.as_tensor(affine))


def points_mm(mask: np.ndarray) -> np.ndarray:
    cross = ndimage.generate_binary_structure(3, 1)
    return np.argwhere(mask & ~ndimage.binary_erosion(mask, cross)) * SPACING_MM


@pytest.mark.parametrize("percentile", [50.0, 95.0, 100.0])
@pytest.mark.parametrize("seed", range(3))
def test_blobs_against_nearest_neighbours(percentile, seed):
    rng = np.random.default_rng(seed)
    a, b = (ndimage.gaussian_filter(rng.standard_normal((20, 24, 14)), 2) > 0.05 for _ in range(2))
    metric = HausdorffDistanceMm(include_background=True, percentile=percentile)
    metric([volume(a)], [volume(b)])
    pairs = [(points_mm(a), points_mm(b)), (points_mm(b), points_mm(a))]
    wanted = max(np.percentile(cKDTree(q).query(p)[0], percentile) for p, q in pairs)
    assert metric.aggregate().item() == pytest.approx(wanted, rel=1e-5)  # distances in float32


def test_volumes_of_several_sizes_and_spacings_are_means_of_their_channels():
    metric = HausdorffDistanceMm(percentile=100)
    for shape, spacing in (((9, 9, 9), 1.0), ((12, 9, 15), 2.0)):
        truth, found = np.zeros((2, 3, *shape), bool)
        truth[1, 2:5, 2:5, 2:5], found[1, 2:5, 4:7, 2:5] = True, True  # 2 voxels off
        truth[2, 2:5, 2:5, 2:5], found[2, 2:5, 2:5, 2:5] = True, True
        affine = torch.diag(torch.tensor([spacing] * 3 + [1.0]))
        metric([torch.as_tensor(found)], [MetaTensor(torch.as_tensor(truth), affine=affine)])
    assert metric.get_buffer().tolist() == [[2, 0], [4, 0]]  # without the background
    assert metric.aggregate().item() == (1 + 2) / 2


@pytest.mark.parametrize(("found", "there", "distance_mm"), [(0, 0, 0.0), (0, 1, 373.13), (1, 0, 373.13), (1, 1, 0.0)])
def test_empty_labels_score_as_in_brats(found, there, distance_mm):
    masks = np.zeros((2, 240, 240, 155), bool)
    masks[0, 100:110, 100:110, 70:80], masks[1, 100:110, 100:110, 70:80] = found, there
    metric = HausdorffDistanceMm(include_background=True)
    metric([volume(masks[0], np.ones(3))], [volume(masks[1], np.ones(3))])
    assert metric.aggregate().item() == pytest.approx(distance_mm, abs=0.005)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_batch_has_a_spacing_for_each_of_its_volumes(dims):
    """Boxes that are 2 voxels apart along the first axis, and an empty one that scores the diagonal."""
    shape = (9, 8, 7)[:dims]
    truth, found = np.zeros((2, 2, *shape), bool)
    for masks, first in ((truth, 2), (found, 4)):
        masks[(slice(None), slice(first, first + 3), *[slice(2, 5)] * (dims - 1))] = True
    found[0] = truth[0]  # the background, which does not count
    items = []
    for spacing_mm in (1.5, 3.0):
        affine = torch.diag(torch.tensor([spacing_mm, 1.0, 1.0, 1.0], dtype=torch.float64))
        items.append({"label": MetaTensor(torch.as_tensor(truth), affine=affine), "pred": torch.as_tensor(found)})
    [batch] = DataLoader(items, batch_size=2)
    batch["pred"] = MetaTensor(batch["pred"], meta=batch["label"].meta)
    metric = HausdorffDistanceMm(percentile=100)
    assert metric(batch["pred"], batch["label"]).tolist() == [[3.0], [6.0]] == metric.get_buffer().tolist()
    one_by_one = HausdorffDistanceMm(percentile=100)
    one_by_one([item["pred"] for item in items], [item["label"] for item in items])
    assert one_by_one.get_buffer().tolist() == [[3.0], [6.0]]
    batch["pred"][1] = False
    diagonal_mm = np.linalg.norm(np.array([3.0, 1, 1][:dims]) * shape)
    np.testing.assert_allclose(metric(batch["pred"], batch["label"]), [[3.0], [diagonal_mm]], rtol=1e-6)
    whole = MetaTensor(torch.as_tensor(np.stack([truth, truth])), affine=items[0]["label"].affine)
    assert metric(torch.as_tensor(np.stack([found, found])), whole).tolist() == [[3.0], [3.0]]


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"percentile is 0; expected a number above 0"):
        HausdorffDistanceMm(percentile=0)
    with pytest.raises(TypeError, match="y is a Tensor; expected a MetaTensor"):
        HausdorffDistanceMm()(torch.zeros(1, 2, 3, 3, 3), torch.zeros(1, 2, 3, 3, 3))
    with pytest.raises(ValueError, match="got no volume"):
        HausdorffDistanceMm().aggregate()
