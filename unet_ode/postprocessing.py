"""From probability maps to label maps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy import ndimage
from skimage.morphology import local_minima, reconstruction
from skimage.segmentation import watershed

__all__ = ["CloseCells", "CloseCellsd"]


class CloseCells(Transform):
    """Turn a membrane probability map into a label map whose membranes close the cells.

    A pixel is membrane where p > ``threshold`` or where it lies on a line of the watershed of the smoothed p. One gap
    in a membrane joins two cells; the watershed floods each cell from its own minimum and draws a line, one pixel
    wide, through the gap where the two floods meet. Minima less than ``depth`` deep do not count as cells of their own.

    Args:
        threshold: probability above which a pixel is membrane.
        sigma: standard deviation of the Gaussian that smooths p before the watershed, in pixels.
        depth: how deep, in probability, a minimum must be to be a cell.

    Shape:
        - input: (1, H, W), probabilities in [0, 1].
        - output: (1, H, W), uint8: 1 membrane, 0 cell.

    Example:
        >>> wall = torch.zeros(1, 9, 9)
        >>> wall[0, :, 4] = 1.0
        >>> wall[0, 4, 4] = 0.3  # a gap
        >>> CloseCells(threshold=0.5, sigma=0.0, depth=0.1)(wall)[0, :, 4]
        tensor([1, 1, 1, 1, 1, 1, 1, 1, 1], dtype=torch.uint8)
    """

    def __init__(self, threshold: float, sigma: float, depth: float) -> None:
        self.threshold = threshold
        self.sigma = sigma
        self.depth = depth

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        probability = convert_to_numpy(img, dtype=np.float32)
        if probability.ndim != 3 or probability.shape[0] != 1:
            raise ValueError(f"got an array of shape {probability.shape}; expected one probability map, (1, H, W)")
        smooth = ndimage.gaussian_filter(probability[0], self.sigma) if self.sigma > 0 else probability[0]
        labels = probability > self.threshold
        # filling every basin by depth joins those that a lower ridge parts; the rest keep a minimum of their own
        filled = reconstruction(smooth + self.depth, smooth, method="erosion")
        seeds, num_seeds = ndimage.label(local_minima(filled), structure=np.ones((3, 3)))
        if num_seeds > 1:
            labels = labels | (watershed(smooth, seeds, watershed_line=True) == 0)
        return convert_to_dst_type(labels, img, dtype=torch.uint8 if isinstance(img, torch.Tensor) else np.uint8)[0]


class CloseCellsd(MapTransform):
    """Dictionary form of :class:`CloseCells`.

    Args:
        keys: keys of the probability maps.
        threshold: as in :class:`CloseCells`.
        sigma: as in :class:`CloseCells`.
        depth: as in :class:`CloseCells`.
        allow_missing_keys: do not raise when a key is missing.
    """

    def __init__(
        self, keys: KeysCollection, threshold: float, sigma: float, depth: float, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.close_cells = CloseCells(threshold, sigma, depth)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        items = dict(data)
        for key in self.key_iterator(items):
            items[key] = self.close_cells(items[key])
        return items
