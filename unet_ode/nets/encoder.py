"""The contracting path that is trained to find the centre of an object and then used in the U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Pool
from torch import nn

from .double_conv import double_conv
from .initialisation import initialise_convolutions
from .requirements import require_levels, require_multiples, require_same_type, require_spatial_dims

__all__ = ["CHANNELS", "Encoder"]

CHANNELS = (64, 128, 256, 512, 1024)


class Encoder(nn.Module):
    """The contracting path that both phases share: two 3x3 convolutions a level, 2x2 max-pooling between levels.

    Each convolution has batch norm, dropout of whole feature maps (in the two lowest levels) and ReLU, and pads with
    zeros.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        channels: channels of each level, from full resolution down.
        dropout: probability of dropping a feature map.

    Attributes:
        step: factor between the resolutions of the first and the last level, ``2 ** (len(channels) - 1)``.

    Shape:
        - input: (N, in_channels, *spatial), every size a multiple of ``step``.
        - output: a map for each level, (N, channels[i], *spatial / 2^i).

    Raises:
        ValueError: for other ``spatial_dims``, fewer than two levels, and sizes that do not fit.
        TypeError: when the image is of another type than the weights.

    Source:
        Hu et al. 2018, section 2.2.

    Example:
        >>> [tuple(level.shape) for level in Encoder(2, 1, channels=(4, 8))(torch.zeros(1, 1, 6, 8))]
        [(1, 4, 6, 8), (1, 8, 3, 4)]
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, channels: Sequence[int] = CHANNELS, dropout: float = 0.2
    ) -> None:
        super().__init__()
        require_spatial_dims(spatial_dims)
        require_levels(channels)
        self.step = 2 ** (len(channels) - 1)
        widths = [in_channels, *channels]
        self.levels = nn.ModuleList(
            double_conv(
                spatial_dims, widths[i], widths[i + 1], 1, "batch", "relu", dropout if i >= len(channels) - 2 else 0.0
            )
            for i in range(len(channels))
        )
        self.pool = Pool[Pool.MAX, spatial_dims](2)
        initialise_convolutions(self)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        if not torch.jit.is_scripting():
            require_same_type("the encoder", x, self)
        if not torch.jit.is_tracing():
            require_multiples(x, self.step, "the encoder")
        maps: list[torch.Tensor] = []
        for i, level in enumerate(self.levels):
            if i > 0:
                x = self.pool(x)
            x = level(x)
            maps.append(x)
        return maps
