"""Phase 1 of the transfer: a network that finds the centre of an object."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from .encoder import CHANNELS, Encoder

__all__ = ["Localizer"]


class Localizer(nn.Module):
    """Phase 1: the encoder and a fully connected layer without activation that gives the centre of the object.

    With f the lowest map of the encoder as one vector of n numbers and s the size of the image in voxels: centre =
    s (1/2 + W f / sqrt(n) + b). The layer gives shares of the image, and the network voxels, in which a mean squared
    error is like the paper's. The root keeps one step of RMSprop, which moves every entry of W by as much, from moving
    the centre out of the image.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        spatial_size: size of the images in voxels, which the fully connected layer is made for.
        channels: channels of each level of the encoder.
        dropout: probability of dropping a feature map in the two lowest levels, and of dropping an input of the fully
            connected layer.

    Shape:
        - input: (N, in_channels, *spatial_size).
        - output: (N, spatial_dims), voxels from the centre of the first one, in the order of the axes.

    Raises:
        ValueError: where ``spatial_size`` does not have a multiple of ``encoder.step`` for each axis, and for images of
            another size.
        TypeError: as :class:`Encoder`.

    Source:
        Hu et al. 2018, "Deep feature transfer between localization and segmentation tasks", section 2.2 and figure 1.

    Not stated in the paper:
        Size of the images, channels, number of fully connected layers (several without activation are equal to one) and
        place and rate of the dropout.

    Example:
        >>> Localizer(2, 1, (16, 24), channels=(4, 8, 16))(torch.zeros(1, 1, 16, 24)).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        spatial_size: Sequence[int],
        channels: Sequence[int] = CHANNELS,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(spatial_dims, in_channels, channels, dropout)
        step = self.encoder.step
        if len(spatial_size) != spatial_dims or any(size < 1 or size % step for size in spatial_size):
            raise ValueError(
                f"spatial_size is {tuple(spatial_size)}; expected {spatial_dims} sizes, each a multiple of {step}"
            )
        self.spatial_size = [int(size) for size in spatial_size]
        self.drop = nn.Dropout(dropout)
        num_features = channels[-1] * prod(size // step for size in spatial_size)
        self.root = num_features**0.5
        self.head = nn.Linear(num_features, spatial_dims)
        nn.init.zeros_(self.head.weight)  # so that training starts from the middle of the image
        nn.init.zeros_(self.head.bias)
        self.register_buffer("scale", torch.tensor(self.spatial_size, dtype=torch.float32), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_tracing() and list(x.shape[2:]) != self.spatial_size:
            raise ValueError(
                f"the localizer got images of {list(x.shape[2:])} voxels; expected {self.spatial_size}: resize or pad "
                "them, or create it for their size"
            )
        features = self.encoder(x)[-1].flatten(1) / self.root
        shares = self.head(self.drop(features))
        if shares.dtype != torch.float64:
            shares = shares.float()
        return self.scale * (0.5 + shares)
