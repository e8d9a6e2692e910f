"""Reads a bundle's folder: its configs, its network with weights, its exported files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from bundlekit.errors import InputError, describe
from bundlekit.inputs.weights import check_weights

__all__ = ["TOLERANCE", "image_shapes", "largest_difference", "load_network", "read_config"]

TOLERANCE = 1e-4
"""How far an exported network may be off, as a share of the largest output: float32, summed in another order."""


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
        bundlekit.errors.InputError: ...train.json: is a list; expected a JSON object; correct it, or copy it again
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = f"cannot be read ({describe(error)})"
        raise InputError(path, found, "a JSON object", "correct it, or copy it again") from error
    if not isinstance(value, dict):
        raise InputError(path, f"is a {type(value).__name__}", "a JSON object", "correct it, or copy it again")
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
        raise InputError(bundle / "configs/inference.json", found, "a torch.nn.Module", "name its class in _target_")
    ckpt_path = ckpt_path or bundle / "models/model.pt"
    check_weights(ckpt_path, network)
    network.load_state_dict(torch.load(ckpt_path, map_location="cpu", weights_only=True))
    return network.cpu().eval()


def image_shapes(bundle: Path, network: nn.Module) -> list[tuple[int, ...]]:
    """Channels and size of two images that metadata.json allows, of which no axis is as long as another one.

    Args:
        bundle: its folder.
        network: is run on a batch of each.

    Raises:
        InputError: where metadata.json gives none, the network does not take them, or gives values that are not finite.
    """
    path = bundle / "configs/metadata.json"
    expected = "num_channels and spatial_shape of inputs, image, such as '32*n' for each axis, that the network takes"
    try:
        image = read_config(path)["network_data_format"]["inputs"]["image"]
        allowed = [[eval(text, {"__builtins__": {}, "n": n}) for n in (2, 3, 4, 5)] for text in image["spatial_shape"]]
        turned = [tuple(axis[(i + k) % 3] for i, axis in enumerate(allowed)) for k in (0, 1)]
        shapes = [(image["num_channels"], *size) for size in turned]
        with torch.no_grad():
            finite = [bool(network(torch.rand(1, *shape)).isfinite().all()) for shape in shapes]
    except Exception as error:  # whatever the text or the network raises
        found = f"network_data_format cannot be used ({describe(error)})"
        raise InputError(path, found, expected, "correct it, or the network") from error
    if not all(finite):
        found = "the network returns values that are not finite"
        raise InputError(bundle / "models/model.pt", found, "finite ones", "train and save it again")
    return shapes


@torch.no_grad()
def largest_difference(
    exported: Callable[[torch.Tensor], torch.Tensor],
    network: Callable[[torch.Tensor], torch.Tensor],
    shapes: Sequence[tuple[int, ...]],
) -> float:
    """The largest one between two networks' outputs, as a share of the largest output; NaN where one has it.

    Infinite where an output is of another shape or type.

    Args:
        exported: takes and gives tensors as ``network`` does.
        network: to compare with.
        shapes: (channels, ...) of images; of each, a batch of 1 and one of 3 are made of random values in [0, 1).

    Example:
        >>> largest_difference(lambda x: x, lambda x: 2 * x, [(1, 8, 8)])
        0.5
    """
    shares: list[float] = []
    for shape, batch in product(shapes, (1, 3)):
        image = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(batch))
        wanted = network(image)
        found = exported(image.clone())
        same = found.shape == wanted.shape and found.dtype == wanted.dtype
        shares.append(float((found - wanted).abs().max() / wanted.abs().max()) if same else float("inf"))
    return float(torch.tensor(shares).max())  # Python's max may lose a NaN
