"""Converts weights of the paper's code to the parameter names of the networks here."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

__all__ = ["from_reference_state_dict"]

_DEPTH = 4
_CHANGES = {
    "input_1x1": "stem",
    "classifier": "head",
    **{f"conv_down{i + 1}_{i + 2}": f"widen.{i}" for i in range(_DEPTH - 1)},
    f"conv_down{_DEPTH}_embed": f"widen.{_DEPTH - 1}",
    "conv_up_embed_1": "merge.0",
    **{f"conv_up{i}_{i + 1}": f"merge.{i}" for i in range(1, _DEPTH)},
}
_BLOCK = re.compile(r"(odeblock|block)_(embedding|(?:down|up)[1-4])\.(?:odefunc\.)?(conv[12])")
_UNET = re.compile(r"main\.((?:next\.)*)(encode|embed|up|decode)(?:\.([02]))?")


def _residual_names(name: str) -> str | None:
    if name in _CHANGES:
        return _CHANGES[name]
    match = _BLOCK.fullmatch(name)
    if match is None:
        return None
    kind, place, conv = match.groups()
    block = place if place == "embedding" else f"{place[:-1]}.{int(place[-1]) - 1}"
    return f"{block}.func.{conv}" if kind == "odeblock" else f"{block}.{conv}"


def _unet_name(name: str, weight: torch.Tensor) -> str | None:
    if name == "out":
        return "head"
    match = _UNET.fullmatch(name)
    if match is None:
        return None
    place, conv = match.group(2), "conv2" if match.group(3) == "2" else "conv1"
    # the number of output channels gives the level, independent of the nesting: 64 at the first
    out_channels = weight.shape[min(1, weight.dim() - 1)] if place == "up" else weight.shape[0]
    level = (out_channels // 64).bit_length() - 1
    last = _DEPTH if place in ("encode", "embed") else _DEPTH - 1
    if not 0 <= level <= last or out_channels != 64 * 2**level:
        return None
    names = {
        "encode": f"down.{level}.{conv}",
        "embed": f"down.{level}.{conv}",
        "up": f"up.{_DEPTH - 1 - level}",
        "decode": f"merge.{_DEPTH - 1 - level}.{conv}",
    }
    return names[place]


def from_reference_state_dict(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state_dict for ``UNode``, ``UResNet(reference=True)`` or ``UNet`` of one that the paper's code saved.

    A convolution with the time in its channel 0 is split in the weights of the time and of the others. All three
    networks take 3 channels and give 2.

    Args:
        state: names and tensors of the reference's U-Node, U-ResNet or U-Net.

    Raises:
        ValueError: when a name is none of that code's; all such names are listed.

    Source:
        Names and shapes as in the code published with Pinckaers and Litjens 2019.

    Example:
        >>> found = from_reference_state_dict({"odeblock_down1.odefunc.conv1.weight": torch.zeros(16, 17, 3, 3)})
        >>> {name: tuple(value.shape) for name, value in found.items()}
        {'down.0.func.conv1.weight': (16, 16, 3, 3), 'down.0.func.conv1.weight_time': (16, 1, 3, 3)}
    """
    found: dict[str, torch.Tensor] = {}
    unknown = []
    for key, value in state.items():
        module, _, kind = key.rpartition(".")
        weight = state.get(f"{module}.weight", value)
        name = _residual_names(module) or _unet_name(module, weight)
        if name is None or kind not in ("weight", "bias"):
            unknown.append(key)
        elif ".func." in name and kind == "weight":
            found[f"{name}.weight"], found[f"{name}.weight_time"] = value[:, 1:], value[:, :1]
        else:
            found[f"{name}.{kind}"] = value
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(state)} names are unknown: {', '.join(unknown)}; expected a state_dict of the "
            "paper's own code; load one of this package with load_state_dict"
        )
    return found
