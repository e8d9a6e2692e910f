"""Pixel error, Rand scores and information scores of a membrane map that divides an image into cells.

In every map of this module membrane is 1 and the inside of a cell is 0. Cells are 4-connected, so that a membrane that
is only 8-connected (a diagonal line one pixel wide) keeps two cells apart.
"""

from __future__ import annotations

import numpy as np
from monai.config import NdarrayOrTensor
from monai.utils import convert_to_numpy
from skimage.measure import label
from skimage.segmentation import expand_labels, watershed

from .label_maps import require_same_shape
from .label_scores import SplitMergeScores, info_scores, rand_scores, require_any_cell

__all__ = [
    "grow_cells",
    "label_cells",
    "pixel_error",
    "pixel_f_error",
    "rand_error",
    "rand_info_scores",
]


def membrane_map(image: NdarrayOrTensor, name: str) -> np.ndarray:
    """``image`` as bools, true on the membrane; raises ValueError where it is not (H, W) of zeros and ones."""
    array = convert_to_numpy(image)
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; expected (H, W): pass one image without its channel axis")
    if not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"{name} holds values from {array.min()} to {array.max()}; expected 0 (cell) and 1 (membrane): threshold it"
        )
    return array.astype(bool)


def membrane_maps(prediction: NdarrayOrTensor, truth: NdarrayOrTensor) -> tuple[np.ndarray, np.ndarray]:
    """Both maps as :func:`membrane_map` gives them; raises ValueError where their shapes differ."""
    maps = membrane_map(prediction, "prediction"), membrane_map(truth, "truth")
    require_same_shape(*maps)
    return maps


def pixel_error(prediction: NdarrayOrTensor, truth: NdarrayOrTensor) -> float:
    """Share of pixels that differ, (1/N) sum (prediction - truth)^2.

    Args:
        prediction: predicted membranes, 1 membrane, 0 cell.
        truth: true membranes, likewise.

    Shape:
        (H, W), both.

    Raises:
        ValueError: when a map is not (H, W) of zeros and ones, or when the shapes differ.

    Example:
        >>> pixel_error(np.array([[0, 1, 0, 0]]), np.array([[0, 0, 1, 0]]))
        0.5
    """
    prediction, truth = membrane_maps(prediction, truth)
    return float(np.mean(prediction != truth))


def pixel_f_error(prediction: NdarrayOrTensor, truth: NdarrayOrTensor) -> float:
    """1 - F of the cell pixels: F = 2 TP / (2 TP + FP + FN), TP the number of pixels that are cell in both maps.

    The ISBI 2012 challenge draws cells white and takes white for the positive class.

    Args:
        prediction: predicted membranes, 1 membrane, 0 cell.
        truth: true membranes, likewise.

    Shape:
        (H, W), both.

    Raises:
        ValueError: as :func:`pixel_error`, and when the truth has no cell pixel.

    Example:
        >>> pixel_f_error(np.array([[0, 1, 1, 1]]), np.array([[0, 0, 0, 1]]))  # TP 1, FP 0, FN 2
        0.5
    """
    prediction, truth = membrane_maps(prediction, truth)
    require_any_cell(~truth)
    num_cell_pixels = np.count_nonzero(~prediction) + np.count_nonzero(~truth)
    return float(1 - 2 * np.count_nonzero(~prediction & ~truth) / num_cell_pixels)


def label_cells(membrane: NdarrayOrTensor) -> np.ndarray:
    """The cells of a membrane map: its 4-connected regions of 0, numbered from 1, and 0 on the membrane.

    Args:
        membrane: 1 membrane, 0 cell.

    Shape:
        (H, W) to (H, W).

    Raises:
        ValueError: when the map is not (H, W) of zeros and ones.

    Example:
        >>> label_cells(np.array([[0, 1], [1, 0]]))
        array([[1, 0],
               [0, 2]], dtype=int32)
    """
    return label(~membrane_map(membrane, "membrane"), connectivity=1).astype(np.int32)


def grow_cells(membrane: NdarrayOrTensor, probability: NdarrayOrTensor | None = None) -> np.ndarray:
    """The cells of :func:`label_cells`, grown until no membrane pixel is left: each joins its nearest cell.

    Args:
        membrane: 1 membrane, 0 cell.
        probability: probability of membrane, or any other height; the cells then grow as a watershed floods it, and
            meet on its ridges instead of halfway.

    Shape:
        (H, W), both, to (H, W). All 0 where the map has no cell to grow.

    Raises:
        ValueError: when the map is not (H, W) of zeros and ones, or when the shapes differ.

    Source:
        Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image segmentation algorithms for connectomics",
        Frontiers in Neuroanatomy 9:142, who thin predicted borders before scoring, so that their width does not count.
        Differs from the paper: no line, one pixel wide, is left between the cells.

    Example:
        >>> grow_cells(np.array([[0, 0, 1, 1, 1, 1, 0]]))
        array([[1, 1, 1, 1, 2, 2, 2]], dtype=int32)
    """
    cells = label_cells(membrane)
    if probability is None:
        return expand_labels(cells, distance=np.inf)
    height = convert_to_numpy(probability)
    if height.shape != cells.shape:
        raise ValueError(
            f"probability has shape {height.shape} and membrane {cells.shape}; expected the same: "
            "pass one map without its channel axis"
        )
    return watershed(height, cells)


def rand_info_scores(
    prediction: NdarrayOrTensor, truth: NdarrayOrTensor, *, thin: bool = True
) -> tuple[SplitMergeScores, SplitMergeScores]:
    """V_rand and V_info of two membrane maps: :func:`rand_scores` and :func:`info_scores` of their cells.

    Membrane that is predicted inside a true cell joins no pixels: each of its pixels counts as a cell of its own.

    Args:
        prediction: predicted membranes, 1 membrane, 0 cell.
        truth: true membranes, likewise; its membrane pixels are left out of the scores.
        thin: grow the predicted cells into the predicted membrane first (:func:`grow_cells`), so that the width of the
            predicted membranes does not count.

    Shape:
        (H, W), both.

    Raises:
        ValueError: when a map is not (H, W) of zeros and ones, when the shapes differ, or when the truth has no cell
            pixel.

    Source:
        Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142.

    Example:
        >>> truth = np.array([[0, 0, 0, 1, 0, 0, 0]])
        >>> thick = np.array([[0, 0, 1, 1, 1, 0, 0]])
        >>> v_rand, v_info = rand_info_scores(thick, truth)
        >>> v_rand.f, rand_info_scores(thick, truth, thin=False)[0].f  # without: 4 of 12 ordered pairs are kept
        (1.0, 0.5)
    """
    prediction, truth = membrane_maps(prediction, truth)
    labels = grow_cells(prediction) if thin else label_cells(prediction)
    unlabelled = labels == 0
    labels[unlabelled] = labels.max() + 1 + np.arange(np.count_nonzero(unlabelled))
    labels_truth = label_cells(truth)
    return rand_scores(labels, labels_truth), info_scores(labels, labels_truth)


def rand_error(prediction: NdarrayOrTensor, truth: NdarrayOrTensor, *, thin: bool = True) -> float:
    """1 - f of the Rand scores of two membrane maps over the pixels that are a cell in the truth.

    By default 1 - V_rand, for which the width of the predicted membranes does not count. With ``thin=False`` it is the
    foreground-restricted form of the ISBI 2012 challenge, whose scripts count no pair of a pixel that is predicted as
    membrane, so that wide membranes cost pairs.

    Args:
        prediction: predicted membranes, 1 membrane, 0 cell.
        truth: true membranes, likewise; its membrane pixels are left out.
        thin: as in :func:`rand_info_scores`.

    Shape:
        (H, W), both.

    Raises:
        ValueError: as :func:`rand_info_scores`.

    Source:
        Arganda-Carreras et al. 2015, Frontiers in Neuroanatomy 9:142.

    Example:
        >>> prediction, truth = np.array([[0, 0, 1, 0, 0]]), np.array([[0, 0, 0, 0, 0]])
        >>> rand_error(prediction, truth, thin=False)  # 1 - 2 (4) / (4 + 20)
        0.6666666666666667
    """
    return 1 - rand_info_scores(prediction, truth, thin=thin)[0].f
