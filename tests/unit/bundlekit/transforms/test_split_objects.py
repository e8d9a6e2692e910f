"""Objects from one map: touching discs parted at their necks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from bundlekit.transforms.split_objects import SplitObjects, SplitObjectsd


def _same_objects(labels: np.ndarray, wanted: np.ndarray) -> bool:
    pairs = np.unique(np.stack([labels.ravel(), wanted.ravel()]), axis=1)
    return len(pairs[0]) == labels.max() + 1 == len(np.unique(wanted)) and (pairs[:, 0] == 0).all()


def overlapping_discs(centres, radius_px, shape) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.any([np.hypot(y - row, x - column) < radius_px for row, column in centres], axis=0)


@pytest.mark.parametrize("radius_px", [5, 10, 25])
@pytest.mark.parametrize("apart", [1.4, 1.6, 1.9, 2.5])
def test_two_discs_are_cut_halfway(radius_px, apart):
    column = radius_px + 3 + round(apart * radius_px)
    centres = [(radius_px + 2, radius_px + 2), (radius_px + 2, column)]
    mask = overlapping_discs(centres, radius_px, (2 * radius_px + 5, column + radius_px + 5))
    labels = SplitObjects()(mask[None].astype(np.float32))[0]
    assert labels.dtype == np.int32 and labels.max() == 2 and np.array_equal(labels > 0, mask)
    middle = (centres[0][1] + column) / 2
    columns = np.broadcast_to(np.arange(mask.shape[1]), mask.shape)
    first = labels[centres[0]]
    assert (labels[mask & (columns < middle - 1)] == first).all()
    assert (labels[mask & (columns > middle + 1)] == labels[centres[1]]).all() and labels[centres[1]] != first


def test_round_and_long_objects_stay_whole():
    y, x = np.mgrid[:60, :120]
    for mask in (np.hypot(y - 30, x - 60) < 20, np.hypot((y - 30) / 10, (x - 60) / 40) < 1, (y > 20) & (x < 100)):
        assert SplitObjects()(mask[None].astype(np.float32)).max() == 1


def test_necks_shallower_than_asked_are_not_cut():
    """Discs of radius 10 whose centres are 14 px apart have a neck of half-width sqrt(100 - 49) = 7.1."""
    mask = overlapping_discs([(15, 15), (15, 29)], 10, (30, 45))
    assert [int(SplitObjects(depth_px=d, sigma_px=0)(mask[None]).max()) for d in (1, 4)] == [2, 1]


def test_holes_are_filled_but_not_over_other_objects():
    ring = overlapping_discs([(20, 20)], 15, (40, 40)) & ~overlapping_discs([(20, 20)], 9, (40, 40))
    with_core = ring | overlapping_discs([(20, 20)], 4, (40, 40))
    labels = SplitObjects()(with_core[None].astype(np.float32))[0]
    assert labels.max() == 2 and labels[20, 20] != labels[20, 7] and (labels[20, 6:35] > 0).all()
    assert SplitObjects()(ring[None].astype(np.float32)).max() == 1


def test_small_parts_are_left_out_and_numbers_have_no_gaps():
    mask = np.zeros((1, 20, 60), np.float32)
    for i, size in enumerate((3, 6, 2, 7, 5)):
        mask[0, 5 : 5 + size, 12 * i : 12 * i + size] = 0.9
    labels = SplitObjects(min_size_px=20)(mask)
    assert np.bincount(labels.ravel())[1:].tolist() == [36, 49, 25]
    assert SplitObjects(threshold=0.95)(mask).max() == 0
    assert SplitObjects(min_size_px=20, max_objects=3)(mask).max() == 3
    with pytest.raises(ValueError, match="found 5 objects; expected at most 4: increase min_size_px"):
        SplitObjects(max_objects=4)(mask)


@pytest.mark.parametrize("turned", [False, True])
def test_a_long_piece_is_split_in_windows_as_it_is_in_one(turned, monkeypatch):
    """A chain of discs from border to border, with a second row of them where two windows meet."""
    chain = [(20 + row % 7, 8 + 15 * row) for row in range(100)]
    branch = [(35 + row % 5, 960 + 14 * row) for row in range(12)]
    mask = overlapping_discs(chain + branch, 9.5, (50, 1510))
    mask = mask.T if turned else mask
    assert ndimage.label(mask)[1] == 1
    labels = SplitObjects()(mask[None])[0]
    monkeypatch.setattr("bundlekit.transforms.split_objects._WINDOW_PX", 2000)
    whole = SplitObjects()(mask[None])[0]
    assert whole.max() > 90 and _same_objects(labels, whole)


def test_a_sheet_that_fills_several_windows_is_labelled_without_gaps():
    mask = np.ones((1, 30, 3000), bool)
    mask[0, 10:13, 700:703] = False
    labels = SplitObjects()(mask)[0]
    assert (labels > 0).all() and np.array_equal(np.unique(labels), np.arange(1, labels.max() + 1))


def test_splitting_keeps_meta_data_and_refuses_several_channels():
    image = MetaTensor(torch.ones(1, 9, 9), meta={"name": "a"})
    data = {"pred": image, "other": 1}
    labels = SplitObjectsd("pred")(data)["pred"]
    assert labels.meta["name"] == "a" and labels.dtype == torch.int32 and bool((labels == 1).all())
    with pytest.raises(ValueError, match=r"shape \(2, 9, 9\); expected one probability map"):
        SplitObjects()(np.ones((2, 9, 9)))
