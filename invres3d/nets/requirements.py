"""Checks of the arguments of networks and of image sizes.

unet_ode has its own checks, because neither package imports the other.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["require_levels", "require_positive", "require_volume"]


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
