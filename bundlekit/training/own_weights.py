"""Writes the file of the best weights, and tells whether it is the one that a training has written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..files import compute_sha256, write_atomically

__all__ = ["require_own_weights", "sha256_of", "write_weights"]


def sha256_of(weights: Path) -> str | None:
    """The SHA-256 of a file of weights, None where there is none.

    Args:
        weights: the file.

    Example:
        >>> sha256_of(Path("/nowhere/model.pt"))
    """
    return compute_sha256(weights) if weights.exists() else None


def write_weights(network: nn.Module, weights: Path) -> str:
    """Replace a file by the weights of a network, and return its SHA-256, which is that of equal weights elsewhere.

    Args:
        network: the network; its weights are stored for use without a GPU.
        weights: the file.
    """
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    write_atomically(weights, lambda part: _save(state, part))
    return compute_sha256(weights)


def _save(state: Mapping[str, torch.Tensor], path: Path) -> None:
    with open(path, "wb") as file:  # of a path, torch would store the name, which is a random one
        torch.save(state, file)


def require_own_weights(state: Mapping[str, Any], weights: Path) -> None:
    """Make sure that a training which goes on replaces no weights but its own.

    A kill between the writes of the weights and of the state leaves weights that the state does not know yet; they are
    the state's own network.

    Args:
        state: what the stopped training has saved; "weights_sha256" is of the file that it has last written, or that
            the user had let it replace.
        weights: file of the best weights of the training at hand.

    Raises:
        InputError: where the file is another's, or is gone.
    """
    epoch = state["saved"].get("weights")
    expected = "the file of weights that the training had there"
    if epoch is not None:
        expected = f"the best weights, those of epoch {epoch}, which the training has written"
    remedy = "copy them back, pass the old --ckpt_path, or --overwrite true without --resume to start again"
    found = sha256_of(weights)
    if found is None and epoch is not None:
        raise InputError(weights, "is missing", expected, remedy)
    if found not in (None, state["weights_sha256"]) and not (state["is_pending"] and _holds(weights, state["network"])):
        raise InputError(weights, "holds other weights, which would be lost", expected, remedy)


def _holds(weights: Path, network: Mapping[str, torch.Tensor]) -> bool:
    try:
        held = torch.load(weights, map_location="cpu", weights_only=True)
        return held.keys() == network.keys() and all(torch.equal(held[name], network[name]) for name in network)
    except Exception:  # zip, pickle and torch each have their own, and the file may hold anything
        return False
