"""Checks of the arguments of networks and of image sizes.

invres3d has its own checks, because neither package imports the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["refuse_size", "require_levels", "require_multiples", "require_same_type", "require_spatial_dims"]

_SHORT_TYPES = (torch.float16, torch.bfloat16)


def require_spatial_dims(spatial_dims: int) -> None:
    """Raise unless a network is asked for in 2-D or 3-D.

    Args:
        spatial_dims: number of spatial axes.

    Raises:
        ValueError: for any other number than 2 and 3.

    Example:
        >>> require_spatial_dims(1)
        Traceback (most recent call last):
        ValueError: spatial_dims is 1; expected 2 or 3
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims is {spatial_dims}; expected 2 or 3")


def require_levels(channels: Sequence[int]) -> None:
    """Raise unless a network has two levels or more.

    Args:
        channels: of each level.

    Raises:
        ValueError: when there are fewer.

    Example:
        >>> require_levels([8])
        Traceback (most recent call last):
        ValueError: channels is (8,); expected at least two levels
    """
    if len(channels) < 2:
        raise ValueError(f"channels is {tuple(channels)}; expected at least two levels")


def refuse_size(name: str, axis: int, size: int, below: int, above: int) -> None:
    """Raise for a size that does not fit a network. TorchScript compiles it.

    Args:
        name: what the error calls the network.
        axis: axis of the input.
        size: its size.
        below: the next smaller size that fits; where there is none, the smallest one of all.
        above: the next larger size that fits.

    Raises:
        ValueError: always.

    Example:
        >>> refuse_size("UNet", 2, 5, 8, 8)
        Traceback (most recent call last):
        ValueError: UNet got 5 voxels along axis 2; the smallest size that fits is 8: pad to 8
    """
    if below > size:
        raise ValueError(
            f"{name} got {size} voxels along axis {axis}; the smallest size that fits is {above}: pad to {above}"
        )
    raise ValueError(
        f"{name} got {size} voxels along axis {axis}; the nearest sizes that fit are {below} and {above}: "
        f"crop to {below} or pad to {above}"
    )


def require_multiples(x: torch.Tensor, step: int, name: str) -> None:
    """Raise unless every size of an image is a multiple of a network's step. TorchScript compiles it.

    Args:
        x: the network's input.
        step: product of the strides from the input to the lowest level.
        name: what the error calls the network.

    Shape:
        (N, C, *spatial).

    Raises:
        ValueError: where one is not.

    Example:
        >>> require_multiples(torch.zeros(1, 1, 16, 20), 8, "UNet")
        Traceback (most recent call last):
        ValueError: UNet got 20 voxels along axis 3; the nearest sizes that fit are 16 and 24: crop to 16 or pad to 24
    """
    for axis in range(2, x.dim()):
        size = x.size(axis)
        if size % step != 0 or size == 0:
            refuse_size(name, axis, size, max(size // step, 1) * step, (size // step + 1) * step)


def require_same_type(name: str, x: torch.Tensor, network: nn.Module) -> None:
    """Raise when an image is not of the type of a network's first weight, and autocast does not make them one.

    Args:
        name: what the error calls the network.
        x: the image.
        network: the network; one without weights takes any image.

    Raises:
        TypeError: when the types differ.

    Example:
        >>> require_same_type("UNet", torch.zeros(1, 1, 8, 8).double(), nn.Conv2d(1, 1, 3))
        Traceback (most recent call last):
        TypeError: UNet got an image of torch.float64 and has weights of torch.float32; expected the same type: give \
it image.to(torch.float32)
    """
    weight = next(network.parameters(), None)
    if weight is None or x.dtype == weight.dtype:
        return
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if autocast and {x.dtype, weight.dtype} <= {torch.float32, *_SHORT_TYPES}:
        return
    remedy = f"give it image.to({weight.dtype})"
    if weight.dtype in _SHORT_TYPES:
        remedy = "call float() on the network, and use torch.autocast for lower precision"
    raise TypeError(
        f"{name} got an image of {x.dtype} and has weights of {weight.dtype}; expected the same type: {remedy}"
    )
