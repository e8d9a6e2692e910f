"""MONAI metric with the scores of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from functools import reduce
from operator import add, attrgetter
from typing import ClassVar

import torch

from .label_maps import require_object_maps
from .named_measures import NamedMeasures
from .object_statistics import ObjectStatistics, object_statistics

__all__ = ["ObjectMetrics"]


class ObjectMetrics(NamedMeasures):
    """Measures of the objects of predicted label maps, gathered over batches: of all images as one, or their mean.

    Args:
        names: one or several of "object_f1", "object_dice", "object_hausdorff": the measures of
            :class:`ObjectStatistics`. Distances are worked out for the last one only.
        pooled: weigh and count the objects of all images together, as the GlaS contest does, so that an image counts
            by its objects; otherwise the mean of the images' own values.

    Shape:
        - prediction and truth: (N, 1, H, W) or (N, 1, H, W, D), or a list of (1, H, W) or (1, H, W, D), which may
          differ in size from image to image; integers, 0 background, each other number an object.
        - result of a call, and of ``get_buffer()`` over all calls: pooled (N, 9), the fields of
          :class:`ObjectStatistics`, which are no scores to save as an image's details; otherwise
          (N, number of names), the values of each image.
        - result of ``aggregate()``: (number of names,).

    Raises:
        ValueError: when a name is unknown, when prediction and truth do not have the shapes above, and as
            :func:`object_statistics` does; ``aggregate()`` when there was no image yet.

    Source:
        Sirinukunwattana et al. 2017, Medical Image Analysis 35, 489-502 (pooled).

    Example:
        >>> truth = torch.tensor([[[[1, 0, 2, 0]]], [[[1, 1, 0, 0]]]])  # two images of one channel each
        >>> prediction = torch.tensor([[[[1, 0, 0, 0]]], [[[1, 1, 0, 0]]]])
        >>> per_image = ObjectMetrics("object_f1", pooled=False)
        >>> per_image(prediction, truth).ravel().tolist(), per_image.aggregate().tolist()
        ([0.6666666666666666, 1.0], [0.8333333333333333])
        >>> metric = ObjectMetrics("object_f1")
        >>> _ = metric(prediction, truth)
        >>> metric.aggregate().tolist()  # 2 true positives, 1 false negative
        [0.8]
    """

    measures: ClassVar = {
        "object_dice": attrgetter("object_dice"),
        "object_f1": attrgetter("f1"),
        "object_hausdorff": attrgetter("object_hausdorff"),
    }

    def __init__(self, names: str | Sequence[str], pooled: bool = True) -> None:
        super().__init__(names)
        self.pooled = pooled

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        require_object_maps(y_pred, y)
        hausdorff = "object_hausdorff" in self.names
        images = [object_statistics(p[0], t[0], hausdorff=hausdorff) for p, t in zip(y_pred, y, strict=True)]
        rows = [astuple(image) if self.pooled else self._measures(image) for image in images]
        # float32 would round areas above 2^24 pixels, and not every device has float64
        return torch.tensor(rows, dtype=torch.float64, device="cpu")

    def _measures(self, statistics: ObjectStatistics) -> tuple[float, ...]:
        return tuple(self.measures[name](statistics) for name in self.names)

    def aggregate(self) -> torch.Tensor:
        """Each measure over all images since the last reset."""
        rows = self._rows()
        if not self.pooled:
            return rows.mean(dim=0)
        statistics = reduce(add, (ObjectStatistics(*row) for row in rows.tolist()))
        return rows.new_tensor(self._measures(statistics))
