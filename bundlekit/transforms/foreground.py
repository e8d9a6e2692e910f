"""Marks the voxels of a volume without skull that are not background, for a mask of the result."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from .dictionary import pair_keys

__all__ = ["NonzeroMaskd"]


class NonzeroMaskd(MapTransform):
    """A mask of the voxels that are not 0 in every channel, before any other transform changes values or grid.

    For MONAI's ``MaskIntensityd`` on a result that was brought back to the grid of the file. A mask from the volume as
    a network sees it would take in what interpolation smears over the border of the brain.

    Args:
        keys: volumes, which stay as they are.
        mask_keys: key of each one's mask.

    Shape:
        - input: (channels, x, y, z). Output: (1, x, y, z), bool.

    Example:
        >>> import torch
        >>> item = {"image": torch.tensor([[0.0, 0, 2], [0, -1, 0]]).reshape(2, 1, 1, 3)}
        >>> NonzeroMaskd("image", "brain")(item)["brain"].flatten().tolist()
        [False, True, True]
    """

    def __init__(self, keys: KeysCollection, mask_keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_keys = pair_keys(self.keys, mask_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key, mask_key in self.key_iterator(item, self.mask_keys):
            mask = (item[key] != 0).any(0, keepdim=True)
            item[mask_key] = mask.as_tensor() if isinstance(mask, MetaTensor) else mask
        return item
