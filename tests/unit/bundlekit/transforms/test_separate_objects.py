"""Objects from two maps: boxes derived by hand, the erosion undone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from scipy.spatial import cKDTree

from bundlekit.transforms import ErodedTargets
from bundlekit.transforms.separate_objects import SeparateObjects, SeparateObjectsd


def _separate(seeds, mask, min_seed_px: int = 1, min_size_px: int = 1) -> np.ndarray:
    """The labels for two maps that are sure of themselves."""
    maps = np.stack([seeds, mask]).astype(np.float32)
    return SeparateObjects(min_seed_px=min_seed_px, min_size_px=min_size_px)(maps)[0]


def _drawing(*rows: str) -> np.ndarray:
    return np.array([[0 if pixel == "." else int(pixel) for pixel in row] for row in rows])


def _same_objects(labels: np.ndarray, wanted: np.ndarray) -> bool:
    pairs = np.unique(np.stack([labels.ravel(), wanted.ravel()]), axis=1)
    return len(pairs[0]) == labels.max() + 1 == len(np.unique(wanted)) and (pairs[:, 0] == 0).all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_touching_glands_of_21_and_22_columns_keep_their_columns(mirrored):
    label = np.zeros((1, 50, 60), dtype=np.int32)
    label[0, 5:45, 5:26] = 1
    label[0, 5:45, 26:48] = 2
    label = label[..., ::-1] if mirrored else label  # whichever of the two has the higher number
    labels = SeparateObjects(min_seed_px=200, min_size_px=500)(ErodedTargets(13)(label))[0]
    widths = sorted((labels[20] == number).sum() for number in (1, 2))
    assert widths == [21, 22] and _same_objects(labels, label[0])


@pytest.mark.parametrize(
    "shape, size_px, num_points", [((160, 170), 13, 40), ((160, 170), 5, 150), ((40, 36, 44), 5, 60)]
)
def test_the_erosion_is_undone(shape, size_px, num_points):
    """Cells of random points, cut to discs that overlap; only those that are boxes all over and erode to one piece."""
    points = np.random.default_rng(0).uniform(0, shape, (num_points, len(shape)))
    distance, cell = cKDTree(points).query(np.stack(np.indices(shape), axis=-1))
    reach = 0.8 * (np.prod(shape) / num_points) ** (1 / len(shape))
    label, touching = np.zeros(shape, dtype=np.int32), ndimage.generate_binary_structure(len(shape), len(shape))
    for number in range(num_points):
        eroded = ndimage.minimum_filter(((cell == number) & (distance < reach)).astype(np.uint8), size_px)
        if ndimage.label(eroded, touching)[1] == 1:
            label[ndimage.maximum_filter(eroded, size_px) > 0] = number + 1
    labels = SeparateObjects(min_seed_px=1, min_size_px=1)(ErodedTargets(size_px)(label[None]))[0]
    assert labels.max() > num_points // 4
    assert ndimage.label(label > 0)[1] < labels.max() // 2  # most of them touch another one
    assert _same_objects(labels, label)


@pytest.mark.parametrize("row, number", [(0, 1), (3, 2)])
def test_seeds_meet_half_way_whatever_their_size_and_number(row, number):
    seeds = np.zeros((7, 30), dtype=bool)
    seeds[1:, :10] = True
    seeds[row, 21] = True
    mask = np.random.default_rng(0).uniform(0.6, 1.0, seeds.shape)  # how sure it is does not matter
    # columns 10 to 14 are 1 to 5 from column 9, columns 16 to 20 are 5 to 1 from column 21, column 15 is 6 from both
    labels = np.delete(_separate(seeds, mask), 15, axis=1)
    assert (labels[:, :15] == 3 - number).all() and (labels[:, 15:] == number).all()


def test_seeds_grow_in_rings_of_the_eight_neighbours():
    seeds = np.zeros((21, 21), dtype=bool)
    seeds[2, 2] = seeds[16, 17] = True
    y, x = np.indices(seeds.shape)
    near, far = (np.maximum(abs(y - a), abs(x - b)) for a, b in ((2, 2), (16, 17)))
    labels = _separate(seeds, np.ones_like(seeds))
    assert (labels[near < far] == 1).all() and (labels[near > far] == 2).all()


def test_growth_goes_round_gaps_and_leaves_what_it_cannot_reach():
    mask = _drawing(
        "11111.1111",
        "1...1.1111",
        "1.1.1.1111",
        "1.1...1111",
        "1.111111..",
        "..........",
        "1111111111",
    )
    seeds = np.zeros_like(mask)
    seeds[0, 0], seeds[0, 9] = 1, 1
    wanted = _drawing(
        "11111.2222",
        "1...1.2222",
        "1.2.1.2222",
        "1.2...2222",
        "1.222222..",
        "..........",
        "..........",
    )
    assert np.array_equal(_separate(seeds, mask), wanted)


def test_a_seed_is_kept_whole_outside_the_mask():
    seeds = _drawing("11....", "11....")
    mask = _drawing(".111..", "......")
    assert np.array_equal(_separate(seeds, mask), _drawing("1111..", "11...."))


def test_thresholds_are_exceeded_not_met():
    maps = np.array([[[0.71, 0.0, 0.0, 0.0, 0.7]], [[0.51, 0.51, 0.5, 0.51, 0.51]]])
    labels = SeparateObjects(0.7, 0.5, min_seed_px=1, min_size_px=1)(maps)
    assert np.array_equal(labels, [[[1, 1, 0, 0, 0]]])
    assert np.array_equal(SeparateObjects(0.6, 0.5, 1, 1)(maps), [[[1, 1, 0, 2, 2]]])
    assert np.array_equal(SeparateObjects(0.7, 0.4, 1, 1)(maps), [[[1, 1, 1, 1, 1]]])


def test_small_seeds_are_left_out_before_they_grow():
    seeds = _drawing("11....1..", "11.......")
    mask = np.ones_like(seeds)
    assert np.array_equal(_separate(seeds, mask, min_seed_px=4), mask)  # the seed of one pixel stops nobody
    assert not _separate(seeds, mask, min_seed_px=5).any()


def test_small_objects_are_left_out_and_numbers_have_no_gaps():
    seeds = _drawing("1..1..1", ".......", ".......")
    mask = _drawing("1..1..1", "1..1..1", "1.....1")
    assert np.array_equal(_separate(seeds, mask, min_size_px=3), _drawing("1.....2", "1.....2", "1.....2"))
    assert _separate(seeds, mask, min_size_px=2).max() == 3
    assert not _separate(seeds, mask, min_size_px=4).any()


def test_corners_join_a_seed():
    seeds = _drawing("1....", ".1...", "..1..")
    assert np.array_equal(_separate(seeds, seeds), seeds)


def test_holes_are_filled_but_not_over_the_object_in_them():
    seeds = _drawing(
        "111111111..",
        "1.......1..",
        "1.11111.1..",
        "1.1...1.1..",
        "1.1...1.1..",
        "1.11111.1..",
        "1.......1..",
        "111111111..",
    )
    wanted = _drawing(
        "111111111..",
        "111111111..",
        "112222211..",
        "112222211..",
        "112222211..",
        "112222211..",
        "111111111..",
        "111111111..",
    )
    assert np.array_equal(_separate(seeds, seeds), wanted)
    # 9 x 8 - 5 x 4 = 52 pixels with the hole, and 20: the holes count
    assert np.array_equal(_separate(seeds, seeds, min_size_px=20), wanted)
    assert np.array_equal(_separate(seeds, seeds, min_size_px=21), wanted == 1)


def test_a_bay_at_the_border_of_the_image_is_no_hole():
    seeds = _drawing("1.1", "1.1", "111")
    assert np.array_equal(_separate(seeds, seeds), seeds)


def test_more_objects_than_a_byte_can_number():
    seeds = np.zeros((60, 60), dtype=bool)
    seeds[::3, ::3] = True
    labels = _separate(seeds, seeds)
    assert np.array_equal(labels[seeds], np.arange(1, 401)) and labels.sum() == 400 * 401 / 2


def test_nothing_found_is_an_empty_map():
    labels = SeparateObjects()(torch.zeros(2, 20, 20))
    assert labels.shape == (1, 20, 20) and labels.dtype == torch.int32 and not labels.any()


def test_dictionary_keeps_type_and_metadata():
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0]))
    maps = MetaTensor(torch.ones(2, 6, 7), affine=affine, meta={"filename_or_obj": "a.png"})
    items = SeparateObjectsd(["pred"], min_seed_px=42, min_size_px=42)({"pred": maps, "label": 1})
    assert isinstance(items["pred"], MetaTensor) and items["pred"].dtype == torch.int32 and items["label"] == 1
    assert torch.equal(items["pred"].affine, affine) and items["pred"].meta["filename_or_obj"] == "a.png"
    assert torch.equal(items["pred"].as_tensor(), torch.ones(1, 6, 7, dtype=torch.int32))
    assert _separate(np.ones((3, 3)), np.ones((3, 3))).dtype == np.int32


def test_two_maps_are_wanted():
    with pytest.raises(ValueError, match=r"got an array of shape \(1, 4, 4\); expected two probability maps"):
        SeparateObjects()(np.zeros((1, 4, 4)))
