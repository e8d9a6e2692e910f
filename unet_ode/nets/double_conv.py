"""Two convolutions one after the other, each with normalisation, dropout and activation."""

from __future__ import annotations

from monai.networks.blocks import ADN
from monai.networks.layers.factories import Conv
from torch import nn

__all__ = ["double_conv"]


def double_conv(spatial_dims, in_channels, out_channels, padding, norm, act, dropout) -> nn.Sequential:
    """``conv1, adn1, conv2, adn2``: twice a 3x3 convolution, then norm, dropout of whole feature maps, activation."""
    block = nn.Sequential()
    for i in range(2):
        block.add_module(
            f"conv{i + 1}",
            Conv[Conv.CONV, spatial_dims](
                in_channels if i == 0 else out_channels, out_channels, 3, padding=padding, bias=norm is None
            ),
        )
        block.add_module(
            f"adn{i + 1}",
            ADN("NDA", out_channels, act, norm, spatial_dims, dropout or None, dropout_dim=spatial_dims),
        )
    return block
