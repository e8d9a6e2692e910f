"""Masks of brains on a background of any one value, against the brain that was drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import NormalizeIntensity

from bundlekit.transforms import NonzeroMaskd

SHAPE = (12, 14, 10)
BRAIN = np.sum([((g - n / 2) / (0.4 * n)) ** 2 for g, n in zip(np.indices(SHAPE), SHAPE, strict=True)], axis=0) < 1
VALUES = np.random.default_rng(0).normal(100, 15, (2, *SHAPE)).astype(np.float32)


def marked(volume: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask of a volume, and the volume as it is handed on."""
    item = NonzeroMaskd("image", "brain")({"image": torch.as_tensor(volume)})
    return item["brain"], item["image"]


def on_backgrounds(*backgrounds: float, scale: float = 1.0) -> np.ndarray:
    return np.stack([np.where(BRAIN, scale * VALUES[i], np.float32(b)) for i, b in enumerate(backgrounds)])


@pytest.mark.parametrize("backgrounds", [(0, 0), (-1, -1), (1e-6, 1e-6), (-3.3, 0), (0, 7), (-2, 5)])
def test_a_background_of_one_value_is_outside(backgrounds):
    mask, image = marked(on_backgrounds(*backgrounds))
    assert np.array_equal(mask[0], BRAIN)
    normalize = NormalizeIntensity(nonzero=True, channel_wise=True)
    np.testing.assert_allclose(normalize(image), normalize(on_backgrounds(0, 0)), atol=1e-5)


def test_a_background_of_0_leaves_everything_as_it_was():
    volume = on_backgrounds(0, 0)
    volume[0, :, :, 5] = 0  # a slice that one modality lacks
    volume[1, 0, 0, 0] = 3
    mask, image = marked(volume)
    assert np.array_equal(image, volume) and np.array_equal(mask[0], (volume != 0).any(0))
    volume[1, ::11, ::13, ::9] = 3  # marks in the corners
    mask, image = marked(volume)
    assert np.array_equal(image, volume) and np.array_equal(mask[0], (volume != 0).any(0))


def test_a_brain_that_reaches_the_corners_is_no_background():
    mask, image = marked(VALUES)
    assert mask.all() and np.array_equal(image, VALUES)
