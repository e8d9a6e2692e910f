"""Separates objects with the probability maps of whole and of eroded objects."""

from __future__ import annotations

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import Transform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy import ndimage
from skimage.segmentation import watershed

from .dictionary import DictionaryTransform

__all__ = ["SeparateObjects", "SeparateObjectsd"]


def _without_small(labels: np.ndarray, min_px: int) -> np.ndarray:
    """The objects of at least ``min_px`` pixels, numbered 1, 2, ... in the order they had."""
    kept = np.bincount(labels.ravel()) >= max(min_px, 1)
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0)[labels]


def _fill_holes(labels: np.ndarray) -> None:
    """Give the background that an object encloses to the object."""
    boxes = list(enumerate(ndimage.find_objects(labels), start=1))
    # an object inside another one has the smaller box, and must fill its holes before the outer object can
    for number, box in sorted(boxes, key=lambda item: np.prod([s.stop - s.start for s in item[1]])):
        window = labels[box]
        window[ndimage.binary_fill_holes(window == number) & (window == 0)] = number


class SeparateObjects(Transform):
    """Label the objects of two probability maps: seeds from the eroded objects, grown within the whole ones.

    Pixels of the first map above ``inner_threshold`` that touch, by sides or corners, are one seed. All seeds grow at
    the same speed, by one pixel in all 8 directions (26 in a volume) at a time, into where the second map is above
    ``mask_threshold``, until they meet. That undoes the erosion by a box: from maps that are the ``ErodedTargets`` of
    objects, the objects come back as they were, if the box fits into them everywhere and left each in one piece. Then
    holes are filled, but never over another object. What no seed reaches is background; a seed is kept whole, whatever
    the second map is there.

    Args:
        inner_threshold: probability of the first map above which a pixel belongs to a seed.
        mask_threshold: probability of the second map above which a seed may grow into a pixel.
        min_seed_px: seeds of fewer pixels are left out.
        min_size_px: objects of fewer pixels, holes filled, are left out in the end.

    Shape:
        - input: (2, *spatial), probabilities: of eroded objects, of whole objects.
        - output: (1, *spatial), int32: 0 background, 1 .. n the objects.

    Raises:
        ValueError: when the input has not two channels.

    Source:
        The thresholds and sizes are from the code of Pinckaers & Litjens 2019, arXiv:1910.10470.

    Differs from that code:
        It grows by a maximum filter, which lets the object of the higher number cover its neighbour.

    Example:
        >>> inner = torch.tensor([0.0, 0.9, 0.0, 0.0, 0.9, 0.0, 0.0])
        >>> whole = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.0])
        >>> SeparateObjects(min_seed_px=1, min_size_px=1)(torch.stack([inner, whole])[:, None])
        tensor([[[1, 1, 1, 2, 2, 2, 0]]], dtype=torch.int32)
    """

    def __init__(
        self,
        inner_threshold: float = 0.7,
        mask_threshold: float = 0.5,
        min_seed_px: int = 500,
        min_size_px: int = 500,
    ) -> None:
        self.inner_threshold = inner_threshold
        self.mask_threshold = mask_threshold
        self.min_seed_px = min_seed_px
        self.min_size_px = min_size_px

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        maps = convert_to_numpy(img)
        if maps.shape[0] != 2:
            raise ValueError(
                f"got an array of shape {maps.shape}; expected two probability maps, of eroded and of whole objects"
            )
        ndim = maps.ndim - 1
        seeds, _ = ndimage.label(maps[0] > self.inner_threshold, structure=np.ones((3,) * ndim))
        seeds = _without_small(seeds, self.min_seed_px)
        mask = (maps[1] > self.mask_threshold) | (seeds > 0)
        # on a flat image the watershed takes pixels first come, first served: one ring around every seed after another
        labels = watershed(np.zeros(mask.shape, np.uint8), seeds, connectivity=ndim, mask=mask)
        _fill_holes(labels)
        labels = _without_small(labels, self.min_size_px)[None]
        return convert_to_dst_type(labels, img, dtype=torch.int32 if isinstance(img, torch.Tensor) else np.int32)[0]


class SeparateObjectsd(DictionaryTransform):
    """Dictionary form of :class:`SeparateObjects`; the arguments between ``keys`` and the last are as in the class.

    Example:
        >>> SeparateObjectsd("pred")({"pred": torch.ones(2, 30, 30)})["pred"].unique()
        tensor([1], dtype=torch.int32)
    """

    def __init__(
        self,
        keys: KeysCollection,
        inner_threshold: float = 0.7,
        mask_threshold: float = 0.5,
        min_seed_px: int = 500,
        min_size_px: int = 500,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys, keys, SeparateObjects(inner_threshold, mask_threshold, min_seed_px, min_size_px), allow_missing_keys
        )
