"""Converts overlapping regions, such as a tumour and its core, to a label map and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["LabelsToRegionsd", "RegionsToLabelsd"]


class LabelsToRegionsd(MapTransform):
    """A channel for each region, 1 where the label is one of the region's and 0 elsewhere.

    Args:
        keys: label maps to change.
        regions: labels of each region by its name, in the order of the channels.

    Shape:
        - input: (1, x, y, z). Output: (regions, x, y, z), float32.

    Raises:
        ValueError: where the input has another number of channels.

    Example:
        >>> regions = {"tumour": [1, 2], "core": [1]}
        >>> item = {"label": torch.tensor([[[[0.0, 1.0, 2.0]]]])}
        >>> LabelsToRegionsd("label", regions)(item)["label"].reshape(2, 3).tolist()
        [[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]
    """

    def __init__(self, keys: KeysCollection, regions: Mapping[str, Sequence[int]]) -> None:
        super().__init__(keys)
        self.regions = regions

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            labels = item[key]
            if len(labels) != 1:
                raise ValueError(f"{key!r} has {len(labels)} channels; expected a label map of 1 channel")
            item[key] = torch.cat(
                [sum(labels == value for value in values) for values in self.regions.values()]
            ).float()
        return item


class RegionsToLabelsd(MapTransform):
    """One label map from the probabilities of regions: painted one after the other, the last one on top.

    The regions of the result are nested where each lies in the one before by its labels: what is painted on top belongs
    to all of them, even where their own probability is below the threshold.

    Args:
        keys: probabilities to change.
        values: the label to paint for each channel.
        threshold: probability above which a voxel belongs to a region.

    Shape:
        - input: (regions, x, y, z). Output: (1, x, y, z).

    Raises:
        ValueError: where the input does not have a channel for each value.

    Example:
        >>> item = {"pred": torch.tensor([[0.9, 0.9, 0.2], [0.1, 0.8, 0.7]]).reshape(2, 1, 1, 3)}
        >>> RegionsToLabelsd("pred", values=[2, 1])(item)["pred"].flatten().tolist()
        [2.0, 1.0, 1.0]
    """

    def __init__(self, keys: KeysCollection, values: Sequence[int], threshold: float = 0.5) -> None:
        super().__init__(keys)
        self.values = values
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            probabilities = item[key]
            if len(probabilities) != len(self.values):
                raise ValueError(f"{key!r} has {len(probabilities)} channels; expected one for each of {self.values}")
            labels = torch.zeros_like(probabilities[:1])
            for i, value in enumerate(self.values):
                labels[probabilities[i : i + 1] > self.threshold] = value
            item[key] = labels
        return item
