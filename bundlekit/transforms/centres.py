"""Computes the centre and the diameter of an object in a label map."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from math import pi
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

from .dictionary import pair_keys

__all__ = ["CentreOfMassd", "EquivalentDiameterd"]


def _affine(label: Any, spatial_dims: int) -> torch.Tensor:
    """The part of a label's affine for its own axes; the identity where it has none."""
    if not isinstance(label, MetaTensor):
        return torch.eye(spatial_dims + 1, dtype=torch.float64)
    keep = [*range(spatial_dims), -1]
    return label.affine[keep][:, keep].double()


class CentreOfMassd(MapTransform):
    """The mean position of all voxels above 0, in the coordinates that the label's affine leads to.

    These are the pixels of a photograph, in the order (x, y), and millimetres of a volume. MONAI's spatial transforms
    keep them: whatever was done to an image, ``ApplyTransformToPointsd`` takes them to its voxels.

    Args:
        keys: label maps.
        output_keys: what the centres are stored under.

    Shape:
        (1, *spatial) to (spatial_dims,), float64. NaN where no voxel is above 0.

    Raises:
        ValueError: where there are not as many output keys as keys.

    Example:
        >>> label = torch.zeros(1, 8, 8)
        >>> label[0, 2:4, 5] = 1
        >>> CentreOfMassd("label", "centre")({"label": label})["centre"].tolist()
        [2.5, 5.0]
    """

    def __init__(self, keys: KeysCollection, output_keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = pair_keys(self.keys, output_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key, output_key in self.key_iterator(item, self.output_keys):
            label = item[key]
            voxels = torch.nonzero(convert_to_tensor(label)[0] > 0).double().mean(dim=0)
            affine = _affine(label, len(voxels))
            item[output_key] = affine[:-1, :-1] @ voxels + affine[:-1, -1]
        return item


class EquivalentDiameterd(MapTransform):
    """The diameter of the disc (2-D) or ball (3-D) that is as large as all voxels above 0 together.

    2-D: d = 2 sqrt(A / pi); 3-D: d = (6 V / pi)^(1/3); in the units that the label's affine leads to, pixels of a
    photograph or millimetres of a volume.

    Args:
        keys: label maps; an item may lack them.
        output_keys: what the diameters are stored under.

    Shape:
        (1, *spatial) to (1,), float64. NaN where the item has no label, or no voxel is above 0.

    Raises:
        ValueError: where there are not as many output keys as keys.

    Example:
        >>> measure = EquivalentDiameterd("label", "diameter")
        >>> round(measure({"label": torch.ones(1, 8, 8)})["diameter"].item(), 3)  # 16 / sqrt(pi)
        9.027
        >>> measure({})["diameter"].item()
        nan
    """

    def __init__(self, keys: KeysCollection, output_keys: KeysCollection) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.output_keys = pair_keys(self.keys, output_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key, output_key in zip(self.keys, self.output_keys, strict=True):
            item[output_key] = torch.full((1,), torch.nan, dtype=torch.float64)
            label = item.get(key)
            if label is not None and (convert_to_tensor(label) > 0).any():
                item[output_key] = _diameter(label)
        return item


def _diameter(label: torch.Tensor) -> torch.Tensor:
    spatial_dims = label.ndim - 1
    voxel = abs(np.linalg.det(_affine(label, spatial_dims)[:-1, :-1].numpy()))
    size = voxel * int((convert_to_tensor(label) > 0).sum())
    diameter = 2 * (size / pi) ** 0.5 if spatial_dims == 2 else (6 * size / pi) ** (1 / 3)
    return torch.tensor([diameter], dtype=torch.float64)
