"""Light objects: one result for an image, its negative, other bit depths and other channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundlekit.transforms import LightObjects, LightObjectsd


def discs(dtype=np.float64) -> np.ndarray:
    """Light discs of different brightness on a dark, noisy ground."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:80, :90]
    image = 20 + 3 * rng.standard_normal((80, 90))
    for row, column, value in ((20, 20, 60), (50, 60, 120), (60, 15, 200)):
        image[np.hypot(y - row, x - column) < 10] += value
    return np.rint(image).astype(dtype)[None]


def test_formula():
    image = discs()
    low, high = np.percentile(image, (1, 99))
    clipped = np.clip(image, low, high)
    wanted = (clipped - clipped.mean()) / clipped.std()
    np.testing.assert_allclose(LightObjects(1, 99)(image), wanted, atol=1e-5)  # float32


def test_a_negative_gives_the_same():
    image = discs()
    np.testing.assert_allclose(LightObjects()(255 - image), LightObjects()(image), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_bit_depth_gain_and_offset_do_not_matter(dtype):
    gain = 1 if dtype == np.uint8 else 100
    image = (discs() * gain + 7 * gain).astype(dtype)
    out = LightObjects()(image)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, LightObjects()(discs()), atol=1e-4)  # float32 of values up to 25,000


def test_colours_remain_and_the_sign_is_that_of_the_grey_values():
    dark = 255 - discs()
    image = np.concatenate([dark, 0.5 * dark + 40, dark])  # violet on grey, darker than the ground
    out = LightObjects(0, 100)(image)
    disc = image[0] < 150
    assert (out[:, disc].mean(1) > out[:, ~disc].mean(1)).all()
    scale = image.std()
    np.testing.assert_allclose(out[1] - out[0], -(image[1] - image[0]) / scale, atol=1e-5)


def test_a_hot_pixel_decides_nothing():
    """A dark disc on a light ground, and one pixel much lighter than all."""
    image = 255 - discs()
    image[0, 5, 5] = 60_000
    out = LightObjects()(image)
    assert out[0, 60, 15] > out[0, 75, 85] and abs(out[0, 5, 5] - out[0, 75, 85]) < 0.5


def test_large_images_are_judged_by_a_sample():
    image = np.tile(discs(), (1, 6, 6))
    whole, sampled = LightObjects()(image), LightObjects(max_samples=20_000)(image)
    assert np.corrcoef(whole.ravel(), sampled.ravel())[0, 1] > 0.999 and np.abs(whole - sampled).max() < 0.3


def test_an_image_of_one_value_becomes_zero():
    assert not LightObjects()(np.full((3, 6, 5), 7, np.uint8)).any()


def test_tensors_keep_their_meta_data_and_the_input_stays():
    image = torch.from_numpy(discs(np.float32))
    before = image.clone()
    out = LightObjectsd("image")({"image": MetaTensor(image, meta={"name": "a"}), "label": 1})
    assert out["image"].meta["name"] == "a" and out["image"].dtype == torch.float32 and out["label"] == 1
    np.testing.assert_array_equal(out["image"].numpy(), LightObjects()(image.numpy()))
    assert torch.equal(image, before)


@pytest.mark.parametrize("lower, upper", [(-1, 99), (50, 50), (0, 101)])
def test_wrong_percentiles(lower, upper):
    with pytest.raises(ValueError, match=f"lower is {lower} and upper {upper}; expected percentiles"):
        LightObjects(lower, upper)
