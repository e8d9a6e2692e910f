"""Converts membrane probabilities to label maps with closed cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import Transform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy import ndimage
from skimage import graph
from skimage.morphology import local_minima, reconstruction
from skimage.segmentation import watershed

from .dictionary import DictionaryTransform

__all__ = ["CloseCells", "CloseCellsd"]


def _mean_weight(rag: Any, source: int, target: int, neighbour: int) -> dict[str, float]:
    """The mean over the border that ``neighbour`` shares with two regions, when the two become one."""
    nothing = {"weight": 0.0, "count": 0}
    borders = [rag[region].get(neighbour, nothing) for region in (source, target)]
    count = sum(border["count"] for border in borders)
    return {"count": count, "weight": sum(border["weight"] * border["count"] for border in borders) / count}


class CloseCells(Transform):
    """Turn a membrane probability map into a label map whose membranes close the cells.

    A pixel is membrane where p > ``threshold``, or where it lies between two regions of a partition of the image. The
    partition starts as the watershed of the smoothed p, one basin for each minimum that is at least ``depth`` deep.
    Then the two neighbours whose common border has the smallest mean of p are merged, again and again, as long as that
    mean is below ``merge_below``. A gap in a membrane counts with its share of the whole border, however low p is in
    it; a threshold, or the depth of a watershed, depends only on its lowest point.

    Args:
        threshold: probability above which a pixel is membrane.
        sigma_px: standard deviation of the Gaussian that smooths p before the watershed, in pixels.
        depth: how deep, in probability, a minimum must be to start a region.
        merge_below: mean probability of a border below which it is none; 0 merges nothing.

    Shape:
        - input: (1, H, W), probabilities in [0, 1].
        - output: (1, H, W), uint8: 1 membrane, 0 cell.

    Raises:
        ValueError: when the input is not one map, or not finite.

    Example:
        >>> wall = torch.zeros(1, 9, 9)
        >>> wall[0, :, 3:6] = 1.0
        >>> wall[0, 4, 3:6] = 0.1  # a gap
        >>> CloseCells(threshold=0.5, sigma_px=0.0, depth=0.01, merge_below=0.5)(wall)[0, :, 3:6].amax(1)
        tensor([1, 1, 1, 1, 1, 1, 1, 1, 1], dtype=torch.uint8)
    """

    def __init__(self, threshold: float, sigma_px: float, depth: float, merge_below: float) -> None:
        self.threshold = threshold
        self.sigma_px = sigma_px
        self.depth = depth
        self.merge_below = merge_below

    def _regions(self, probability: np.ndarray) -> np.ndarray:
        smooth = ndimage.gaussian_filter(probability, self.sigma_px) if self.sigma_px > 0 else probability
        # filling every basin by depth joins those that a lower ridge parts; the rest keep a minimum of their own
        filled = reconstruction(smooth + self.depth, smooth, method="erosion")
        seeds, num_seeds = ndimage.label(local_minima(filled), structure=np.ones((3, 3)))
        if num_seeds < 2:
            return np.ones_like(seeds)
        basins = watershed(smooth, seeds)
        return graph.merge_hierarchical(
            basins,
            graph.rag_boundary(basins, probability.astype(np.float64)),
            thresh=self.merge_below,
            rag_copy=False,
            in_place_merge=True,
            merge_func=lambda rag, source, target: None,
            weight_func=_mean_weight,
        )

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        probability = convert_to_numpy(img, dtype=np.float32)
        if probability.ndim != 3 or probability.shape[0] != 1:
            raise ValueError(f"got an array of shape {probability.shape}; expected one probability map, (1, H, W)")
        if not np.isfinite(probability).all():  # scikit-image's reconstruction would hang, or write where it may not
            raise ValueError("got values that are NaN or infinite; expected probabilities")
        labels = probability > self.threshold
        regions = self._regions(probability[0])
        # marking one side of each border parts the regions for cells that are connected by edges
        labels[0, :-1] |= regions[:-1] != regions[1:]
        labels[0, :, :-1] |= regions[:, :-1] != regions[:, 1:]
        return convert_to_dst_type(labels, img, dtype=torch.uint8 if isinstance(img, torch.Tensor) else np.uint8)[0]


class CloseCellsd(DictionaryTransform):
    """Dictionary form of :class:`CloseCells`; the arguments between ``keys`` and the last are as in the class.

    Example:
        >>> CloseCellsd("pred", 0.5, 1.0, 0.01, 0.5)({"pred": torch.zeros(1, 4, 4)})["pred"].sum()
        tensor(0)
    """

    def __init__(
        self,
        keys: KeysCollection,
        threshold: float,
        sigma_px: float,
        depth: float,
        merge_below: float,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, keys, CloseCells(threshold, sigma_px, depth, merge_below), allow_missing_keys)
