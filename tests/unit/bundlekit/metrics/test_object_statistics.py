"""The measures of objects against numbers worked out by hand and against plain loops over all objects and pixels."""

from __future__ import annotations

from math import hypot, isnan

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.spatial.distance import cdist
from skimage.segmentation import expand_labels

from bundlekit.metrics import ObjectStatistics, object_statistics

ROUNDING = 1e-12  # relative, float64, sums of some ten terms

NOTHING = np.zeros((3, 4), dtype=int)


def _row(text: str) -> np.ndarray:
    """A map of one row from its digits, "." for 0."""
    return np.array([[int(digit) for digit in text.replace(".", "0")]])


def _counts(statistics: ObjectStatistics) -> tuple[float, float, float]:
    return statistics.num_tp, statistics.num_fp, statistics.num_fn


def _measures(statistics: ObjectStatistics) -> tuple[float, float, float]:
    return statistics.f1, statistics.object_dice, statistics.object_hausdorff


def _random_objects(seed: int, shape=(24, 30), num_objects=7, radius_px=4.0, num_specks=6) -> np.ndarray:
    """Discs that touch and cut each other, and some pixels anywhere that belong to one of the discs or to none."""
    rng = np.random.default_rng(seed)
    flat = np.zeros(np.prod(shape), dtype=int)
    flat[rng.choice(flat.size, num_objects, replace=False)] = np.arange(1, num_objects + 1)
    objects = expand_labels(flat.reshape(shape), radius_px)
    objects.flat[rng.choice(flat.size, num_specks)] = rng.integers(0, num_objects + 1, num_specks)
    return objects


def _brute_force(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """F1, object-level Dice and Hausdorff distance by their definitions, each object a set of pixels."""

    def objects(labels: np.ndarray) -> list[set[tuple[int, ...]]]:
        return [set(map(tuple, np.argwhere(labels == k).tolist())) for k in np.unique(labels) if k > 0]

    def partner(one, others):
        overlapping = [other for other in others if one & other]
        return min(overlapping, key=lambda other: (-len(one & other), len(other), min(other)), default=None)

    def hausdorff(one, other):
        distances = cdist(list(one), list(other))
        return max(distances.min(axis=0).max(), distances.min(axis=1).max())

    def side(own, others):
        dice = distance = 0.0
        for one in own:
            match = partner(one, others)
            if match is None:
                distance += len(one) * min(hausdorff(one, other) for other in others)
            else:
                dice += len(one) * 2 * len(one & match) / (len(one) + len(match))
                distance += len(one) * hausdorff(one, match)
        area = sum(map(len, own))
        return dice / area, distance / area

    s, g = objects(prediction), objects(truth)
    matches = [(one, partner(one, g)) for one in s]
    num_tp = len({min(match) for one, match in matches if match and len(one & match) / len(match) >= 0.5})
    precision, recall = num_tp / len(s), num_tp / len(g)
    dice, distance = np.mean([side(g, s), side(s, g)], axis=0)
    return 2 * precision * recall / (precision + recall) if num_tp else 0.0, dice, distance


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_objects": 25, "radius_px": 1.0},  # many without a partner, many equal overlaps
        {"shape": (9, 8, 7), "radius_px": 2.5},
    ],
    ids=["discs", "small", "volume"],
)
def test_equals_plain_loops(seed, options):
    prediction, truth = _random_objects(seed, **options), _random_objects(100 + seed, **options)
    near = np.roll(truth, 1, axis=0)
    for pair in ((prediction, truth), (near, truth)):
        assert _measures(object_statistics(*pair)) == pytest.approx(_brute_force(*pair), rel=ROUNDING)


def test_shifted_square():
    # one column of four is lost and one won: 12 of 16 pixels, Dice 24 / 32, every pixel at most one column away
    truth, prediction = np.zeros((2, 6, 6), dtype=int)
    truth[1:5, 0:4] = 1
    prediction[1:5, 1:5] = 9
    statistics = object_statistics(prediction, truth)
    assert statistics == ObjectStatistics(1, 0, 0, 16, 16, 16 * 0.75, 16 * 0.75, 16, 16)
    assert _measures(statistics) == (1, 0.75, 1)


@pytest.mark.parametrize(("prediction", "counts"), [("..77..", (1, 0, 0)), ("...7..", (0, 1, 1))])
def test_half_of_an_object_is_enough_to_detect_it(prediction, counts):
    assert _counts(object_statistics(_row(prediction), _row("1111.."))) == counts


def test_two_halves_detect_one_object_once():
    # each half has Dice 2 * 2 / (2 + 4) with the whole, whose far end is 2 pixels away
    statistics = object_statistics(_row("1122"), _row("3333"))
    assert _counts(statistics) == (1, 1, 0)
    assert _measures(statistics) == pytest.approx((2 / 3, 2 / 3, 2), rel=ROUNDING)


def test_merged_objects():
    # the partner of the one predicted object is 2, so that 1 is missed although it is covered. Dice with 1 is
    # 2 * 4 / (4 + 10), with 2 2 * 6 / (6 + 10); the far end is 6 pixels from 1 and 4 from 2
    statistics = object_statistics(_row("3333333333"), _row("1111222222"))
    assert _counts(statistics) == (1, 0, 1)
    dice = ((4 * 4 / 7 + 6 * 3 / 4) / 10 + 3 / 4) / 2
    distance = ((4 * 6 + 6 * 4) / 10 + 4) / 2
    assert _measures(statistics) == pytest.approx((2 / 3, dice, distance), rel=ROUNDING)


def test_background_is_no_partner():
    # 7 of the 10 predicted pixels, and 5 of the 8 true ones, lie on background, yet the two are partners:
    # Dice 2 * 3 / 18, and the predicted object ends 7 pixels after the true one, which begins 5 before it
    statistics = object_statistics(_row(".....2222222222"), _row("11111111......."))
    assert _counts(statistics) == (0, 1, 1)  # 3 of 8
    assert _measures(statistics) == pytest.approx((0, 1 / 3, 7), rel=ROUNDING)
    # 8 of 12 predicted pixels on background, and all 4 true ones covered
    statistics = object_statistics(_row("222222222222"), _row("....1111...."))
    assert _counts(statistics) == (1, 0, 0)
    assert _measures(statistics) == pytest.approx((1, 2 * 4 / 16, 4), rel=ROUNDING)


def test_without_overlap_the_smallest_hausdorff_distance_counts():
    # the predicted pixel in column 11 is 2 from the end of 1 but 11 from its other one; 2 is 4 away from it
    statistics = object_statistics(_row("...........5...."), _row("1111111111.....2"))
    assert _counts(statistics) == (0, 1, 2)
    assert _measures(statistics) == pytest.approx((0, 0, ((10 * 11 + 1 * 4) / 11 + 4) / 2), rel=ROUNDING)


def test_equal_overlaps_go_to_the_smaller_object():
    # 3 shares 2 pixels with 1 (5 pixels) and 2 (3 pixels): it detects 2, with Dice 2 * 2 / 7; 1 has 2 * 2 / 9 with it
    statistics = object_statistics(_row("...3333.."), _row("11111222."))
    assert _counts(statistics) == (1, 0, 1)
    assert statistics.object_dice == pytest.approx(((5 * 4 / 9 + 3 * 4 / 7) / 8 + 4 / 7) / 2, rel=ROUNDING)


def test_the_farthest_pixel_may_be_inside_an_object():
    # the centre of the block is 3 from the ring round it, all its border pixels 2 or less; the ring's corners are
    # 2 sqrt 2 from the block
    ring = np.pad(np.zeros((5, 5), dtype=int), 1, constant_values=1)
    block = np.pad(np.ones((3, 3), dtype=int), 2)
    assert object_statistics(block, ring).object_hausdorff == 3


def test_volume():
    # a box moved by half its depth; and two voxels (2, 3, 6) apart, sqrt(4 + 9 + 36) = 7
    truth, prediction = np.zeros((2, 7, 8, 9), dtype=int)
    truth[2:4, 2:4, 2:4] = prediction[2:4, 2:4, 3:5] = 1
    assert _measures(object_statistics(prediction, truth)) == (1, 0.5, 1)
    truth[:], prediction[:] = 0, 0
    truth[1, 1, 1] = prediction[3, 4, 7] = 1
    assert _measures(object_statistics(prediction, truth)) == (0, 0, 7)


@pytest.mark.parametrize("objects", [_random_objects(0), np.ones((4, 5), dtype=int), NOTHING])
def test_perfect(objects):
    num_objects = len(np.unique(objects[objects > 0]))
    statistics = object_statistics(objects, objects)
    assert _counts(statistics) == (num_objects, 0, 0)
    assert _measures(statistics) == pytest.approx((1, 1, 0), rel=ROUNDING)


def test_a_side_without_an_object():
    # the image's diagonal, sqrt(9 + 16), stands for the distance to nothing; the side without an object is left out
    objects = NOTHING.copy()
    objects[0, :2], objects[2, 3] = 1, 2
    missed, invented = object_statistics(NOTHING, objects), object_statistics(objects, NOTHING)
    assert (_counts(missed), _counts(invented)) == ((0, 0, 2), (0, 2, 0))
    assert _measures(missed) == _measures(invented) == (0, 0, hypot(3, 4))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_more_than_255_objects(dtype):
    truth = np.arange(1, 401, dtype=dtype).reshape(20, 20)
    assert _counts(object_statistics(truth, truth)) == (400, 0, 0)
    # every other row lost: 200 detected, and each lost pixel 1 from its nearest
    prediction = truth.copy()
    prediction[1::2] = 0
    statistics = object_statistics(prediction, truth)
    assert _counts(statistics) == (200, 0, 200)
    assert _measures(statistics) == pytest.approx((2 / 3, 3 / 4, 1 / 4), rel=ROUNDING)


@pytest.mark.parametrize("seed", range(5))
def test_ids_and_their_order_do_not_matter(seed):
    prediction, truth = _random_objects(seed, num_objects=25, radius_px=1), _random_objects(50 + seed, num_objects=25)
    rng = np.random.default_rng(seed)
    new_ids, other_ids = ([0, *rng.choice(np.arange(1, 5000), 25, replace=False)] for _ in range(2))
    renamed = np.array(new_ids)[prediction], np.array(other_ids)[truth]
    assert object_statistics(*renamed) == object_statistics(prediction, truth)


@pytest.mark.parametrize("seed", range(5))
def test_swapping_the_maps_keeps_dice_and_distance(seed):
    prediction, truth = _random_objects(seed), _random_objects(50 + seed, num_objects=12)
    one, other = object_statistics(prediction, truth), object_statistics(truth, prediction)
    assert _measures(one)[1:] == pytest.approx(_measures(other)[1:], rel=ROUNDING)


def test_statistics_add_up_to_those_of_all_images():
    # one true object of 5 pixels missed in an image of diagonal 5; then 15 pixels found. Means: F1, Dice 1 / 2
    missed = NOTHING.copy()
    missed[0, :], missed[1, 0] = 1, 1
    found = np.ones((3, 5), dtype=int)
    total = object_statistics(NOTHING, missed) + object_statistics(found, found)
    assert total == ObjectStatistics(1, 0, 1, 20, 15, 15, 15, 25, 0)
    assert _measures(total) == (2 / 3, (15 / 20 + 15 / 15) / 2, (25 / 20 + 0 / 15) / 2)


def test_without_distances():
    prediction, truth = _random_objects(1), _random_objects(2)
    whole, part = object_statistics(prediction, truth), object_statistics(prediction, truth, hausdorff=False)
    assert _measures(part)[:2] == _measures(whole)[:2]
    assert isnan(part.object_hausdorff) and isnan(part.truth_hausdorff) and isnan(part.prediction_hausdorff)


@pytest.mark.parametrize("as_type", [torch.tensor, MetaTensor, lambda objects: objects.astype(np.uint8)])
def test_types(as_type):
    prediction, truth = _random_objects(3), _random_objects(4)
    assert object_statistics(as_type(prediction), as_type(truth)) == object_statistics(prediction, truth)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (NOTHING, NOTHING.T, r"shape \(3, 4\) and truth \(4, 3\)"),
        (NOTHING.astype(float), NOTHING, "prediction holds float64 from 0.0; expected integers"),
        (NOTHING, NOTHING.astype(bool), "truth holds bool from False; expected integers"),
        (NOTHING, NOTHING - 1, "truth holds int64 from -1; expected integers"),
    ],
)
def test_wrong_input(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        object_statistics(prediction, truth)
