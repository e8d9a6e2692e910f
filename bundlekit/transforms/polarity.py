"""Normalises grey and colour images of any bit depth so that objects are lighter than their surroundings."""

from __future__ import annotations

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import Transform
from monai.utils import convert_to_dst_type, convert_to_numpy

from .dictionary import DictionaryTransform

__all__ = ["LightObjects", "LightObjectsd"]


class LightObjects(Transform):
    """Normalise an image and invert it where its objects are dark: out = s (clip(I, low, high) - mean) / std.

    low and high are percentiles of all values, so that a hot pixel has no influence, and mean and std are of the
    clipped values of all channels together, so that colours remain. s is the sign of the skewness of L, the mean of the
    clipped channels at each pixel: sum (L - mean L)^3. Objects that cover less than half of an image make the longer
    tail of its grey values, above the background where they are lighter (fluorescence), below it where they are darker
    (stained tissue, phase contrast). Inverting the latter gives a network one task in place of two: it needs no
    examples of each polarity, and the many images of one kind help the few of the other.

    Where objects cover most of an image the sign may be wrong. Training should therefore invert some images at random
    after this (``RandScaleIntensityd(factors=(-2, -2))``), so that the network knows both signs.

    Args:
        lower: percentile that becomes the smallest value.
        upper: percentile that becomes the largest value.
        max_samples: percentiles, moments and sign are computed from at most about this many pixels, on a regular grid.

    Shape:
        (channels, *spatial), any range and type, to the same, float32. An image of one value becomes 0.

    Raises:
        ValueError: unless 0 <= lower < upper <= 100.

    Example:
        >>> dark_disc = np.full((1, 5, 5), 200)
        >>> dark_disc[0, 2, 2] = 50
        >>> out = LightObjects(0, 100)(dark_disc)
        >>> bool(out[0, 2, 2] > out[0, 0, 0]), float(out.mean().round(3)), float(out.std().round(3))
        (True, 0.0, 1.0)
    """

    def __init__(self, lower: float = 0.1, upper: float = 99.9, max_samples: int = 2**20) -> None:
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"lower is {lower} and upper {upper}; expected percentiles, 0 <= lower < upper <= 100")
        self.lower, self.upper, self.max_samples = lower, upper, max_samples

    def _sample(self, image: np.ndarray) -> np.ndarray:
        sides = image.shape[1:]
        step = max(int(np.ceil((np.prod(sides) / self.max_samples) ** (1 / len(sides)))), 1)
        return image[(slice(None), *(slice(None, None, step) for _ in sides))].astype(np.float64)

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        image = convert_to_numpy(img)
        sample = self._sample(image)
        low, high = np.percentile(sample, (self.lower, self.upper))
        sample = np.clip(sample, low, high)
        grey = sample.mean(axis=0)
        sign = -1.0 if ((grey - grey.mean()) ** 3).sum() < 0 else 1.0
        scale = sign / sample.std() if sample.std() > 0 else 0.0
        out = image.astype(np.float32, order="C")  # a copy, changed in place: images may be as large as a slide
        np.clip(out, np.float32(low), np.float32(high), out=out)
        out -= np.float32(sample.mean())
        out *= np.float32(scale)
        return convert_to_dst_type(out, img, dtype=torch.float32 if isinstance(img, torch.Tensor) else np.float32)[0]


class LightObjectsd(DictionaryTransform):
    """:class:`LightObjects` of each of ``keys``; the arguments between ``keys`` and the last are as in the class.

    Example:
        >>> LightObjectsd("image")({"image": torch.ones(3, 4, 4)})["image"].abs().max()
        tensor(0.)
    """

    def __init__(
        self,
        keys: KeysCollection,
        lower: float = 0.1,
        upper: float = 99.9,
        max_samples: int = 2**20,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, keys, LightObjects(lower, upper, max_samples), allow_missing_keys)
