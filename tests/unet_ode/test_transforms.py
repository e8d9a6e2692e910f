"""Weight maps and window transforms against closed forms, brute force and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy import ndimage

from unet_ode.transforms import (
    BalancedSampling,
    BalancedSamplingd,
    BorderWeightMap,
    BorderWeightMapd,
    Foveate,
    Foveated,
    NonUniformSample,
    NonUniformSampled,
)


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


@pytest.mark.parametrize(
    "transform, window",
    # From 25 to 11 the first coordinate is -9e-16 by rounding, and must not count as outside.
    [(Foveate(7, 4.0), 95), (NonUniformSample(31, 7), 95), (NonUniformSample(11, 0), 25)],
)
def test_a_constant_stays(transform, window):
    np.testing.assert_allclose(transform(np.full((2, window, window), 3.7)), np.float32(3.7), rtol=1e-6)


def test_fovea_is_untouched_and_its_surround_is_not():
    image = np.random.default_rng(0).normal(size=(2, 95, 95)).astype(np.float32)
    out = Foveate(fovea_px=15, sigma_px=4.0)(image)
    y, x = np.mgrid[-47:48, -47:48]
    inside = np.hypot(y, x) <= 15
    assert np.array_equal(out[:, inside], image[:, inside])
    assert (out[:, ~inside] != image[:, ~inside]).mean() > 0.99


def test_step_edges_are_blurred_by_the_sigma_of_their_radius():
    # fovea 7, rim 47, five levels: sigma is k / 5 of 4 px at the radius 7 + 8 k, and 4 px beyond the rim.
    image = np.zeros((1, 95, 95))
    image[0, :, 60:] = 1
    image[0, :10] += 1
    out = Foveate(fovea_px=7, sigma_px=4.0, num_levels=5)(image)[0]
    y, x = np.mgrid[-47:48, -47:48]
    beyond = np.hypot(y, x) >= 47
    far = ndimage.gaussian_filter(image[0], 4.0, mode="mirror")
    np.testing.assert_allclose(out[beyond], far[beyond], atol=1e-6)  # float32
    for k in range(1, 6):
        blurred = ndimage.gaussian_filter(image[0], 4.0 * k / 5, mode="mirror")
        np.testing.assert_allclose(out[47, 47 + 7 + 8 * k], blurred[47, 47 + 7 + 8 * k], atol=1e-6)
    middle = (ndimage.gaussian_filter(image[0], s, mode="mirror")[47, 47 + 19] for s in (0.8, 1.6))
    assert out[47, 47 + 19] == pytest.approx(np.mean(list(middle)), abs=1e-6)  # half way between two levels


def test_channels_are_blurred_apart():
    image = np.random.default_rng(0).normal(size=(2, 21, 21))
    transform = Foveate(2, 3.0)
    np.testing.assert_allclose(transform(image)[1], transform(image[1:])[0], rtol=1e-6)


def test_ramp_gives_the_sampled_coordinates():
    # Window 95, output 63, fovea 15: M = 47, m = 31 and s(u) = u + (47 - 31) / 16^2 max(u - 15, 0)^2.
    u = np.arange(-31, 32)
    s = np.sign(u) * (np.abs(u) + np.maximum(np.abs(u) - 15, 0) ** 2 / 16)
    assert s[-1] == 47 and s[46] == 15 and s[47] == 16 + 1 / 16
    y, x = np.mgrid[-47.0:48, -47:48]
    out = NonUniformSample(63, fovea_px=15)(np.stack([y, x, 2 + x + 3 * y]))
    wanted = [np.tile(s[:, None], (1, 63)), np.tile(s, (63, 1)), 2 + s + 3 * s[:, None]]
    np.testing.assert_allclose(out, wanted, rtol=1e-6, atol=1e-6)  # float32


def test_sampling_keeps_the_centre_pixel_by_pixel():
    image = np.random.default_rng(0).normal(size=(1, 95, 64)).astype(np.float32)
    out = NonUniformSample((63, 40), fovea_px=10)(image)
    assert out.shape == (1, 63, 40)
    assert np.array_equal(out[0, 21:42, 10:30], image[0, 37:58, 22:42])  # 10 px around rows 31 and 47; even: 9.5 px


def test_sampling_between_pixels_is_bilinear():
    # 7 to 3 without a fovea is -3, 0, 3; 7 to 5 with m = 2, f = 0: s(1) = 1 + (3 - 2) / 4 = 1.25.
    image = np.random.default_rng(0).normal(size=(1, 7, 7))
    out = NonUniformSample((3, 5), fovea_px=0)(image)
    assert np.allclose(out[0, :, 3], 0.75 * image[0, [0, 3, 6], 4] + 0.25 * image[0, [0, 3, 6], 5], rtol=1e-6)


def test_sampling_at_full_size_changes_nothing():
    image = np.random.default_rng(0).normal(size=(1, 9, 9)).astype(np.float32)
    assert np.array_equal(NonUniformSample(9, fovea_px=2)(image), image)


def test_window_dictionaries_replace_each_key():
    image = MetaTensor(np.random.default_rng(0).normal(size=(1, 21, 21)).astype(np.float32))
    data = {"a": image, "b": 2 * image, "c": "kept"}
    for dictionary, array in (
        (Foveated(["a", "b"], fovea_px=3, sigma_px=2.0, num_levels=4), Foveate(3, 2.0, 4)),
        (NonUniformSampled(["a", "b"], output_size=11, fovea_px=2), NonUniformSample(11, 2)),
    ):
        out = dictionary(data)
        assert isinstance(out["a"], MetaTensor) and out["c"] == "kept"
        assert torch.equal(out["a"], array(image)) and torch.equal(out["b"], array(2 * image))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Foveate(-1, 1.0), "fovea_px is -1"),
        (lambda: Foveate(1, -1.0), "sigma_px -1.0"),
        (lambda: Foveate(1, 1.0, 0), "num_levels 0"),
        (lambda: Foveate(4, 1.0), "fovea_px is 4 and the window .* less than 4.0"),
        (lambda: NonUniformSample(8, 1), "both odd or both even"),
        (lambda: NonUniformSample(11, 1), "output_size 11, window 9"),
        (lambda: NonUniformSample(5, 2), "fovea_px is 2, output_size 5"),
        (lambda: NonUniformSample(5, -1), "fovea_px is -1"),
    ],
)
def test_window_arguments_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()(np.zeros((1, 9, 9)))
