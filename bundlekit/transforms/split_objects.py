"""Splits the objects of one probability map at their necks."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import Transform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from .dictionary import DictionaryTransform

__all__ = ["SplitObjects", "SplitObjectsd"]

_WINDOW_PX, _MARGIN_PX = 1024, 128  # the margin has to hold what of an object may lie outside the window of its centre


class SplitObjects(Transform):
    """Label the objects of one probability map, and split those that touch where they are narrow.

    Each piece of p > ``threshold`` (neighbours share a side) has its holes filled. D is the distance of its pixels to
    what is outside, smoothed. Each maximum of D that stands at least ``depth_px`` above the saddle to a higher one is
    the seed of an object, and the watershed of -D gives each seed its share of the piece. A disc has one maximum; two
    discs that overlap have two, and are cut at the neck between them. The pieces are worked through one by one, those
    of more than 1280 px a side in windows of 1024 px and 128 px around, of which each gives the objects whose centre it
    holds, so that little memory is needed in addition to the map and the labels.

    Args:
        threshold: probability above which a pixel belongs to an object.
        depth_px: how much narrower than both its sides a neck must be, as a radius in pixels, to be cut.
        sigma_px: standard deviation of the Gaussian that smooths D, in pixels.
        min_size_px: objects of fewer pixels are left out.
        max_objects: how many numbers the labels have room for, 65535 in a 16-bit file; None for no limit.

    Shape:
        - input: (1, *spatial), probabilities.
        - output: (1, *spatial), int32: 0 background, 1 .. n the objects.

    Raises:
        ValueError: when the input has several channels, or more than ``max_objects`` objects.

    Source:
        Seeded watershed of the distance transform with h-maxima: Soille, "Morphological Image Analysis", 2nd edition
        2004, sections 6.3.4 and 9.2.4.

    Example:
        >>> y, x = np.mgrid[:20, :35]
        >>> overlapping = (np.hypot(y - 10, x - 10) < 8) | (np.hypot(y - 10, x - 23) < 8)
        >>> SplitObjects()(overlapping[None].astype(np.float32)).max()
        np.int32(2)
    """

    def __init__(
        self,
        threshold: float = 0.5,
        depth_px: float = 0.75,
        sigma_px: float = 1.0,
        min_size_px: int = 1,
        max_objects: int | None = None,
    ) -> None:
        self.threshold = threshold
        self.depth_px = depth_px
        self.sigma_px = sigma_px
        self.min_size_px = min_size_px
        self.max_objects = max_objects

    def _split(self, piece: np.ndarray) -> np.ndarray:
        inside = np.pad(piece, 1)  # the border of the image is outside, too
        distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), self.sigma_px) * inside
        lowered = reconstruction(np.maximum(distance - self.depth_px, 0), distance)
        seeds, num_seeds = ndimage.label(local_maxima(lowered) & inside, structure=np.ones((3,) * piece.ndim))
        if num_seeds < 2:
            return piece.astype(np.int32)
        return watershed(-distance, seeds, mask=inside)[(slice(1, -1),) * piece.ndim]

    def _split_in_windows(self, piece: np.ndarray) -> np.ndarray:
        parts, count = np.zeros(piece.shape, np.int32), 0
        for start in product(*(range(0, side, _WINDOW_PX) for side in piece.shape)):
            first = np.maximum(np.array(start) - _MARGIN_PX, 0)
            box = tuple(slice(a, b + _WINDOW_PX + _MARGIN_PX) for a, b in zip(first, start, strict=True))
            split = self._split(piece[box])
            numbers = np.arange(1, split.max() + 1)
            centres = first + np.reshape(ndimage.center_of_mass(split > 0, split, numbers), (-1, piece.ndim))
            own = ((centres >= start) & (centres < np.add(start, _WINDOW_PX))).all(axis=1)
            new = np.append(0, np.where(own, count + numbers, 0)).astype(np.int32)[split]
            np.copyto(parts[box], new, where=(new > 0) & (parts[box] == 0))
            count += len(numbers)
        return parts

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        maps = convert_to_numpy(img)
        if maps.shape[0] != 1:
            raise ValueError(f"got an array of shape {maps.shape}; expected one probability map, 1 channel")
        labels, _ = ndimage.label(maps[0] > self.threshold)
        count = 0
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            window = labels[box]
            own = window == number
            piece = ndimage.binary_fill_holes(own) & ((window == 0) | own)
            large = max(piece.shape) > _WINDOW_PX + 2 * _MARGIN_PX
            parts = self._split_in_windows(piece) if large else self._split(piece)
            kept = np.bincount(parts.ravel()) >= max(self.min_size_px, 1)
            kept[0] = False
            # the pieces that are still to come have positive numbers, finished objects negative ones
            window[piece] = np.where(kept, -count - np.cumsum(kept), 0).astype(np.int32)[parts[piece]]
            count += np.count_nonzero(kept)
        if self.max_objects is not None and count > self.max_objects:
            raise ValueError(
                f"found {count} objects; expected at most {self.max_objects}: increase min_size_px, or "
                "segment parts of the image"
            )
        np.negative(labels, out=labels)
        dtype = torch.int32 if isinstance(img, torch.Tensor) else np.int32
        return convert_to_dst_type(labels[None], img, dtype=dtype)[0]


class SplitObjectsd(DictionaryTransform):
    """Dictionary form of :class:`SplitObjects`; the arguments between ``keys`` and the last are as in the class.

    Example:
        >>> SplitObjectsd("pred")({"pred": torch.ones(1, 9, 9)})["pred"].unique()
        tensor([1], dtype=torch.int32)
    """

    def __init__(
        self,
        keys: KeysCollection,
        threshold: float = 0.5,
        depth_px: float = 0.75,
        sigma_px: float = 1.0,
        min_size_px: int = 1,
        max_objects: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        split = SplitObjects(threshold, depth_px, sigma_px, min_size_px, max_objects)
        super().__init__(keys, keys, split, allow_missing_keys)
