"""Base class of U-ResNet and U-Node: blocks that keep the size, 1x1 convolutions between the levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import nn
from torch.nn import functional

from .initialisation import initialise_convolutions
from .requirements import require_levels, require_multiples, require_same_type, require_spatial_dims

__all__ = ["ResidualUNet"]


class ResidualUNet(nn.Module):
    """U of blocks: stem; block and halving, at every level; embedding; doubling, skip and block, at every level; head.

    A level change is a 1x1 convolution with leaky ReLU (slope 0.01), then 2x2 average pooling on the way down; linear
    interpolation, concatenation (up, skip) and then the convolution on the way up. Convolutions are initialised with
    N(0, 2 / fan_in) and bias 0.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the output (logits).
        channels: channels of each level, from full resolution down.
        make_block: ``make_block(channels, name)`` gives a module that keeps the shape (N, channels, *spatial).
        blocks_on_the_way_down: whether the encoder's blocks feed the next level, or only the skips.

    Shape:
        - input: (N, in_channels, *spatial), every size a multiple of 2^(levels - 1), and two voxels at the deepest
          level at least.
        - output: (N, out_channels, *spatial).

    Raises:
        ValueError: when an argument is out of range or the input's size does not fit; the message names sizes that do.
        TypeError: when the image is of another type than the weights.

    Source:
        Pinckaers and Litjens 2019, section 3.2 (U-ResNet) and figure 1.

    Example:
        >>> net = ResidualUNet(2, 3, 2, (4, 8), lambda channels, name: torch.nn.Identity())
        >>> net(torch.zeros(1, 3, 6, 8)).shape
        torch.Size([1, 2, 6, 8])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        make_block: Callable[[int, str], nn.Module],
        blocks_on_the_way_down: bool = True,
    ) -> None:
        super().__init__()
        require_spatial_dims(spatial_dims)
        require_levels(channels)
        conv = Conv[Conv.CONV, spatial_dims]
        depth = len(channels) - 1
        self.divisor = 2**depth
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"
        self.blocks_on_the_way_down = blocks_on_the_way_down
        self.stem = conv(in_channels, channels[0], 1)
        self.down = nn.ModuleList(make_block(channels[i], f"down{i + 1}") for i in range(depth))
        self.widen = nn.ModuleList(conv(channels[i], channels[i + 1], 1) for i in range(depth))
        self.pool = Pool[Pool.AVG, spatial_dims](2)
        self.embedding = make_block(channels[depth], "embedding")
        levels = list(reversed(range(depth)))
        self.merge = nn.ModuleList(conv(channels[i] + channels[i + 1], channels[i], 1) for i in levels)
        self.up = nn.ModuleList(make_block(channels[i], f"up{depth - i}") for i in levels)
        self.head = conv(channels[0], out_channels, 1)
        initialise_convolutions(self)

    def _check_size(self, x: torch.Tensor) -> None:
        require_multiples(x, self.divisor, "the network")
        num_deepest = 1
        for axis in range(2, x.dim()):
            num_deepest *= x.size(axis) // self.divisor
        if num_deepest < 2:  # the mean over a single voxel normalises it away
            raise ValueError(
                f"the network got {self.divisor} voxels along every axis; expected at least {2 * self.divisor} along "
                f"one of them: pad to {2 * self.divisor}"
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting():
            require_same_type("the network", x, self)
        if not torch.jit.is_tracing():
            self._check_size(x)
        x = functional.leaky_relu(self.stem(x))
        skips: list[torch.Tensor] = []
        for block, widen in zip(self.down, self.widen):  # noqa: B905  (TorchScript's zip takes no strict)
            skip = block(x)
            skips.append(skip)
            x = skip if self.blocks_on_the_way_down else x
            x = self.pool(functional.leaky_relu(widen(x)))
        x = self.embedding(x)
        for i, (merge, block) in enumerate(zip(self.merge, self.up)):  # noqa: B905
            x = functional.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=False)
            x = torch.cat([x, skips[len(skips) - 1 - i]], dim=1)
            x = block(functional.leaky_relu(merge(x)))
        return self.head(x)
