"""Published weights of VGG-16 for the contracting path of a U-Net."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from .vgg_unet import VGGUNet

__all__ = ["load_encoder"]

_URLS = {
    True: "https://download.pytorch.org/models/vgg16_bn-6c64b313.pth",
    False: "https://download.pytorch.org/models/vgg16-397923af.pth",
}


def _read(source: str | os.PathLike, network: VGGUNet) -> Mapping[str, torch.Tensor]:
    if str(source) == "imagenet":
        url = _URLS[network.batch_norm]
        try:
            return torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        except OSError as error:  # urllib's errors are among them
            raise ValueError(
                f"{source}: {url} cannot be downloaded ({error}); expected access to it: try again, or download "
                "it elsewhere and pass the file"
            ) from error
    if not Path(source).is_file():
        raise ValueError(
            f"{source}: does not exist; expected weights of VGG-16, or 'imagenet' to download them: correct it"
        )
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each have their own
        raise ValueError(
            f"{source}: cannot be loaded with weights_only=True ({type(error).__name__}); expected weights of VGG-16 "
            "saved by torch.save: download or save it again"
        ) from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{source}: is a {type(state).__name__}; expected a state dict: save only state_dict()")
    return state


def load_encoder(network: VGGUNet, source: str | os.PathLike | None) -> VGGUNet:
    """Give the contracting path the weights of a classifier: each ``features.*`` of the source, and no other.

    Args:
        network: of width 1 and three channels for the published weights; changed in place and returned.
        source: a file that holds the state dict of torchvision's ``vgg16_bn`` (``vgg16`` for a network without batch
            norm), of which the classifier is left out; "imagenet" downloads the published one by ``torch.hub`` and
            keeps it in torch's cache; None leaves the network as it is.

    Raises:
        ValueError: where the file is missing, cannot be downloaded or read, or its names or shapes differ from
            ``network.features``, or its values are not finite.

    Source:
        Weights: torchvision's IMAGENET1K_V1, for images that are normalised channel by channel.

    Example:
        >>> import tempfile
        >>> path, network = tempfile.mkdtemp() + "/vgg.pth", VGGUNet(width=0.0625)
        >>> other = {f"features.{name}": value for name, value in VGGUNet(width=0.0625).features.state_dict().items()}
        >>> torch.save({**other, "classifier.0.weight": torch.zeros(3, 3)}, path)
        >>> torch.equal(load_encoder(network, path).features[0].weight, other["features.0.weight"])
        True
    """
    if source is None:
        return network
    state = _read(source, network)
    prefix = "features."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    try:
        network.features.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        own = network.features.state_dict()
        wrong = [k for k in [*own, *weights] if k not in own or k not in weights or own[k].shape != weights[k].shape]
        wrong = sorted(set(wrong), key=lambda k: int(k.split(".")[0]))
        raise ValueError(
            f"{source}: {len(wrong)} tensors do not match, first features.{wrong[0]}; expected the {len(own)} of "
            f"VGG-16 {'with' if network.batch_norm else 'without'} batch norm at the network's width: pass the file "
            "made for it, and a network of width 1 (net_paper.json) for the published weights"
        ) from error
    bad = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if bad:
        raise ValueError(
            f"{source}: {len(bad)} of {len(weights)} tensors have values that are NaN or infinite, first "
            f"features.{bad[0]}; expected finite weights: download or save it again"
        )
    return network
