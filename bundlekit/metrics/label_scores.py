"""Rand and information scores of two label images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from monai.config import NdarrayOrTensor
from scipy import sparse
from scipy.special import entr
from skimage.metrics import contingency_table

from .label_maps import read_label_map, require_same_shape

__all__ = ["SplitMergeScores", "info_scores", "rand_scores", "require_any_cell"]

_REMEDY = "label the cells first (label_cells, grow_cells)"


class SplitMergeScores(NamedTuple):
    """A score and its two parts, each from 0 to 1 (best); f is the harmonic mean of split and merge.

    ``split`` falls where a true cell lies in several predicted ones, ``merge`` where a predicted cell covers several
    true ones.
    """

    f: float
    split: float
    merge: float


def require_any_cell(is_cell: np.ndarray) -> None:
    """Raise ValueError where no pixel of the truth is a cell."""
    if not is_cell.any():
        raise ValueError(
            f"truth of shape {is_cell.shape} has no cell pixel; expected at least one: check that membrane is 1 and "
            "cells are 0 in maps (0 and 1, 2, ... in labels), or leave the image out"
        )


def _overlaps(labels_prediction: NdarrayOrTensor, labels_truth: NdarrayOrTensor) -> sparse.csr_array:
    """Numbers of pixels by true and predicted label, over the pixels that are a cell in the truth."""
    prediction = read_label_map(labels_prediction, "prediction", _REMEDY)
    truth = read_label_map(labels_truth, "truth", _REMEDY)
    require_same_shape(prediction, truth)
    require_any_cell(truth != 0)
    return sparse.csr_array(contingency_table(truth, prediction, ignore_labels=(0,)))


def _share(part: float, whole: float) -> float:
    """part / whole, and 1 where there is nothing to have a share of: no pair to split, no boundary to miss."""
    return float(part / whole) if whole else 1.0


def _rand(overlaps: sparse.csr_array) -> SplitMergeScores:
    def ordered_pairs(sizes: np.ndarray) -> float:
        return float((sizes * (sizes - 1)).sum())

    both, true, predicted = (
        ordered_pairs(sizes) for sizes in (overlaps.data, overlaps.sum(axis=1), overlaps.sum(axis=0))
    )
    return SplitMergeScores(_share(2 * both, predicted + true), _share(both, true), _share(both, predicted))


def _info(overlaps: sparse.csr_array) -> SplitMergeScores:
    num_pixels = overlaps.sum()
    both, true, predicted = (
        entr(sizes / num_pixels).sum() for sizes in (overlaps.data, overlaps.sum(axis=1), overlaps.sum(axis=0))
    )
    mutual = np.clip(true + predicted - both, 0, min(true, predicted))  # rounding may take it just outside
    return SplitMergeScores(_share(2 * mutual, predicted + true), _share(mutual, predicted), _share(mutual, true))


def rand_scores(labels_prediction: NdarrayOrTensor, labels_truth: NdarrayOrTensor) -> SplitMergeScores:
    """Rand scores of two label images: the share of the pairs of pixels of one cell that stay together.

    With n_ij the number of pixels in true cell i and predicted cell j, P(n) = n (n - 1), t_i = sum_j n_ij and
    s_j = sum_i n_ij: split = sum P(n_ij) / sum P(t_i), merge = sum P(n_ij) / sum P(s_j) and
    f = sum P(n_ij) / (sum P(s_j) / 2 + sum P(t_i) / 2). Only pixels that are a cell in the truth count.

    Args:
        labels_prediction: predicted labels, integers >= 0; 0 is a label like any other.
        labels_truth: true labels, integers >= 0; pixels with label 0 are left out.

    Shape:
        Any, the same for both.

    Raises:
        ValueError: when the shapes differ, or when the truth has no cell pixel.

    Source:
        Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142, V^Rand with alpha = 1/2. Differs from the paper:
        a pixel makes no pair with itself, as in ``skimage.metrics.adapted_rand_error``, which is 1 - f.

    Example:
        >>> rand_scores(np.array([1, 1, 2, 2]), np.array([5, 5, 5, 0])).split  # 2 of 6 ordered pairs
        0.3333333333333333
    """
    return _rand(_overlaps(labels_prediction, labels_truth))


def info_scores(labels_prediction: NdarrayOrTensor, labels_truth: NdarrayOrTensor) -> SplitMergeScores:
    """Information scores of two label images: the mutual information I(S; T) as a share of the entropies H.

    For prediction S and truth T: split = I / H(S), merge = I / H(T), f = I / (H(S) / 2 + H(T) / 2). Only pixels that
    are a cell in the truth count.

    Args:
        labels_prediction: predicted labels, integers >= 0; 0 is a label like any other.
        labels_truth: true labels, integers >= 0; pixels with label 0 are left out.

    Shape:
        Any, the same for both.

    Raises:
        ValueError: when the shapes differ, or when the truth has no cell pixel.

    Source:
        Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142, V^info with alpha = 1/2.

    Example:
        >>> info_scores(np.array([1, 1, 2, 3]), np.array([5, 5, 7, 7])).split  # I = H(T) = log 2, H(S) = 3/2 log 2
        0.6666666666666666
    """
    return _info(_overlaps(labels_prediction, labels_truth))
