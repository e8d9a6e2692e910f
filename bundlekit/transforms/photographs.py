"""Converts colour photographs to grey images with even contrast."""

from __future__ import annotations

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import Transform
from monai.utils import convert_to_dst_type, convert_to_numpy
from skimage.color import rgb2gray
from skimage.exposure import equalize_adapthist

from .dictionary import DictionaryTransform

__all__ = ["EvenContrast", "EvenContrastd", "ToGrey", "ToGreyd"]


class ToGrey(Transform):
    """Luminance of a colour image, 0.2125 R + 0.7154 G + 0.0721 B; a grey image stays as it is.

    Shape:
        (3, *spatial), red, green, blue, or (1, *spatial), to (1, *spatial), float32, in the range of the input.

    Raises:
        ValueError: for any other number of channels.

    Source:
        Hu et al. 2018, section 2.1, which does not give the weights; here they are ``skimage.color.rgb2gray``'s.

    Example:
        >>> ToGrey()(np.array([100.0, 200.0, 0.0]).reshape(3, 1, 1)).ravel().round(2)
        array([164.33], dtype=float32)
    """

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        image = convert_to_numpy(img, dtype=np.float32)
        if len(image) not in (1, 3):
            raise ValueError(f"the image has {len(image)} channels; expected 1 (grey) or 3 (red, green, blue)")
        grey = image if len(image) == 1 else rgb2gray(image, channel_axis=0)[None]
        return convert_to_dst_type(grey, img, dtype=np.float32)[0]


class ToGreyd(DictionaryTransform):
    """:class:`ToGrey` of each of ``keys``.

    Example:
        >>> ToGreyd("image")({"image": np.ones((3, 2, 2))})["image"].shape
        (1, 2, 2)
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, keys, ToGrey(), allow_missing_keys)


class EvenContrast(Transform):
    """Contrast limited adaptive histogram equalisation (CLAHE) of each channel, by scikit-image.

    Args:
        num_tiles: number of tiles along each axis; each has its own histogram.
        clip_limit: share of a tile's pixels that one grey value may have; what is above goes to the others.

    Shape:
        (channels, *spatial), values from 0 to 1, to the same, float32. A channel of one value stays as it is.

    Raises:
        ValueError: where values are below 0 or above 1.

    Source:
        Hu et al. 2018, section 2.1, which gives no parameters; the defaults are scikit-image's.

    Example:
        >>> ramp = np.linspace(0.4, 0.5, 64, dtype=np.float32).reshape(1, 8, 8)
        >>> even = EvenContrast(num_tiles=2)(ramp)
        >>> even.shape, bool(np.ptp(even) > 5 * np.ptp(ramp))
        ((1, 8, 8), True)
    """

    def __init__(self, num_tiles: int = 8, clip_limit: float = 0.01) -> None:
        self.num_tiles = num_tiles
        self.clip_limit = clip_limit

    def _even(self, channel: np.ndarray) -> np.ndarray:
        if channel.min() == channel.max():
            return channel
        tile = [max(size // self.num_tiles, 1) for size in channel.shape]
        return equalize_adapthist(channel, kernel_size=tile, clip_limit=self.clip_limit)

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        image = convert_to_numpy(img, dtype=np.float32)
        if image.min() < 0 or image.max() > 1:
            raise ValueError(f"values are from {image.min():g} to {image.max():g}; expected 0 to 1: scale the image")
        return convert_to_dst_type(np.stack([self._even(channel) for channel in image]), img, dtype=np.float32)[0]


class EvenContrastd(DictionaryTransform):
    """:class:`EvenContrast` of each of ``keys``; the arguments between ``keys`` and the last are as in the class.

    Example:
        >>> EvenContrastd("image")({"image": np.full((1, 4, 4), 0.5)})["image"].max().item()
        0.5
    """

    def __init__(
        self, keys: KeysCollection, num_tiles: int = 8, clip_limit: float = 0.01, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, keys, EvenContrast(num_tiles, clip_limit), allow_missing_keys)
