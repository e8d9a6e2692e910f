"""Grey values and even contrast of photographs, against scikit-image and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from skimage.exposure import equalize_adapthist

from bundlekit.transforms import EvenContrast, ToGrey, ToGreyd


def test_grey_is_the_weighted_sum_and_keeps_the_range():
    colours = np.random.default_rng(0).uniform(0, 255, (3, 5, 4))
    expected = 0.2125 * colours[0] + 0.7154 * colours[1] + 0.0721 * colours[2]
    np.testing.assert_allclose(ToGrey()(colours)[0], expected, rtol=1e-5)
    assert np.array_equal(ToGrey()(colours[:1]), colours[:1].astype(np.float32))


def test_meta_data_is_kept():
    image = MetaTensor(torch.rand(3, 4, 4), affine=torch.diag(torch.tensor([2.0, 2, 1, 1])))
    grey = ToGreyd("image")({"image": image})["image"]
    assert isinstance(grey, MetaTensor) and torch.equal(grey.affine, image.affine) and grey.shape == (1, 4, 4)


def test_contrast_is_scikit_image_s_with_tiles_of_an_eighth():
    image = np.random.default_rng(0).uniform(0, 1, (1, 40, 64)).astype(np.float32) ** 3
    expected = equalize_adapthist(image[0], kernel_size=(5, 8), clip_limit=0.01)
    np.testing.assert_allclose(EvenContrast()(image)[0], expected, atol=1e-6)


def test_an_image_of_one_value_stays_as_it_is():
    image = torch.full((1, 16, 16), 0.25)
    assert torch.equal(EvenContrast()(image), image)


@pytest.mark.parametrize(
    "transform, image, message",
    [
        (ToGrey(), np.zeros((4, 2, 2)), "the image has 4 channels; expected 1 .* or 3"),
        (EvenContrast(), np.full((1, 4, 4), 2.0), "values are from 2 to 2; expected 0 to 1"),
    ],
)
def test_wrong_input(transform, image, message):
    with pytest.raises(ValueError, match=message):
        transform(image)
