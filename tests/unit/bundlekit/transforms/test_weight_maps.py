"""Weight maps against closed forms, brute force and counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy import ndimage

from bundlekit.transforms import BalancedSampling, BalancedSamplingd, BorderWeightMap, BorderWeightMapd


def _membranes(num_cells: int, *size: int) -> np.ndarray:
    """Cells around random points, 1 where the nearest point changes and 0 inside, as (1, *size)."""
    rng = np.random.default_rng(0)
    points = np.stack([rng.integers(0, n, num_cells) for n in size], axis=1)
    grid = np.stack(np.indices(size), axis=-1)
    cell = ((grid[..., None, :] - points) ** 2).sum(-1).argmin(-1)
    return (ndimage.maximum_filter(cell, 3) != ndimage.minimum_filter(cell, 3)).astype(np.uint8)[None]


def _border_term_by_brute_force(cells: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    components, count = ndimage.label(cells)
    assert count > 2
    d = np.sort([ndimage.distance_transform_edt(components != k) for k in range(1, count + 1)], axis=0)
    return w0 * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma**2))


def test_border_between_two_half_planes():
    # Columns 0..9 and 13..19 are cells. In the gap d1 + d2 = 4 whatever the column; in a cell d1 = 0.
    label = np.zeros((1, 6, 20))
    label[..., 10:13] = 1
    column = np.arange(20)
    d = np.select([column < 10, column < 13], [13 - column, 4], column - 9)
    balance = np.where(label[0, 0] == 1, 20 / (2 * 3), 20 / (2 * 17))
    wanted = np.tile(balance + 7.0 * np.exp(-(d**2) / (2 * 3.0**2)), (6, 1))
    # 1e-6: weights of up to 10 are rounded to float32, half a step is 5e-7.
    np.testing.assert_allclose(BorderWeightMap(w0=7.0, sigma=3.0)(label)[0], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size, num_cells, cell_value", [((120, 96), 30, 0), ((64, 80), 12, 1), ((20, 24, 28), 9, 0)])
def test_border_weights_equal_brute_force(size, num_cells, cell_value):
    label = np.abs(_membranes(num_cells, *size).astype(int) - cell_value)
    cells = label[0] == cell_value
    balance = np.where(cells, 0.5 / cells.mean(), 0.5 / (1 - cells.mean()))
    wanted = balance + _border_term_by_brute_force(cells, 10.0, 2.5)
    weight = BorderWeightMap(w0=10.0, sigma=2.5, cell_value=cell_value)(label)
    np.testing.assert_allclose(weight[0], wanted, rtol=1e-7, atol=1e-6)  # float32; the cut at 6 sigma is 1.6e-7


def test_cells_that_touch_at_a_corner_are_two():
    weight = BorderWeightMap()(np.array([[[0, 1], [1, 0]]]))
    cell, membrane = 1 + 10 * np.exp(-2 / 50), 1 + 10 * np.exp(-4 / 50)  # d1 + d2 is sqrt(2) and 1 + 1
    np.testing.assert_allclose(weight, [[[cell, membrane], [membrane, cell]]], rtol=1e-6)


def test_class_balance_has_mean_one_and_equal_sums():
    label = _membranes(12, 64, 50)
    weight = BorderWeightMap(w0=0.0)(label).astype(float)
    assert weight.mean() == pytest.approx(1, rel=1e-6)
    assert weight[label == 1].sum() == pytest.approx(weight[label == 0].sum(), rel=1e-6)


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_alone_has_weight_one(value):
    assert np.array_equal(BorderWeightMap()(np.full((1, 8, 8), value)), np.ones((1, 8, 8)))


def test_one_cell_has_no_border_term():
    label = np.ones((1, 8, 8))
    label[0, 2:4, 2:6] = 0
    np.testing.assert_allclose(BorderWeightMap()(label), np.where(label == 0, 64 / 16, 64 / 112), rtol=1e-6)


@pytest.mark.parametrize(
    "label, message",
    [
        (np.arange(4).reshape(1, 2, 2), r"values \[0, 1, 2, 3\] \(4 in all\)"),
        (np.array([[[0, 255]]]), "expected two, one of them cell_value 1"),
        (np.zeros((2, 3, 3)), "2 channels; expected 1"),
    ],
)
def test_border_labels_that_are_refused(label, message):
    with pytest.raises(ValueError, match=message):
        BorderWeightMap(cell_value=1)(label)


def test_border_arguments_that_are_refused():
    with pytest.raises(ValueError, match="sigma is 0"):
        BorderWeightMap(sigma=0)
    with pytest.raises(ValueError, match="got 1 output keys for 2 keys"):
        BorderWeightMapd(["a", "b"], "weight")


def test_border_dictionary_keeps_type_and_metadata():
    label = MetaTensor(1 - _membranes(5, 20, 20), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])))
    out = BorderWeightMapd("seg", "w", w0=3.0, sigma=2.0, cell_value=1)({"seg": label})
    assert isinstance(out["w"], MetaTensor) and out["w"].dtype == torch.float32
    assert torch.equal(out["w"].affine, label.affine) and out["seg"] is label
    wanted = BorderWeightMap(3.0, 2.0, 1)(label.numpy())
    assert np.array_equal(out["w"].numpy(), wanted)


@pytest.mark.parametrize("rare", [0, 1])
def test_balanced_sampling_takes_all_of_the_rarer_class(rare):
    label = np.full((1, 30, 30), 1 - rare)
    label[0, 5, :20] = rare
    weight = BalancedSampling().set_random_state(0)(label)
    assert np.array_equal(weight[label == rare], np.ones(20))
    assert sorted(weight[label != rare]) == [0] * (900 - 40) + [1] * 20


def test_balanced_sampling_of_a_given_number():
    label = _membranes(5, 30, 30)
    for num_samples, wanted in ((7, 7), (10**6, min(label.sum(), 900 - label.sum()))):
        weight = BalancedSampling(num_samples)(label)
        assert weight[label == 1].sum() == weight[label == 0].sum() == wanted


def test_balanced_sampling_draws_uniformly_and_anew():
    transform = BalancedSampling(num_samples=5).set_random_state(0)
    label = np.arange(40).reshape(1, 5, 8) % 2
    frequency = np.mean([transform(label) for _ in range(2000)], axis=0)
    # 5 of 20 pixels of a class: p = 1/4, standard error sqrt(p (1 - p) / 2000) = 0.0097, five of them are allowed.
    np.testing.assert_allclose(frequency, 0.25, atol=0.05)


@pytest.mark.parametrize("value", [0, 1])
def test_balanced_sampling_of_one_class_gives_no_weight(value):
    assert not BalancedSampling()(np.full((1, 6, 6), value)).any()


def test_balanced_sampling_dictionary_is_reproducible():
    label = MetaTensor(_membranes(5, 30, 30))
    transform = Compose([BalancedSamplingd("seg", "w", num_samples=9)])
    draws = [transform.set_random_state(seed)({"seg": label})["w"] for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert isinstance(draws[0], MetaTensor) and draws[0].sum() == 18


def test_balanced_sampling_refuses():
    with pytest.raises(ValueError, match="num_samples is 0"):
        BalancedSampling(0)
    with pytest.raises(ValueError, match="3 channels; expected 1"):
        BalancedSampling()(np.zeros((3, 4, 4)))
