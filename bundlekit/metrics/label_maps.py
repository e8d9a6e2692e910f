"""Checks of the inputs of label metrics: integers from 0, the same shape, one channel."""

from __future__ import annotations

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.utils import convert_to_numpy

__all__ = ["read_label_map", "read_object_map", "require_object_maps", "require_same_shape"]


def read_label_map(image: NdarrayOrTensor, name: str, remedy: str) -> np.ndarray:
    """A label map as an array.

    Args:
        image: whole numbers from 0.
        name: what the error calls it.
        remedy: how to make one.

    Raises:
        ValueError: where it holds other types or numbers below 0.

    Example:
        >>> read_label_map(np.array([0.5]), "truth", "label the cells first")
        Traceback (most recent call last):
        ValueError: truth holds float64 from 0.5; expected integers >= 0: label the cells first
    """
    labels = convert_to_numpy(image)
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"{name} holds {labels.dtype} from {labels.min()}; expected integers >= 0: {remedy}")
    return labels


def read_object_map(image: NdarrayOrTensor, name: str) -> np.ndarray:
    """A label map whose numbers from 1 are each an object, as :func:`read_label_map` gives it."""
    remedy = "label a mask first (skimage.measure.label), cast labels that are stored as floats"
    return read_label_map(image, name, f"one for each object; {remedy}")


def require_same_shape(prediction: np.ndarray, truth: np.ndarray) -> None:
    """Raise ValueError where the shapes of two maps differ."""
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction has shape {prediction.shape} and truth {truth.shape}; expected the same: "
            "resample the prediction to the truth's pixels"
        )


def require_object_maps(prediction: torch.Tensor, truth: torch.Tensor) -> None:
    """Raise ValueError unless both are (N, 1, H, W) or (N, 1, H, W, D), of one shape."""
    if prediction.shape != truth.shape or prediction.ndim not in (4, 5) or prediction.shape[1] != 1:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)} and truth {tuple(truth.shape)}; expected (N, 1, H, W) or "
            "(N, 1, H, W, D), both: turn the network's output into one map of objects, of the truth's size"
        )
