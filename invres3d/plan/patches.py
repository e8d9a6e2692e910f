"""Finds the largest patch that fits."""

from __future__ import annotations

from dataclasses import replace

from .prediction import Prediction, predict

__all__ = ["largest_cube"]

_STEP = 16


def _fits(prediction: Prediction, memory_bytes: int) -> bool:
    return prediction.total_bytes <= memory_bytes


def largest_cube(known: Prediction, memory_bytes: int) -> Prediction | None:
    """The same training on the largest cube, of a multiple of 16 voxels a side, whose total fits; None when none does.

    Args:
        known: a prediction for any patch. The search starts at the side that it suggests, the memory being about
            proportional to the voxels.
        memory_bytes: what there is.

    Example:
        >>> from .prediction import Training
        >>> found = predict(Training("UNet3D", "none", patch=(16, 16, 16), in_channels=1, channels=(8, 16)))
        >>> largest_cube(found, 2**24).training.patch
        (32, 32, 32)
    """
    voxels = known.training.patch[0] * known.training.patch[1] * known.training.patch[2]
    varying = max(known.live_bytes + known.batch_bytes, 1)
    left = memory_bytes - known.total_bytes + varying
    side = max(1, int((max(left, 0) / varying * voxels) ** (1 / 3) / _STEP))

    def at(steps: int) -> Prediction:
        return predict(replace(known.training, patch=(steps * _STEP,) * 3))

    found = at(side)
    if _fits(found, memory_bytes):
        while _fits(larger := at(side + 1), memory_bytes):
            found, side = larger, side + 1
        return found
    while side > 1:
        side -= 1
        if _fits(found := at(side), memory_bytes):
            return found
    return None
