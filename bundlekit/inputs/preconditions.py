"""Checks of what a run requires: data, folders, weights, a device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.distributed as dist

from ..errors import InputError, describe
from ..files import require_writable_folder
from .datalists import require_inputs_outside

__all__ = [
    "Need",
    "check_device",
    "check_output_dir",
    "check_save_path",
    "empty_lists",
    "failures",
    "find_device_failure",
    "lists_too_short",
]

Need: TypeAlias = tuple[Any, Callable[[Any], None]]
"""A value, and a check that raises InputError where it will not do."""


def empty_lists(data: Sequence[Sequence[Any]]) -> list[InputError]:
    names = [f"data list {i} of {len(data)}" for i, items in enumerate(data, 1) if len(items) == 0]
    remedy = "correct --dataset_dir or the list that was passed"
    return [InputError(name, "is empty", "at least one entry", remedy) for name in names]


def lists_too_short(data: Sequence[Sequence[Any]]) -> list[InputError]:
    """Those that leave a process of a training by several without an image."""
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    found = [(f"data list {i} of {len(data)}", len(items)) for i, items in enumerate(data, 1) if 0 < len(items) < world]
    expected, remedy = f"at least {world}, one for each process", "start fewer processes, or add images to the list"
    return [InputError(name, f"has {length} entries", expected, remedy) for name, length in found]


def check_output_dir(path: str, data: Sequence[Sequence[Any]]) -> None:
    require_writable_folder(path, "pass another one with --output_dir")
    require_inputs_outside(path, chain.from_iterable(data))


def check_save_path(path: str) -> None:
    if os.path.isdir(Path(path)):
        raise InputError(path, "is a folder", "a file for the weights", "pass a file with --ckpt_path")
    require_writable_folder(Path(path).parent, "pass another --ckpt_path")


def find_device_failure(device: str | torch.device) -> Exception | None:
    """The exception with which torch fails to compute anything on a device; None where it does not.

    Args:
        device: the device, or its name.

    Example:
        >>> find_device_failure("cpu")
        >>> find_device_failure("meta")  # has no memory
        NotImplementedError('Cannot copy out of meta tensor; no data!')
    """
    try:
        torch.zeros(1, device=device).cpu()  # trying is the only sure test: a name may be known but its driver missing
    except Exception as error:  # each backend has its own
        return error
    return None


def check_device(device: str | torch.device, name: str = "device") -> None:
    failure = find_device_failure(device)
    if failure is not None:
        found = f"cannot be used by torch on this machine ({describe(failure)})"
        expected, remedy = "an available device, such as cpu", f"pass --{name} cpu"
        raise InputError(f"{name} {device}", found, expected, remedy) from failure


def failures(needs: Iterable[Need]) -> Iterator[str]:
    """The lines of all checks that fail; a value of None is not needed and not checked."""
    for value, check in needs:
        try:
            if value is not None:
                check(value)
        except InputError as error:
            yield str(error)
