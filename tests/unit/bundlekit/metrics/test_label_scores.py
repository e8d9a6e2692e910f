"""Rand and information scores against numbers worked out by hand, counts of all pairs, and scikit-image."""

from __future__ import annotations

from itertools import permutations
from math import log

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from skimage.metrics import adapted_rand_error, variation_of_information

from bundlekit.metrics import info_scores, rand_scores

ROUNDING = 1e-12  # float64, sums of some hundred terms

ONE_CELL = np.array([1, 1, 1, 1])
HALVES = np.array([1, 1, 2, 2])


def _random_labels(seed: int, shape=(40, 50), num_labels=12) -> tuple[np.ndarray, np.ndarray]:
    """A pair of label images with zeros in both and about half of the pixels alike."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_labels, shape)
    return np.where(rng.random(shape) < 0.5, truth, rng.integers(0, num_labels, shape)), truth


def test_split():
    # one true cell of 4 pixels in predicted halves: P(2) + P(2) = 4 ordered pairs stay of P(4) = 12, all 4 predicted
    # ones are right, f = 4 / (12/2 + 4/2). A single true cell holds no information: I = H(T) = 0.
    assert rand_scores(HALVES, ONE_CELL) == pytest.approx((1 / 2, 1 / 3, 1), abs=ROUNDING)
    assert info_scores(HALVES, ONE_CELL) == (0, 0, 1)


def test_merge():
    # the mirror image: all 4 true pairs stay, 4 of the 12 predicted ones are right
    assert rand_scores(ONE_CELL, HALVES) == pytest.approx((1 / 2, 1, 1 / 3), abs=ROUNDING)
    assert info_scores(ONE_CELL, HALVES) == (0, 1, 0)


def test_moved_border():
    # n_ij = [[2, 1], [0, 3]]: P summed over n_ij 2 + 6 = 8, over rows (3, 3) 12, over columns (2, 4) 14
    prediction, truth = np.array([1, 1, 2, 2, 2, 2]), np.array([1, 1, 1, 2, 2, 2])
    assert rand_scores(prediction, truth) == pytest.approx((8 / 13, 8 / 12, 8 / 14), abs=ROUNDING)
    # H(T) = log 2; H(S) of (1/3, 2/3) = log 3 - 2/3 log 2; H(S, T) of (1/3, 1/6, 1/2) = 1/2 log 3 + 2/3 log 2
    h_truth, h_prediction = log(2), log(3) - 2 / 3 * log(2)
    mutual = h_truth + h_prediction - (log(3) / 2 + 2 / 3 * log(2))
    expected = 2 * mutual / (h_truth + h_prediction), mutual / h_prediction, mutual / h_truth
    assert info_scores(prediction, truth) == pytest.approx(expected, abs=ROUNDING)


def test_only_true_cells_count():
    # the two pixels of true label 0 change nothing, whatever is predicted there
    truth = np.append(HALVES, [0, 0])
    for predicted in ([1, 1], [1, 2], [7, 8]):
        prediction = np.append(ONE_CELL, predicted)
        assert rand_scores(prediction, truth) == rand_scores(ONE_CELL, HALVES)
        assert info_scores(prediction, truth) == info_scores(ONE_CELL, HALVES)


def test_rand_is_the_count_of_pairs():
    prediction, truth = (labels.ravel() for labels in _random_labels(0, (8, 9), 4))
    pairs = [(i, j) for i, j in permutations(range(truth.size), 2) if truth[i] and truth[j]]
    same_truth = {(i, j) for i, j in pairs if truth[i] == truth[j]}
    same_prediction = {(i, j) for i, j in pairs if prediction[i] == prediction[j]}
    both = len(same_truth & same_prediction)
    expected = 2 * both / (len(same_truth) + len(same_prediction)), both / len(same_truth), both / len(same_prediction)
    assert rand_scores(prediction, truth) == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("seed", range(5))
def test_rand_equals_scikit_image(seed):
    prediction, truth = _random_labels(seed)
    assert 1 - rand_scores(prediction, truth).f == pytest.approx(adapted_rand_error(truth, prediction)[0], abs=ROUNDING)


@pytest.mark.parametrize("seed", range(5))
def test_info_equals_scikit_image(seed):
    prediction, truth = _random_labels(seed)
    scores = info_scores(prediction, truth)
    h_prediction, h_truth = (
        entropy(np.unique(labels[truth > 0], return_counts=True)[1], base=2) for labels in (prediction, truth)
    )
    # with I = H - H(given the other), the parts are 1 - H(S|T) / H(S) and 1 - H(T|S) / H(T); scikit-image gives both
    splits, merges = variation_of_information(truth, prediction, ignore_labels=[0])
    expected = 1 - (splits + merges) / (h_prediction + h_truth), 1 - splits / h_prediction, 1 - merges / h_truth
    assert scores == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("scores", [rand_scores, info_scores])
def test_swapping_the_images_swaps_split_and_merge(scores):
    prediction, truth = (labels + 1 for labels in _random_labels(1))
    f, split, merge = scores(prediction, truth)
    assert split != pytest.approx(merge, abs=1e-6)
    assert scores(truth, prediction) == pytest.approx((f, merge, split), abs=ROUNDING)


@pytest.mark.parametrize("scores", [rand_scores, info_scores])
def test_names_of_labels_do_not_matter(scores):
    prediction, truth = _random_labels(2)
    new_ids = np.array([0, 90, 3, 1, 70, 5, 2, 8, 1000, 4, 6, 7])
    assert scores(new_ids[prediction], new_ids[truth]) == pytest.approx(scores(prediction, truth), abs=ROUNDING)
    as_tensors = torch.tensor(prediction, dtype=torch.int32), torch.tensor(truth, dtype=torch.uint8)
    assert scores(*as_tensors) == scores(prediction, truth)


@pytest.mark.parametrize("scores", [rand_scores, info_scores])
@pytest.mark.parametrize(
    "truth", [_random_labels(3)[1], ONE_CELL, np.arange(1, 6)], ids=["many", "one", "single pixels"]
)
def test_perfect_is_one(scores, truth):
    assert scores(truth, truth) == pytest.approx((1, 1, 1), abs=ROUNDING)


def test_rounding_leaves_no_score_below_0_or_above_1():
    for seed in range(30):
        prediction, truth = _random_labels(seed, (20, 20))
        split = prediction + 100 * truth  # tells the true cell, so that merge is 1 but for rounding
        independent = np.tile(np.arange(20), (20, 1)) * np.ones_like(truth)
        for pair in ((split, truth), (truth, truth), (independent, independent.T + 1)):
            assert all(0 <= score <= 1 for score in info_scores(*pair))


@pytest.mark.parametrize("scores", [rand_scores, info_scores])
@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.ones((2, 3), int), np.ones((3, 2), int), r"shape \(2, 3\) and truth \(3, 2\)"),
        (np.ones((2, 3), int), np.zeros((2, 3), int), "no cell pixel"),
        (np.ones((2, 3)), np.ones((2, 3), int), "prediction holds float64"),
        (np.ones((2, 3), int), -np.ones((2, 3), int), "truth holds int64 from -1"),
    ],
)
def test_wrong_input(scores, prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        scores(prediction, truth)
