"""Colour jitter against its four steps, done one after another."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from bundlekit.transforms import RandColourJitter, RandColourJitterd


def _grey(image: np.ndarray) -> np.ndarray:
    return np.tensordot([0.299, 0.587, 0.114], image, axes=1)


def _colour(image: np.ndarray) -> np.ndarray:
    """V + i U of the PAL standard, which is I + i Q of NTSC turned by 33 degrees."""
    return 0.877283 * (image[0] - _grey(image)) + 0.492111j * (image[2] - _grey(image))


def _turned(image: np.ndarray, turn: float) -> np.ndarray:
    grey, colour = _grey(image), _colour(image) * np.exp(2j * np.pi * turn)
    red, blue = grey + colour.real / 0.877283, grey + colour.imag / 0.492111
    return np.stack([red, (grey - 0.299 * red - 0.114 * blue) / 0.587, blue])


def _image(low: float = 0.4, high: float = 0.6) -> np.ndarray:
    """Colours so near to grey that no value falls below 0."""
    return np.random.default_rng(0).uniform(low, high, (3, 13, 17))


@pytest.mark.parametrize("seed", range(3))
def test_jitter_equals_its_four_steps_in_any_order(seed):
    jitter, image = RandColourJitter(0.3, 0.2, 0.1, 0.5).set_random_state(seed), _image()
    changed = jitter(image)
    b, c, s = jitter.factors
    steps = [
        lambda x: b * x,
        lambda x: c * x + (1 - c) * _grey(x).mean(),
        lambda x: s * x + (1 - s) * _grey(x),
        lambda x: _turned(x, jitter.turn),
    ]
    for order in permutations(steps):
        wanted = image
        for step in order:
            wanted = step(wanted)
        # 3e-6: the constants of U, V and of I, Q are given to six digits; float32 adds 1e-7
        np.testing.assert_allclose(changed, wanted, rtol=0, atol=3e-6)


@pytest.mark.parametrize("position, spread", [(0, 0.3), (1, 0.2), (2, 0.1), (3, 0.1)])
def test_each_amount_is_drawn_evenly_between_its_bounds(position, spread):
    amounts = [0.0] * 4
    amounts[position] = spread
    jitter, image, found = RandColourJitter(*amounts).set_random_state(1), _image(), []
    deviation = _grey(image) - _grey(image).mean()
    for _ in range(400):
        changed = jitter(image)
        measured = [
            _grey(changed).mean() / _grey(image).mean(),
            (_grey(changed) * deviation).sum() / (_grey(image) * deviation).sum(),
            abs(_colour(changed).ravel()[0] / _colour(image).ravel()[0]),
            np.angle(_colour(changed).ravel()[0] / _colour(image).ravel()[0]) / (2 * np.pi),
        ][position]
        found.append((measured - (position < 3)) / spread)
    # 400 even draws in [-1, 1]: quarters of 100 with standard error 9; 1e-4 covers float32 and the constants
    assert max(map(abs, found)) < 1 + 1e-4
    counts, _ = np.histogram(found, bins=4, range=(-1.0001, 1.0001))
    assert counts.min() > 60 and counts.max() < 140


def test_saturation_and_hue_leave_a_grey_image_as_it_is():
    grey = np.random.default_rng(0).uniform(0, 200, (1, 9, 9)).repeat(3, axis=0)
    np.testing.assert_allclose(RandColourJitter(0, 0, 1.0, 0.5).set_random_state(0)(grey), grey, rtol=1e-6)
    changed = RandColourJitter(0.3, 0.2, 1.0, 0.5).set_random_state(0)(grey)
    np.testing.assert_allclose(changed[1:], changed[:2], rtol=1e-5, atol=1e-5)
    assert not np.allclose(changed, grey, rtol=0.01)


def test_no_amounts_change_nothing():
    image = _image(0, 255)
    # float32 products of a matrix that is the identity up to 1e-16
    np.testing.assert_allclose(RandColourJitter(0, 0, 0, 0)(image), image, rtol=0, atol=1e-4)


def test_the_unit_of_the_image_does_not_matter():
    image = _image(0, 1)
    small, large = (RandColourJitter(0.3, 0.2, 0.1, 0.1).set_random_state(4)(k * image) for k in (1, 255))
    np.testing.assert_allclose(large, 255 * small, rtol=1e-5, atol=1e-4)


def test_values_below_zero_become_zero():
    image = np.zeros((3, 2, 2))
    image[0], image[1, 0, 0] = 1.0, 0.5  # red and orange, far from grey
    jitter = RandColourJitter(0, 0, 0, 0.5).set_random_state(0)
    changed, wanted = jitter(image), _turned(image, jitter.turn)
    assert (wanted < -0.05).any() and (wanted > 0.05).any()
    np.testing.assert_allclose(changed, np.maximum(wanted, 0), rtol=0, atol=3e-6)


def test_prob_is_the_share_of_images_that_change():
    jitter, image = RandColourJitter(0.3, 0.2, 0.1, 0.1, prob=0.25).set_random_state(0), _image().astype(np.float32)
    same = sum(np.array_equal(jitter(image), image) for _ in range(400))
    assert 255 < same < 345  # 300 expected, standard error 8.7


def test_dictionary_draws_once_for_all_keys_and_anew_for_each_call():
    transform = Compose([RandColourJitterd(["a", "b"], 0.3, 0.2, 0.1, 0.1)])
    items = {"a": _image(), "b": _image(), "label": 1}
    first, second, again = (transform.set_random_state(seed)(items) for seed in (3, None, 3))
    assert np.array_equal(first["a"], first["b"]) and first["label"] == 1
    assert np.array_equal(first["a"], again["a"]) and not np.allclose(first["a"], second["a"], atol=1e-3)


def test_type_and_metadata_stay():
    image = MetaTensor(torch.rand(3, 5, 6, dtype=torch.float64), meta={"filename_or_obj": "a.png"})
    for changed in (
        RandColourJitterd("image", 0.3, 0.2, 0.1, 0.1)({"image": image})["image"],
        RandColourJitter(0.3, 0.2, 0.1, 0.1, prob=0)(image),
    ):
        assert isinstance(changed, MetaTensor) and changed.meta["filename_or_obj"] == "a.png"
        assert changed.dtype == torch.float32


@pytest.mark.parametrize(
    "amounts, message",
    [
        ((1.5, 0, 0, 0), r"brightness is 1.5; expected a number in \[0, 1\]"),
        ((0, -0.1, 0, 0), r"contrast is -0.1; expected a number in \[0, 1\]"),
        ((0, 0, 2, 0), r"saturation is 2; expected a number in \[0, 1\]"),
        ((0, 0, 0, 0.6), r"hue is 0.6; expected a number in \[0, 0.5\]"),
    ],
)
def test_amounts_that_are_refused(amounts, message):
    with pytest.raises(ValueError, match=message):
        RandColourJitter(*amounts)


def test_an_image_without_colours_is_refused():
    with pytest.raises(ValueError, match="the image has 1 channels; expected 3: red, green, blue"):
        RandColourJitter(0.1, 0.1, 0.1, 0.1)(np.zeros((1, 4, 4)))
