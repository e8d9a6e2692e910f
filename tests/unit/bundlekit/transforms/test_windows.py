"""Window transforms against closed forms and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from bundlekit.transforms import Foveate, Foveated, NonUniformSample, NonUniformSampled


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
