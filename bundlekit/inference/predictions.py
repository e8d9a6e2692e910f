"""Checks what a network has returned before anything is made of it, and the device where it has failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from torch import nn

from ..errors import InputError, describe
from ..inputs.preconditions import find_device_failure

__all__ = ["check_devices", "check_prediction", "explain", "is_finite"]


def _tensors(prediction: Any) -> Iterator[torch.Tensor]:
    """The tensors of a prediction, which may be one, or a dict, tuple or list of predictions."""
    if isinstance(prediction, torch.Tensor):
        yield prediction.as_tensor() if isinstance(prediction, MetaTensor) else prediction
    elif isinstance(prediction, Mapping):
        yield from _tensors(list(prediction.values()))
    elif isinstance(prediction, list | tuple):
        for part in prediction:
            yield from _tensors(part)


def is_finite(values: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite; ``torch.isfinite`` would take as much memory again as the tensor has.

    Example:
        >>> is_finite(torch.tensor([1.0, 2.0])), is_finite(torch.tensor([1.0, torch.inf]))
        (True, False)
    """
    if not values.is_floating_point() or not values.numel():
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(values))).all())


def check_prediction(prediction: Any, file: str) -> None:
    """Make sure that a network's output has neither NaN nor infinity.

    Args:
        prediction: a tensor of any shape, or a dict, tuple or list of such.
        file: the image that it was predicted from.

    Raises:
        InputError: naming the file.

    Example:
        >>> check_prediction(torch.tensor([0.5, float("nan"), 2.0]), "a.png")
        Traceback (most recent call last):
        bundlekit.errors.InputError: a.png: the network's output has 1 of 3 values that are NaN or infinite; expected \
finite numbers; look at the image's intensities, or pass --amp false where it is on
    """
    for values in _tensors(prediction):
        if not is_finite(values):
            number = values.numel() - int(torch.isfinite(values).sum())
            found = f"the network's output has {number} of {values.numel()} values that are NaN or infinite"
            remedy = "look at the image's intensities, or pass --amp false where it is on"
            raise InputError(file, found, "finite numbers", remedy)


def explain(error: BaseException) -> str:
    """The original error in a few words; MONAI's transforms wrap it into errors that only name the transform.

    Args:
        error: the exception that was caught.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return describe(error) if isinstance(error, Exception) else type(error).__name__


def check_devices(devices: Iterable[torch.device | str], network: nn.Module, file: str, reason: str) -> None:
    """Make sure that a failure was one of this file: after some CUDA errors every call fails, whatever the file is.

    Args:
        devices: those that the images are moved to.
        network: the network, whose weights may be on others.
        file: the image that failed.
        reason: why it failed.

    Raises:
        InputError: where a device computes nothing any more, for other reasons than that its memory is full.

    Example:
        >>> check_devices(["cpu"], nn.Linear(2, 2), "a.png", "ValueError: too many values")
    """
    for device in {*map(torch.device, devices), *(weights.device for weights in network.parameters())}:
        failure = find_device_failure(device)
        if failure is not None and not isinstance(failure, torch.cuda.OutOfMemoryError):  # the next file may need less
            found = f"device {device} stopped working at it ({reason}; then {describe(failure)})"
            remedy = "start the run again, or pass --device cpu"
            raise InputError(file, found, "a device that works to the end", remedy)
