"""Measures of membrane maps against small images whose numbers are worked out by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import distance_transform_edt
from skimage.measure import label
from skimage.metrics import adapted_rand_error

from bundlekit.metrics import (
    grow_cells,
    label_cells,
    pixel_error,
    pixel_f_error,
    rand_error,
    rand_info_scores,
    rand_scores,
    warp_truth,
    warping_error,
)

# two cells of 2 x 3 pixels with a membrane of 2 x 1 between them
TRUTH = np.array([[0, 0, 0, 1, 0, 0, 0]] * 2)
SPLIT = np.array([[0, 1, 0, 1, 0, 0, 0]] * 2)
MERGED = np.zeros_like(TRUTH)
SHIFTED = np.array([[0, 0, 0, 0, 1, 0, 0]] * 2)
MOVED = np.array([[0, 0, 0, 0, 1, 1, 0]] * 2)
THICK = np.array([[0, 0, 1, 1, 1, 0, 0]] * 2)
GAP = np.array([[0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]])
ALL_MEMBRANE = np.ones_like(TRUTH)

EXACT = 1e-12  # float64, fractions of small integers


def _random_map(seed: int, shape=(40, 50), share=0.4) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)


@pytest.mark.parametrize(
    ("prediction", "expected"), [(TRUTH, 0), (SPLIT, 2 / 14), (SHIFTED, 4 / 14), (MERGED, 2 / 14), (1 - TRUTH, 1)]
)
def test_pixel_error(prediction, expected):
    assert pixel_error(prediction, TRUTH) == expected
    assert pixel_error(TRUTH, prediction) == expected
    assert pixel_error(prediction, TRUTH) == ((prediction - TRUTH) ** 2).mean()


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (TRUTH, 0),
        (SPLIT, 1 - 20 / 22),  # 10 cell pixels in both, 10 predicted, 12 true: F = 20 / (10 + 12)
        (SHIFTED, 1 - 20 / 24),  # 10 in both, 12 predicted, 12 true; F of the membrane would be 0
        (ALL_MEMBRANE, 1),
    ],
)
def test_pixel_f_error(prediction, expected):
    assert pixel_f_error(prediction, TRUTH) == pytest.approx(expected, abs=EXACT)


def test_cells_do_not_connect_across_a_diagonal_membrane():
    diagonal = np.eye(4, dtype=np.uint8)
    cells = label_cells(diagonal)
    upper, lower = np.triu_indices(4, 1), np.tril_indices(4, -1)
    assert set(cells[upper]) != set(cells[lower])
    assert [len(set(cells[side])) for side in (upper, lower)] == [1, 1]
    assert (cells[diagonal == 1] == 0).all()


def test_each_membrane_pixel_joins_its_nearest_cell():
    membrane = _random_map(0, share=0.8)
    cells, grown = label_cells(membrane), grow_cells(membrane)
    distances = np.stack([distance_transform_edt(cells != i) for i in range(1, cells.max() + 1)])
    np.testing.assert_array_equal(np.take_along_axis(distances, grown[None] - 1, axis=0)[0], distances.min(axis=0))


def test_cells_meet_on_the_ridge_of_the_probability():
    membrane = np.array([[0, 1, 1, 1, 1, 1, 1, 0]])
    probability = np.array([[0.0, 0.6, 0.6, 0.7, 0.8, 0.9, 0.8, 0.1]])
    grown = grow_cells(membrane, probability)
    # column 4 is nearer to the right cell; the ridge is column 5, which either cell may take
    np.testing.assert_array_equal(np.delete(grown, 5), [1, 1, 1, 1, 1, 2, 2])
    assert grown[0, 5] in (1, 2)


def test_nothing_grows_from_no_cell():
    assert not grow_cells(ALL_MEMBRANE).any()
    assert not grow_cells(ALL_MEMBRANE, np.random.default_rng(0).random(ALL_MEMBRANE.shape)).any()


@pytest.mark.parametrize(
    ("prediction", "score", "thinned"),
    [
        (TRUTH, (1, 1, 1), (1, 1, 1)),
        # true pairs 2 P(6) = 60. Without thinning the left cell is 2 + 1 + 1 + 2: pairs 2 + 2, and 30 on the right.
        # Thinned, its middle column joins either neighbour: 4 + 2 pixels, pairs 12 + 2.
        (SPLIT, (2 * 34 / 94, 34 / 60, 1), (2 * 44 / 104, 44 / 60, 1)),
        # one cell of 12 pixels, P(12) = 132
        (MERGED, (2 * 60 / 192, 1, 60 / 132), (2 * 60 / 192, 1, 60 / 132)),
        # cells hold 6 and 2 true pixels, 4 are membrane. Thinned, column 4 joins the left cell, column 5 the right one:
        # n = [[6, 0], [2, 4]], pairs 30 + 2 + 12 in both and P(8) + P(4) = 68 predicted
        (MOVED, (2 * 32 / 92, 32 / 60, 1), (2 * 44 / 128, 44 / 60, 44 / 68)),
        # 4 + 4 pixels in cells, 4 on their own: pairs 12 + 12
        (THICK, (2 * 24 / 84, 24 / 60, 1), (1, 1, 1)),
        (GAP, (2 * 60 / 192, 1, 60 / 132), (2 * 60 / 192, 1, 60 / 132)),
        (ALL_MEMBRANE, (0, 0, 1), (0, 0, 1)),
    ],
)
def test_rand(prediction, score, thinned):
    assert rand_info_scores(prediction, TRUTH, thin=False)[0] == pytest.approx(score, abs=EXACT)
    assert rand_info_scores(prediction, TRUTH)[0] == pytest.approx(thinned, abs=EXACT)
    assert rand_error(prediction, TRUTH, thin=False) == pytest.approx(1 - score[0], abs=EXACT)
    assert rand_error(prediction, TRUTH) == pytest.approx(1 - thinned[0], abs=EXACT)


def test_info():
    # H(T) = log 2. Thinned, SPLIT has cells of 4, 2 and 6 of the 12 pixels, which tell the true cell: I = H(T) and
    # H(S) = log 12 - (4 log 4 + 2 log 2 + 6 log 6) / 12. All membrane has 12 cells of one pixel: H(S) = log 12.
    h_truth, h_split = log(2), log(12) - (4 * log(4) + 2 * log(2) + 6 * log(6)) / 12
    for prediction, h_prediction in ((SPLIT, h_split), (ALL_MEMBRANE, log(12))):
        expected = 2 * h_truth / (h_prediction + h_truth), h_truth / h_prediction, 1
        assert rand_info_scores(prediction, TRUTH)[1] == pytest.approx(expected, abs=EXACT)
    assert rand_info_scores(MERGED, TRUTH)[1] == (0, 1, 0)
    assert rand_info_scores(THICK, TRUTH)[1] == pytest.approx((1, 1, 1), abs=EXACT)


@pytest.mark.parametrize("seed", range(3))
def test_rand_error_equals_scikit_image(seed):
    prediction, truth = _random_map(seed), _random_map(seed + 100)
    cells = label(1 - truth, connectivity=1)
    grown = grow_cells(prediction)
    assert rand_error(prediction, truth) == pytest.approx(adapted_rand_error(cells, grown)[0], abs=EXACT)
    assert rand_error(prediction, truth) == pytest.approx(1 - rand_scores(grown, cells).f, abs=EXACT)
    # the form of 2012: no two pixels of predicted membrane are in one cell
    alone = label(1 - prediction, connectivity=1)
    alone[prediction == 1] = alone.max() + 1 + np.arange(prediction.sum())
    assert rand_error(prediction, truth, thin=False) == pytest.approx(adapted_rand_error(cells, alone)[0], abs=EXACT)


MEASURES = [pixel_error, pixel_f_error, rand_error, rand_info_scores, warping_error]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("as_type", [torch.tensor, MetaTensor, lambda array: array.astype(bool), np.float32])
def test_types_of_arrays(measure, as_type):
    prediction, truth = _random_map(0), _random_map(1)
    assert measure(as_type(prediction), as_type(truth)) == measure(prediction, truth)


@pytest.mark.parametrize("measure", [*MEASURES, warp_truth])
@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (TRUTH, TRUTH.T, r"prediction has shape \(2, 7\) and truth \(7, 2\)"),
        (TRUTH[None], TRUTH[None], r"prediction has shape \(1, 2, 7\); expected \(H, W\)"),
        (TRUTH, 255 * TRUTH, "truth holds values from 0 to 255; expected 0"),
        (TRUTH * 0.5, TRUTH, "prediction holds values from 0.0 to 0.5; expected 0"),
    ],
)
def test_wrong_maps(measure, prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        measure(prediction, truth)


@pytest.mark.parametrize("measure", [pixel_f_error, rand_error, rand_info_scores])
def test_truth_without_cells(measure):
    with pytest.raises(ValueError, match="no cell pixel; expected at least one"):
        measure(TRUTH, ALL_MEMBRANE)


def test_wrong_probability():
    with pytest.raises(ValueError, match=r"probability has shape \(1, 2, 7\) and membrane \(2, 7\)"):
        grow_cells(TRUTH, np.zeros((1, 2, 7)))
