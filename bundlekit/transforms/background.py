"""Adds random background light to micrographs, for cell bodies or glow that a training set may lack."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy.ndimage import affine_transform

__all__ = ["RandBackground", "RandBackgroundd"]


class RandBackground(RandomizableTransform):
    """Add light regions of random shape: out = I + a (max I - min I) S((f - t) / e), where S is the logistic curve.

    f is a smooth random field: standard normal numbers on a grid of ``scale`` px, interpolated by cubic splines. S is
    near 1 where f is above t and near 0 where it is below, with a soft edge for a large e (light from other planes,
    autofluorescence) and a hard one for a small e (the cell bodies round the nuclei). The sum leaves the contrast
    between an object and what is around it as it was, unless the edge of a region runs there, as light does that adds
    up in fluorescence, and absorbance in stained tissue: to be used on images whose objects are light.

    Args:
        prob: probability of any change.
        strength: a is drawn from this range, as a fraction of the image's own range of values.
        scale: distance of the field's nodes, px, drawn from this range, with the logarithm evenly distributed. Regions
            as small as objects would teach a network to leave out the faint ones.
        edge: e, drawn likewise; the field's own standard deviation is below 1.
        threshold: t, drawn evenly.

    Shape:
        (channels, *spatial), any range, to the same, float32.

    Raises:
        ValueError: when a range is not two numbers, the smaller first, or scale or edge is not above 0.

    Example:
        >>> background = RandBackground(prob=1, scale=(16, 16), edge=(0.01, 0.01)).set_random_state(1)
        >>> image = np.zeros((1, 64, 64))
        >>> image[0, 0, 0] = 1
        >>> added = background(image) - image
        >>> bool(added.min() >= 0), round(float(added.max()), 3), round(float(added.mean()), 3)
        (True, 0.252, 0.118)
    """

    def __init__(
        self,
        prob: float = 0.5,
        strength: Sequence[float] = (0.1, 0.5),
        scale: Sequence[float] = (48, 160),
        edge: Sequence[float] = (0.03, 0.5),
        threshold: Sequence[float] = (-0.5, 0.5),
    ) -> None:
        super().__init__(prob)
        ranges = {"strength": strength, "scale": scale, "edge": edge, "threshold": threshold}
        for name, values in ranges.items():
            if len(values) != 2 or values[0] > values[1]:
                raise ValueError(f"{name} is {values}; expected two numbers, the smaller one first")
            if name in ("scale", "edge") and values[0] <= 0:
                raise ValueError(f"{name} is {values}; expected numbers above 0")
        self.strength, self.scale, self.edge, self.threshold = strength, scale, edge, threshold
        self._added: np.ndarray | None = None

    def _drawn_evenly_by_logarithm(self, values: Sequence[float]) -> float:
        return float(np.exp(self.R.uniform(*np.log(values))))

    def randomize(self, data: Sequence[int]) -> None:
        """Draw the regions of an image of these sides."""
        super().randomize(None)
        if not self._do_transform:
            return
        scale = self._drawn_evenly_by_logarithm(self.scale)
        # one node more on each side, so that the spline has neighbours at the border
        nodes = [int(np.ceil(side / scale)) + 3 for side in data]
        values = self.R.standard_normal(nodes).astype(np.float32)
        sides = [round(number * scale) for number in nodes]
        starts = [self.R.randint(0, max(have - side, 0) + 1) for have, side in zip(sides, data, strict=True)]
        # of the whole field, from the first node to the last, only what the image shows
        steps = [(number - 1) / (have - 1) for number, have in zip(nodes, sides, strict=True)]
        offset = [start * step for start, step in zip(starts, steps, strict=True)]
        field = affine_transform(values, steps, offset, output_shape=tuple(data), order=3, mode="nearest")
        z = (field - self.R.uniform(self.threshold[0], self.threshold[1])) / self._drawn_evenly_by_logarithm(self.edge)
        region = 0.5 * (1 + np.tanh(0.5 * z))  # the logistic curve, without overflow
        self._added = np.float32(self.R.uniform(self.strength[0], self.strength[1])) * region.astype(np.float32)

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        image = convert_to_numpy(img, dtype=np.float32)
        if randomize:
            self.randomize(image.shape[1:])
        changed = image + np.ptp(image) * self._added if self._do_transform else image
        return convert_to_dst_type(changed, img, dtype=np.float32)[0]


class RandBackgroundd(RandomizableTransform, MapTransform):
    """:class:`RandBackground` of each of ``keys``, with one draw for all of one shape; the arguments are the class's.

    Example:
        >>> image = np.random.rand(3, 64, 64)
        >>> items = RandBackgroundd(["a", "b"], prob=1)({"a": image, "b": image})
        >>> np.array_equal(items["a"], items["b"])
        True
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        strength: Sequence[float] = (0.1, 0.5),
        scale: Sequence[float] = (48, 160),
        edge: Sequence[float] = (0.03, 0.5),
        threshold: Sequence[float] = (-0.5, 0.5),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        self.background = RandBackground(prob, strength, scale, edge, threshold)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None):
        super().set_random_state(seed, state)
        self.background.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        items = dict(data)
        first = True
        for key in self.key_iterator(items):
            items[key] = self.background(items[key], randomize=first)
            first = False
        return items
