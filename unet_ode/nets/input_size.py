"""Sizes of images that networks with poolings accept."""

from __future__ import annotations

import torch

__all__ = ["check_multiples"]


def check_multiples(x: torch.Tensor, step: int, name: str) -> None:
    """Make sure that every size of an image is a multiple of a network's step. TorchScript compiles it.

    Args:
        x: the network's input.
        step: product of the strides from the input to the lowest level.
        name: what the error calls the network.

    Shape:
        (N, C, *spatial).

    Raises:
        ValueError: where one is not.

    Example:
        >>> check_multiples(torch.zeros(1, 1, 16, 20), 8, "UNet")
        Traceback (most recent call last):
        ValueError: UNet got 20 voxels along axis 3; the nearest sizes that fit are 16 and 24: crop to 16 or pad to 24
    """
    for axis in range(2, x.dim()):
        size = x.size(axis)
        if size % step != 0 or size == 0:
            below, above = max(size // step, 1) * step, (size // step + 1) * step
            raise ValueError(
                f"{name} got {size} voxels along axis {axis}; the nearest sizes that fit are {below} and {above}: "
                f"crop to {below} or pad to {above}"
            )
