"""U-Node with the paper's solver, and the image on which the solvers are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torchdiffeq
from torch import nn
from torch.nn import functional

from bundlekit.phantoms import KINDS
from unet_ode.nets.residual_unet import ResidualUNet

BUNDLE = "gland_histology_segmentation"
WEIGHTS = Path(__file__).resolve().parents[2] / f"bundles/{BUNDLE}/models/model.pt"
REFERENCE = "torchdiffeq adjoint, dopri5, 1e-3 (the paper's)"


class ConcatenatedField(nn.Module):
    """conv2([t, norm(a(conv1([t, y])))]) by joining the time to the state."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.nfe = 0

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.nfe += 1
        time_plane = torch.ones_like(y[:, :1]) * t
        y = functional.leaky_relu(self.conv1(torch.cat([time_plane, y], 1)))
        y = functional.instance_norm(y)
        return functional.leaky_relu(self.conv2(torch.cat([time_plane, y], 1)))


class AdjointBlock(nn.Module):
    """The paper's block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.func = ConcatenatedField(channels)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        times, options = y.new_tensor([0.0, 1.0]), {"max_num_steps": 1000}
        return torchdiffeq.odeint_adjoint(self.func, y, times, rtol=1e-3, atol=1e-3, method="dopri5", options=options)[
            -1
        ]


def join_time_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of ``UNode`` by name, with those of time and state of a convolution joined as the paper has them."""
    joined = {}
    for name, value in weights.items():
        if f"{name}_time" in weights:
            value = torch.cat([weights[f"{name}_time"], value], 1)
        if not name.endswith("_time"):
            joined[name] = value
    return joined


def reference_network(weights: dict[str, torch.Tensor]) -> nn.Module:
    """U-Node as the paper solves it, with the weights of ``UNode``."""
    network = ResidualUNet(2, 3, 2, (16, 32, 64, 128, 256), lambda channels, name: AdjointBlock(channels))
    network.load_state_dict(join_time_weights(weights))
    return network


def sample(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """A phantom image, normalised, and its mask in both channels."""
    phantom = KINDS[BUNDLE].generate(np.random.default_rng(0), max(height, width))
    image = torch.from_numpy(phantom.image[:height, :width].copy()).permute(2, 0, 1).float()[None]
    mask = torch.from_numpy((phantom.label[:height, :width] > 0).copy()).float()[None, None].expand(1, 2, -1, -1)
    return ((image - image.mean()) / image.std()).to(device), mask.to(device)


def num_evaluations(network: nn.Module) -> int:
    """Evaluations of all blocks in the last forward pass of one image."""
    if hasattr(network, "last_stats"):
        return sum(int(stats.nfe[0]) for stats in network.last_stats().values())
    return sum(module.nfe for module in network.modules() if isinstance(module, ConcatenatedField))


def reset_evaluations(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, ConcatenatedField):
            module.nfe = 0
