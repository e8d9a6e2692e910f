"""Plain 3-D U-Net, the network that the invertible ones are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import split_args
from torch import nn

__all__ = ["UNet3D"]


def _double_conv(in_channels: int, out_channels: int, norm: str | tuple | None, act: str | tuple) -> nn.Sequential:
    if norm is not None:
        name, args = split_args(norm)
        if name.lower() == "group":
            norm = (name, {"num_groups": out_channels, **args})
    return nn.Sequential(
        *(Convolution(3, i, out_channels, norm=norm, act=act, bias=norm is None) for i in (in_channels, out_channels))
    )


class UNet3D(nn.Module):
    """3-D U-Net with max-pooling, trilinear upsampling and skips that are concatenated.

    Encoder ``e[0] = B(x)``, ``e[i] = B(maxpool(e[i-1]))``; decoder ``d[n] = e[n]``, ``d[i] = B([e[i], up(d[i+1])])``;
    output: a 1x1x1 convolution of ``d[0]``. Each B is twice a 3x3x3 convolution (zero padding), norm, activation.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the output (logits).
        channels: channels of each level, from full resolution down.
        norm: normalisation after each convolution, as MONAI names it. "group" without ``num_groups`` has one group per
            channel: the function of affine instance normalisation at a lower peak of memory in the backward pass.
        act: activation, as MONAI names it. In place it needs no copy of its input for the gradient.

    Shape:
        - input: (N, in_channels, D, H, W), each of D, H, W a multiple of 2^(len(channels) - 1), 8 with the defaults,
          and one of them at least twice that: over a single voxel at the deepest level a norm would be constant.
        - output: (N, out_channels, D, H, W), a plain tensor also for a ``MetaTensor``.

    Raises:
        ValueError: when there is only one level, or when the input's shape does not fit; the message names the shape
            or the size to pad to.

    Source:
        The 3-D U-Net baseline of Yamazaki, Rathour, Le 2021, "Invertible Residual Network with Regularization for
        Effective Volumetric Segmentation" (arXiv:2103.09042), section 3.3 for instance normalisation and leaky ReLU.
        The paper says max-pooling and interpolation of its partially invertible network, which extends this one.
        Not stated and chosen here: depth, channels, two convolutions per level, negative slope 0.01, trilinear as the
        interpolation, initialisation (PyTorch's).

    Example:
        >>> UNet3D(4, 3, channels=(8, 16, 32))(torch.zeros(1, 4, 16, 8, 12)).shape
        torch.Size([1, 3, 16, 8, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (32, 64, 128, 256),
        norm: str | tuple | None = "group",
        act: str | tuple = ("leakyrelu", {"negative_slope": 0.01, "inplace": True}),
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"channels is {tuple(channels)}; expected at least two levels")
        depth = len(channels) - 1
        self.in_channels = in_channels
        self.step = 2**depth
        widths = [in_channels, *channels]
        self.encoder = nn.ModuleList(_double_conv(widths[i], widths[i + 1], norm, act) for i in range(depth + 1))
        self.pool = nn.MaxPool3d(2)
        self.upsample = nn.Upsample(scale_factor=2, mode="trilinear")
        self.decoder = nn.ModuleList(
            _double_conv(channels[i] + channels[i + 1], channels[i], norm, act) for i in reversed(range(depth))
        )
        self.head = nn.Conv3d(channels[0], out_channels, 1)

    def _check_shape(self, x: torch.Tensor) -> None:
        shape = list(x.shape)
        if len(shape) != 5 or shape[1] != self.in_channels:
            raise ValueError(f"UNet3D got shape {shape}; expected (N, {self.in_channels}, D, H, W)")
        size = shape[2:]
        wanted = [(s + self.step - 1) // self.step * self.step for s in size]
        if max(wanted) <= self.step:
            wanted[-1] = 2 * self.step
        if size != wanted:
            raise ValueError(
                f"UNet3D got a volume of {size} voxels; expected multiples of {self.step}, one of them at least "
                f"{2 * self.step}: pad to {wanted}"
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting() and isinstance(x, MetaTensor):
            x = x.as_tensor()
        if not torch.jit.is_tracing():
            self._check_shape(x)
        skips: list[torch.Tensor] = []
        for i, block in enumerate(self.encoder):
            if i > 0:
                x = self.pool(x)
            x = block(x)
            skips.append(x)
        x = skips.pop()
        for block in self.decoder:
            # x is rebound at each step to free skip and upsampled map before the convolutions; MONAI's UpCat keeps both
            x = self.upsample(x)
            x = torch.cat([skips.pop(), x], dim=1)
            x = block(x)
        return self.head(x)
