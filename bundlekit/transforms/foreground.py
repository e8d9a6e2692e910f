"""Marks the voxels of a volume without skull that are not background, for a mask of the result."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from .dictionary import pair_keys

__all__ = ["NonzeroMaskd"]


def _find_background(volume: torch.Tensor) -> torch.Tensor:
    """The background of each channel of a volume (channels, x, y, z), as (channels, 1, 1, 1)."""
    if isinstance(volume, MetaTensor):
        volume = volume.as_tensor()
    values = volume[:, 0, 0, 0].clone()
    for i, channel in enumerate(volume):
        corners = channel[:: max(channel.shape[0] - 1, 1), :: max(channel.shape[1] - 1, 1)]
        corners = corners[..., :: max(channel.shape[2] - 1, 1)]
        is_background = bool((corners == values[i]).all())
        if not is_background or values[i] == 0 or (channel == values[i]).sum() <= (channel == 0).sum():
            values[i] = 0
    return values[:, None, None, None]


class NonzeroMaskd(MapTransform):
    """A mask of the voxels that are not background in every channel, before any other transform changes values or grid.

    Background is 0. A channel whose eight corners hold one value other than 0, which more of its voxels hold than 0, as
    where it was normalised together with its background, is shifted so that this value becomes 0; a normalisation that
    leaves out zeros then gives what it gives for the same volume with a background of 0.

    For MONAI's ``MaskIntensityd`` on a result that was brought back to the grid of the file. A mask from the volume as
    a network sees it would take in what interpolation smears over the border of the brain.

    Args:
        keys: volumes; those with a background of 0 stay as they are.
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
            background = _find_background(torch.as_tensor(item[key]))
            if background.any():
                item[key] = item[key] - background
            mask = (item[key] != 0).any(0, keepdim=True)
            item[mask_key] = mask.as_tensor() if isinstance(mask, MetaTensor) else mask
        return item
