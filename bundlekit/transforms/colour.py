"""Changes colours at random, for stained tissue whose colours differ between laboratories."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_numpy
from skimage.color import rgb2yiq

__all__ = ["RandColourJitter", "RandColourJitterd"]


class RandColourJitter(RandomizableTransform):
    """Random brightness b, contrast c, saturation s, hue h: Y' = b (c Y + (1 - c) mean Y), C' = b c s exp(2 pi i h) C.

    Y is the grey value of a pixel and C = I + i Q its colour, in the YIQ coordinates of the RGB cube. So b scales the
    image, c scales it about its mean grey value, s scales each pixel about its own grey value, and h turns the colours
    about the grey axis. The four commute, hence no order has to be drawn. Values below 0 become 0; there is no upper
    limit, as nothing is known of the image's range.

    Args:
        brightness: b is drawn from [1 - brightness, 1 + brightness].
        contrast: c is drawn likewise.
        saturation: s is drawn likewise.
        hue: h is drawn from [-hue, hue], as a fraction of a full turn; at most 0.5.
        prob: probability of any change.

    Shape:
        (3, *spatial), red, green, blue, in any range from 0 up, to the same, float32.

    Raises:
        ValueError: when brightness, contrast or saturation is not in [0, 1], hue not in [0, 0.5], or the image has not
            three channels.

    Differs from torchvision's ``ColorJitter``:
        The hue turns in YIQ, which keeps the grey value, and not in HSV, which keeps the maximum of the channels.
        ``ColorJitter`` clips after each of the four, so that their order matters, and draws the order too.

    Example:
        >>> jitter = RandColourJitter(brightness=0.3, contrast=0.2, saturation=0.1, hue=0.1).set_random_state(0)
        >>> jitter(np.array([0.8, 0.4, 0.6]).reshape(3, 1, 1)).ravel().round(3)
        array([0.92 , 0.453, 0.628], dtype=float32)
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float, prob: float = 1.0) -> None:
        super().__init__(prob)
        limits = {"brightness": (brightness, 1), "contrast": (contrast, 1), "saturation": (saturation, 1)}
        for name, (value, limit) in (limits | {"hue": (hue, 0.5)}).items():
            if not 0 <= value <= limit:
                raise ValueError(f"{name} is {value}; expected a number in [0, {limit}], where 0 changes nothing")
        self.spreads = (brightness, contrast, saturation)
        self.hue = hue
        self.factors: tuple[float, ...] = (1.0, 1.0, 1.0)
        self.turn = 0.0

    def randomize(self, data: Any = None) -> None:
        super().randomize(None)
        if self._do_transform:
            self.factors = tuple(self.R.uniform(1 - spread, 1 + spread) for spread in self.spreads)
            self.turn = self.R.uniform(-self.hue, self.hue)

    def _changed(self, image: np.ndarray) -> np.ndarray:
        b, c, s = self.factors
        cos, sin = np.cos(2 * np.pi * self.turn), np.sin(2 * np.pi * self.turn)
        to_yiq = rgb2yiq(np.eye(3)).T  # the colour space's matrix: its columns are the images of red, green and blue
        change = np.array([[1, 0, 0], [0, s * cos, -s * sin], [0, s * sin, s * cos]])
        matrix = b * c * np.linalg.inv(to_yiq) @ change @ to_yiq
        mean_grey = to_yiq[0] @ image.reshape(3, -1).mean(axis=1, dtype=np.float64)
        changed = np.tensordot(matrix.astype(np.float32), image, axes=1)
        changed += np.float32(b * (1 - c) * mean_grey)
        return np.maximum(changed, 0, out=changed)

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        image = convert_to_numpy(img, dtype=np.float32)
        if image.shape[0] != 3:
            raise ValueError(f"the image has {image.shape[0]} channels; expected 3: red, green, blue")
        if randomize:
            self.randomize()
        changed = self._changed(image) if self._do_transform else image
        return convert_to_dst_type(changed, img, dtype=np.float32)[0]


class RandColourJitterd(RandomizableTransform, MapTransform):
    """:class:`RandColourJitter` of each of ``keys``, with one draw for all; the arguments are as in the class.

    Example:
        >>> image = np.random.rand(3, 4, 4)
        >>> items = RandColourJitterd(["a", "b"], 0.3, 0.2, 0.1, 0.1)({"a": image, "b": image})
        >>> np.array_equal(items["a"], items["b"])
        True
    """

    def __init__(
        self,
        keys: KeysCollection,
        brightness: float,
        contrast: float,
        saturation: float,
        hue: float,
        prob: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        self.jitter = RandColourJitter(brightness, contrast, saturation, hue, prob)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None):
        super().set_random_state(seed, state)
        self.jitter.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        items = dict(data)
        self.jitter.randomize()
        for key in self.key_iterator(items):
            items[key] = self.jitter(items[key], randomize=False)
        return items
