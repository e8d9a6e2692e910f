"""Counts of objects that are found, for several thresholds of overlap (intersection over union)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from scipy import sparse

from .label_maps import read_object_map, require_object_maps, require_same_shape
from .named_measures import NamedMeasures

__all__ = ["THRESHOLDS", "ObjectMatches", "match_counts"]

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def _number_objects(image: NdarrayOrTensor, name: str) -> np.ndarray:
    """The objects of a label map numbered from 1 without gaps, and 0 for the background."""
    labels = read_object_map(image, name)
    ids, numbers = np.unique(labels, return_inverse=True)
    return numbers.reshape(labels.shape) + (0 not in ids)


def match_counts(prediction: NdarrayOrTensor, truth: NdarrayOrTensor) -> np.ndarray:
    """True positives, false positives and false negatives of one image at each of ``THRESHOLDS``.

    A predicted and a true object match at t where |intersection| / |union| > t. As every t is 0.5 at least, an object
    has one match at most, and nothing has to be assigned.

    Args:
        prediction: predicted objects, integers; 0 is background, each other number an object.
        truth: true objects, likewise.

    Shape:
        (H, W) or (H, W, D), both, to (10, 3).

    Raises:
        ValueError: when a map does not hold integers >= 0, or when the shapes differ.

    Source:
        The 2018 Data Science Bowl: Caicedo et al. 2019, Nature Methods 16, 1247-1253, "evaluation metrics".

    Example:
        >>> truth = np.array([[1, 1, 1, 1, 0, 2, 2]])
        >>> prediction = np.array([[0, 7, 7, 7, 0, 0, 9]])  # 3 of 4 shared, 1 of 2
        >>> match_counts(prediction, truth)[[0, 4, 5]].tolist()  # at 0.5, 0.7 and 0.75
        [[1, 1, 1], [1, 1, 1], [0, 2, 2]]
    """
    p, t = _number_objects(prediction, "prediction"), _number_objects(truth, "truth")
    require_same_shape(p, t)
    shape = (p.max() + 1, t.max() + 1)
    shared_px = sparse.coo_array((np.ones(p.size, dtype=int), (p.ravel(), t.ravel())), shape=shape)
    shared_px.sum_duplicates()
    p_px, t_px = shared_px.sum(axis=1), shared_px.sum(axis=0)
    rows, columns = shared_px.coords
    objects = (rows > 0) & (columns > 0)
    rows, columns, both_px = rows[objects], columns[objects], shared_px.data[objects]
    iou = both_px / (p_px[rows] + t_px[columns] - both_px)
    num_tp = np.count_nonzero(iou[None] > np.array(THRESHOLDS)[:, None], axis=1)
    return np.stack([num_tp, shape[0] - 1 - num_tp, shape[1] - 1 - num_tp], axis=1)


def _f1(counts: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN) at each threshold; 1 where there is no object on either side."""
    tp, fp, fn = counts.T
    return np.divide(2 * tp, 2 * tp + fp + fn, out=np.ones(len(counts)), where=(tp + fp + fn) > 0)


def _average_precision(counts: np.ndarray) -> float:
    """Mean over the thresholds of TP / (TP + FP + FN), what the Data Science Bowl calls average precision."""
    tp, fp, fn = counts.T
    return float(np.divide(tp, tp + fp + fn, out=np.ones(len(counts)), where=(tp + fp + fn) > 0).mean())


class ObjectMatches(NamedMeasures):
    """F1 of objects by overlap, and their mean average precision, over batches: of all images as one, or their mean.

    Args:
        names: one or several of "f1_50", "f1_55", ... "f1_95", 2 TP / (2 TP + FP + FN) where intersection over union
            must be above 0.50 ... 0.95, "f1_mean" of these ten, and "ap", the mean over the ten of TP / (TP + FP + FN).
        pooled: count the objects of all images together, so that an image counts by its objects; otherwise the mean of
            the images' own values, as in the Data Science Bowl.

    Shape:
        - prediction and truth: (N, 1, H, W) or (N, 1, H, W, D), or a list of (1, H, W) or (1, H, W, D), which may
          differ in size from image to image; integers, 0 background, each other number an object.
        - result of a call, and of ``get_buffer()``: pooled (N, 30), the counts; otherwise (N, number of names).
        - result of ``aggregate()``: (number of names,).

    Raises:
        ValueError: when a name is unknown, when prediction and truth do not have the shapes above, and as
            :func:`match_counts` does; ``aggregate()`` when there was no image yet.

    Source:
        As :func:`match_counts`. MONAI's ``PanopticQualityMetric`` gives the F1 at one threshold as its "rq", with a
        matrix of all pairs and no average precision.

    Example:
        >>> truth = torch.tensor([[[[1, 0, 2, 0]]], [[[1, 1, 0, 0]]]])  # two images of one channel each
        >>> prediction = torch.tensor([[[[1, 0, 0, 0]]], [[[1, 1, 0, 0]]]])
        >>> metric = ObjectMatches(["f1_50", "ap"])
        >>> _ = metric(prediction, truth)
        >>> metric.aggregate()  # 2 true positives, 1 false negative
        tensor([0.8000, 0.6667], dtype=torch.float64)
    """

    measures: ClassVar = {
        **{f"f1_{round(100 * t)}": (lambda counts, i=i: float(_f1(counts)[i])) for i, t in enumerate(THRESHOLDS)},
        "f1_mean": lambda counts: float(_f1(counts).mean()),
        "ap": _average_precision,
    }

    def __init__(self, names: str | Sequence[str], pooled: bool = True) -> None:
        super().__init__(names)
        self.pooled = pooled

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        require_object_maps(y_pred, y)
        images = [match_counts(p[0], t[0]) for p, t in zip(y_pred, y, strict=True)]
        rows = [counts.ravel().tolist() if self.pooled else self._measures(counts) for counts in images]
        return torch.tensor(rows, dtype=torch.float64, device="cpu")

    def _measures(self, counts: np.ndarray) -> list[float]:
        return [self.measures[name](counts) for name in self.names]

    def aggregate(self) -> torch.Tensor:
        """Each measure over all images since the last reset."""
        rows = self._rows()
        if not self.pooled:
            return rows.mean(dim=0)
        counts = rows.sum(dim=0).reshape(len(THRESHOLDS), 3).numpy()
        return rows.new_tensor(self._measures(counts))
