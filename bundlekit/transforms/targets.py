"""Targets for networks that separate touching objects."""

from __future__ import annotations

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import Transform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy import ndimage

from .dictionary import DictionaryTransform

__all__ = ["ErodedTargets", "ErodedTargetsd"]


class ErodedTargets(Transform):
    """Two masks of a label map L: the objects eroded by a box, [L > 0 and L the same all over the box], and [L > 0].

    In the first mask no two objects touch: at least ``size_px - 1`` pixels lie between them, along one axis or the
    other. The second gives back what the erosion took. Beyond the border of the image the outermost pixels repeat, so
    an object that the border cuts is not eroded there. ``SeparateObjects`` goes the other way.

    Args:
        size_px: side of the box in pixels, odd; it takes (size_px - 1) / 2 pixels from an object's every side.

    Shape:
        (1, *spatial), 0 for background and another whole number for each object, to (2, *spatial), float32: the
        eroded objects, the whole objects.

    Raises:
        ValueError: when ``size_px`` is not odd and positive, or the label has several channels.

    Source:
        Pinckaers & Litjens 2019, "Neural Ordinary Differential Equations for Semantic Segmentation of Individual Colon
        Glands", arXiv:1910.10470; the box of its code has 13 pixels a side.

    Example:
        >>> ErodedTargets(3)(np.array([[[0, 1, 1, 1, 2, 2, 2]]]))  # the last object reaches the border
        array([[[0., 0., 1., 0., 0., 1., 1.]],
        <BLANKLINE>
               [[0., 1., 1., 1., 1., 1., 1.]]], dtype=float32)
    """

    def __init__(self, size_px: int) -> None:
        if size_px < 1 or size_px % 2 == 0:
            raise ValueError(f"size_px is {size_px}; expected an odd number > 0, so that the box has a centre pixel")
        self.size_px = size_px

    def __call__(self, label: NdarrayOrTensor) -> NdarrayOrTensor:
        array = convert_to_numpy(label)
        if array.shape[0] != 1:
            raise ValueError(f"the label has {array.shape[0]} channels; expected one map of all objects, 1 channel")
        objects = array[0]
        lowest = ndimage.minimum_filter(objects, self.size_px, mode="nearest")
        highest = ndimage.maximum_filter(objects, self.size_px, mode="nearest")
        # the box holds its centre, so that lowest == highest is lowest == L == highest
        targets = np.stack([(objects > 0) & (lowest == highest), objects > 0])
        return convert_to_dst_type(targets, label, dtype=np.float32)[0]


class ErodedTargetsd(DictionaryTransform):
    """:class:`ErodedTargets` of each of ``keys``, stored under ``output_keys``, by default in its place.

    Example:
        >>> ErodedTargetsd("label", 3, "target")({"label": np.ones((1, 4, 4))})["target"].shape
        (2, 4, 4)
    """

    def __init__(
        self,
        keys: KeysCollection,
        size_px: int,
        output_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_keys or keys, ErodedTargets(size_px), allow_missing_keys)
