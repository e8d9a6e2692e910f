"""A bundle's folder from outside: its configs, and its network with weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from .files import InputError, describe
from .weights import check_weights

__all__ = ["load_network", "read_config"]


def read_config(path: Path) -> dict[str, Any]:
    """One JSON file of a bundle, its references as they stand there.

    Args:
        path: the file.

    Raises:
        InputError: where the file cannot be read, is no JSON, or holds something else than an object.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "train.json")
        >>> _ = path.write_text('["max_epochs", 3]')
        >>> read_config(path)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bundlekit.files.InputError: ...train.json: is a list; expected an object of JSON; correct it, or copy it again
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = f"cannot be read ({describe(error)})"
        raise InputError(path, found, "an object of JSON", "correct it, or copy it again") from error
    if not isinstance(value, dict):
        raise InputError(path, f"is a {type(value).__name__}", "an object of JSON", "correct it, or copy it again")
    return value


def load_network(bundle: Path, *overlays: str, ckpt_path: str | os.PathLike | None = None) -> nn.Module:
    """``network_def`` of inference.json with weights, on the CPU, in evaluation mode.

    Args:
        bundle: its folder.
        overlays: names in configs/, without ending, of those laid over inference.json.
        ckpt_path: a flat state dict; models/model.pt of the bundle by default.

    Raises:
        InputError: where a config cannot be read, the network cannot be built, or the weights are not its own.
    """
    paths = [bundle / f"configs/{name}.json" for name in ("inference", *overlays)]
    for path in paths:
        read_config(path)  # MONAI's own errors do not name the file
    metadata = read_config(bundle / "configs/metadata.json")
    try:
        parser = ConfigParser(ConfigParser.load_config_files(paths))
        parser.read_meta(metadata)
        network = parser.get_parsed_content("network_def")
    except Exception as error:  # whatever the class that the config names raises
        found = f"network_def cannot be built ({describe(error)})"
        raise InputError(bundle / "configs/inference.json", found, "a network", "correct its arguments") from error
    if not isinstance(network, nn.Module):
        found = f"network_def is a {type(network).__name__}"
        raise InputError(bundle / "configs/inference.json", found, "a torch.nn.Module", "give its class as _target_")
    ckpt_path = ckpt_path or bundle / "models/model.pt"
    check_weights(ckpt_path, network)
    network.load_state_dict(torch.load(ckpt_path, map_location="cpu", weights_only=True))
    return network.cpu().eval()
