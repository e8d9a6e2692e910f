"""Checks that a file of weights fits a network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import InputError, describe
from ..files import require_file
from ..training.cpu_autocast import CpuAutocast

__all__ = ["check_weights"]

_FLAT = "a flat state_dict (name -> tensor)"


def _load(path: str | os.PathLike) -> Mapping[str, torch.Tensor]:
    require_file(path, "train the network first, or pass a file of weights with --ckpt_path")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each have their own
        remedy = "copy it again, or save it again with torch.save(network.state_dict(), FILE)"
        found = f"cannot be loaded with weights_only=True ({describe(error)})"
        raise InputError(path, found, "weights saved by torch.save", remedy) from error
    if not isinstance(state, Mapping):
        raise InputError(path, f"is of type {type(state).__name__}", _FLAT, "save only network.state_dict()")
    other = next((key for key, value in state.items() if not isinstance(value, torch.Tensor)), None)
    if other is not None:
        found = f"its entry {other!r} is of type {type(state[other]).__name__}"
        raise InputError(path, found, _FLAT, "save only network.state_dict(), not a whole checkpoint")
    return state


def _check_finite(path: str | os.PathLike, state: Mapping[str, torch.Tensor]) -> None:
    """Make sure that no weight and no buffer, such as a running variance, holds NaN or infinity."""
    bad = [key for key, value in state.items() if not _is_finite(value)]
    if bad:
        first = state[bad[0]]
        number = first.numel() - int(torch.isfinite(first.float()).sum())
        found = (
            f"{len(bad)} of {len(state)} tensors have values that are NaN or infinite "
            f"(first {bad[0]}: {number} of {first.numel()})"
        )
        raise InputError(path, found, "finite weights", "pass weights of a training that did not diverge")


def _is_finite(values: torch.Tensor) -> bool:
    return not values.is_floating_point() or bool(torch.isfinite(values.float()).all())


def check_weights(ckpt_path: str | os.PathLike, network: nn.Module | None = None) -> None:
    """Make sure that a file holds a flat state dict of finite numbers with the names and shapes of ``network``.

    Args:
        ckpt_path: the file.
        network: the network that will load it; None checks only the file.

    Raises:
        InputError: where the file is missing, unreadable, nested, of another network, or holds NaN or infinity.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/model.pt"
        >>> torch.save(nn.Linear(2, 3).state_dict(), path)
        >>> check_weights(path, nn.Linear(2, 3))
        >>> check_weights(path, nn.Linear(2, 4))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bundlekit.errors.InputError: ...2 of other shape (first weight: (3, 2) in the file, (4, 2) in the network)...
    """
    state = _load(ckpt_path)
    _check_finite(ckpt_path, state)
    if network is None:
        return
    while isinstance(network, (nn.parallel.DistributedDataParallel, CpuAutocast)):
        network = network.module  # the file has the names of the network itself
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    missing = [key for key in own if key not in shapes]
    unexpected = [key for key in shapes if key not in own]
    reshaped = [key for key in own if key in shapes and own[key] != shapes[key]]
    found = []
    if missing:
        found.append(f"{len(missing)} missing (first {missing[0]}: {own[missing[0]]} in the network)")
    if unexpected:
        found.append(f"{len(unexpected)} unexpected (first {unexpected[0]}: {shapes[unexpected[0]]} in the file)")
    if reshaped:
        there, here = shapes[reshaped[0]], own[reshaped[0]]
        found.append(
            f"{len(reshaped)} of other shape (first {reshaped[0]}: {there} in the file, {here} in the network)"
        )
    if found:
        expected = f"the {len(own)} tensors of {type(network).__name__}"
        remedy = (
            "pass weights of this network with --ckpt_path, or append the overlays that the weights were trained with"
        )
        raise InputError(ckpt_path, "tensors do not match: " + ", ".join(found), expected, remedy)
