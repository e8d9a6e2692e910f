"""Variational auto-encoder on the deepest level of a U-Net, which regularises the training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["VAEBranch"]


class _Up(nn.Sequential):
    """To the next level: 1x1x1 convolution to its channels, twice the size, convolution, norm, activation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 1),
            nn.Upsample(scale_factor=2, mode="trilinear"),
            nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.GroupNorm(out_channels, out_channels),
            nn.LeakyReLU(0.01, inplace=True),
        )


class VAEBranch(nn.Module):
    """Losses of rebuilding the image from a random sample around a short code of the deepest level.

    mu, log s^2 = linear(code); z = mu + s * noise; the image is rebuilt from z.
    ``l2 = mean((rebuilt - image)^2)`` and ``kl = mean(mu^2 + s^2 - log s^2 - 1)``, for each sample.

    The code: norm, activation, convolution of stride 2 to 16 channels, activation, mean over a grid of 4x4x4 parts.
    Back: a linear map to the grid, interpolated to the size of the convolution's output, 1x1x1 convolution, then up
    level by level to half of the image's resolution, where a 1x1x1 convolution gives the 8 voxels of each block.

    Args:
        image_channels: channels of the image.
        channels: channels of the U-Net's levels, from full resolution down.

    Shape:
        - deepest: (N, channels[-1], d, h, w).
        - image: (N, image_channels, D, H, W) with D = 2^(len(channels) - 1) d and so on, d, h and w even.
        - output: l2 and kl, (N,) each, float32 under autocast.

    Source:
        Myronenko 2018, "3D MRI brain tumor segmentation using autoencoder regularization" (arXiv:1810.11654), section
        2.2 and table 1; Yamazaki, Rathour, Le 2021 (arXiv:2103.09042), equations 5 and 6.

    Differs from the paper:
        The mean of the squared error, where equation 6 has the sum, so that its weight does not depend on the size; the
        mean over code numbers in kl, where equation 5 divides by a number N of voxels. Not stated there and chosen
        here: everything else about the branch. In Myronenko's the linear maps see each voxel of the code, which fixes
        the image's size; for patches of 64 voxels and four levels the grid is the same. His decoder ends at full
        resolution, at the price of the whole network's memory.

    Example:
        >>> l2, kl = VAEBranch(1, (4, 8))(torch.randn(2, 8, 4, 4, 4), torch.randn(2, 1, 8, 8, 8))
        >>> l2.shape, kl.shape
        (torch.Size([2]), torch.Size([2]))
    """

    def __init__(self, image_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        width, grid, num_latent, deepest = 16, 4, 128, channels[-1]
        self.encoder = nn.Sequential(
            nn.GroupNorm(deepest, deepest),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv3d(deepest, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.01, inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool3d(grid)
        self.code_shape = (width, grid, grid, grid)
        self.mean = nn.Linear(width * grid**3, num_latent)
        self.log_variance = nn.Linear(width * grid**3, num_latent)
        self.expand = nn.Linear(num_latent, width * grid**3)
        ups = [_Up(channels[i + 1], channels[i]) for i in reversed(range(1, len(channels) - 1))]
        self.decoder = nn.Sequential(
            nn.Conv3d(width, deepest, 1), nn.Upsample(scale_factor=2, mode="trilinear"), *ups,
            nn.Conv3d(channels[min(1, len(channels) - 1)], 8 * image_channels, 1),
        )  # fmt: skip

    @torch.jit.unused  # a scripted network is one for evaluation
    def forward(self, deepest: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = self.encoder(deepest)
        pooled = self.pool(code).flatten(1)
        dtype = torch.promote_types(pooled.dtype, torch.float32)
        mean, log_variance = self.mean(pooled).to(dtype), self.log_variance(pooled).to(dtype)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        kl = (mean.square() + log_variance.exp() - log_variance - 1).mean(1)
        grid = F.leaky_relu(self.expand(z.to(pooled.dtype)), 0.01).view(-1, *self.code_shape)
        rebuilt = self.decoder(F.interpolate(grid, size=code.shape[2:], mode="trilinear"))
        return self._mean_squared_error(rebuilt, image), kl

    @staticmethod
    def _mean_squared_error(rebuilt: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Of (N, 8 C, D, H, W), whose channels are the voxels of a block, and (N, C, 2D, 2H, 2W)."""
        n, c, d, h, w = image.shape
        blocks = image.view(n, c, d // 2, 2, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
        rebuilt = rebuilt.view(n, c, 2, 2, 2, d // 2, h // 2, w // 2)
        difference = rebuilt.to(torch.promote_types(rebuilt.dtype, torch.float32)) - blocks
        return difference.square().flatten(1).mean(1)
