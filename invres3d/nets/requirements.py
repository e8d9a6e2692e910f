"""Checks of the arguments of networks and of image sizes.

unet_ode has its own checks, because neither package imports the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["require_levels", "require_long_types", "require_positive", "require_same_type", "require_volume"]

_SHORT_TYPES = (torch.float16, torch.bfloat16)


def require_volume(name: str, shape: list[int], in_channels: int, step: int, divisor: int) -> None:
    """Raise when a batch of volumes does not fit a network; the message names the size to pad to.

    Args:
        name: the network's name, for the message.
        shape: of the batch.
        in_channels: channels that the network takes.
        step: voxels that one at the deepest level stands for, along an axis.
        divisor: what the size must be a multiple of, itself a multiple of step.

    Raises:
        ValueError: when the batch is not (N, in_channels, D, H, W), when D, H or W is not a multiple of the divisor, or
            when there is a single voxel at the deepest level, over which a norm would be constant.

    Example:
        >>> require_volume("UNet3D", [1, 4, 20, 16, 16], 4, 8, 8)
        Traceback (most recent call last):
        ...
        ValueError: UNet3D got a volume of [20, 16, 16] voxels; expected multiples of 8, and at least 16 along ...
    """
    if len(shape) != 5 or shape[0] < 1 or shape[1] != in_channels:
        raise ValueError(f"{name} got shape {shape}; expected (N, {in_channels}, D, H, W) with N of at least 1")
    size = shape[2:]
    wanted = [(s + divisor - 1) // divisor * divisor for s in size]
    if max(wanted) <= step:
        wanted[-1] = 2 * step
    if size != wanted:
        raise ValueError(
            f"{name} got a volume of {size} voxels; expected multiples of {divisor}, and at least {2 * step} "
            f"along one axis: pad to {wanted}"
        )


def require_same_type(name: str, x: torch.Tensor, network: nn.Module) -> None:
    """Raise when an image is not of the type of a network's first weight, and autocast does not make them one.

    Args:
        name: what the error calls the network.
        x: the image.
        network: the network; one without weights takes any image.

    Raises:
        TypeError: when the types differ.

    Example:
        >>> require_same_type("UNet3D", torch.zeros(1, 1, 8, 8, 8).double(), nn.Conv3d(1, 1, 3))
        Traceback (most recent call last):
        TypeError: UNet3D got an image of torch.float64 and has weights of torch.float32; expected the same type: give \
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


def require_long_types(name: str, network: nn.Module) -> None:
    """Raise when a network has weights of 16 bits, too few for the states that its couplings add to.

    Args:
        name: what the error calls the network.
        network: the network.

    Raises:
        TypeError: when one has.

    Example:
        >>> require_long_types("FullyInvertibleUNet", nn.Conv3d(1, 1, 3).bfloat16())
        Traceback (most recent call last):
        TypeError: FullyInvertibleUNet has weights of torch.bfloat16; expected 32 bits at least: call float() on the \
network, and use torch.autocast for lower precision
    """
    short = next((p.dtype for p in network.parameters() if p.dtype in _SHORT_TYPES), None)
    if short is not None:
        raise TypeError(
            f"{name} has weights of {short}; expected 32 bits at least: call float() on the network, and use "
            "torch.autocast for lower precision"
        )


def require_positive(**numbers: int) -> None:
    """Raise when a number of channels or layers is not at least 1.

    Args:
        numbers: by the name of the argument.

    Raises:
        ValueError: when one is 0 or less.

    Example:
        >>> require_positive(num_couplings=0)
        Traceback (most recent call last):
        ValueError: num_couplings is 0; expected at least 1
    """
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; expected at least 1")


def require_levels(channels: Sequence[int]) -> None:
    """Raise unless there are two levels or more.

    Args:
        channels: of each level.

    Raises:
        ValueError: when there is one level.

    Example:
        >>> require_levels([8])
        Traceback (most recent call last):
        ValueError: channels is (8,); expected at least two levels
    """
    if len(channels) < 2:
        raise ValueError(f"channels is {tuple(channels)}; expected at least two levels")
