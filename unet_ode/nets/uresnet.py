"""U-ResNet: a U-Net of residual blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv
from torch import nn
from torch.nn import functional

from .residual_unet import ResidualUNet

__all__ = ["UResNet"]


class _ResidualBlock(nn.Module):
    """x + a(conv2(norm(a(conv1(x))))), a being the leaky ReLU of slope 0.01."""

    def __init__(self, spatial_dims: int, channels: int, eps: float) -> None:
        super().__init__()
        self.conv1 = Conv[Conv.CONV, spatial_dims](channels, channels, 3, padding=1)
        self.conv2 = Conv[Conv.CONV, spatial_dims](channels, channels, 3, padding=1)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.instance_norm(functional.leaky_relu(self.conv1(x)), eps=self.eps)
        return x + functional.leaky_relu(self.conv2(inner))


class UResNet(ResidualUNet):
    """U-ResNet: the U of :class:`ResidualUNet` with one residual block where U-Node solves a differential equation.

    Args:
        spatial_dims, in_channels, out_channels, channels: as in :class:`ResidualUNet`.
        reference: compute what the authors' code computes, for its weights: the encoder's blocks feed only the skips,
            and the norm's epsilon is the number of channels.

    Shape:
        As in :class:`ResidualUNet`.

    Raises:
        ValueError, TypeError: as :class:`ResidualUNet`.

    Source:
        Pinckaers and Litjens 2019, section 3.2.

    Example:
        >>> net = UResNet(2, 3, 2)
        >>> sum(p.numel() for p in net.parameters())
        2074098
        >>> net(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 2, 32, 48])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        reference: bool = False,
    ) -> None:
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            channels,
            lambda width, name: _ResidualBlock(spatial_dims, width, float(width) if reference else 1e-5),
            blocks_on_the_way_down=not reference,
        )
