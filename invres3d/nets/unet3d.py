"""Plain 3-D U-Net, the network that the invertible ones are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import split_args
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..vae import VAEBranch
from .requirements import require_levels, require_positive, require_same_type, require_volume

__all__ = ["UNet3D"]


class _Blocks(nn.Sequential):
    """Some double convolutions, each twice convolution, norm, activation; ``engine`` as in the network."""

    def __init__(
        self, in_channels: int, out_channels: int, num: int, norm: str | tuple | None, act: str | tuple, engine: str
    ) -> None:
        if norm is not None:
            name, args = split_args(norm)
            if name.lower() == "group":
                norm = (name, {"num_groups": out_channels, **args})
        widths = (in_channels, *[out_channels] * (2 * num - 1))
        super().__init__(*(Convolution(3, i, out_channels, norm=norm, act=act, bias=norm is None) for i in widths))
        self.engine = engine
        if engine == "checkpoint" and any(getattr(module, "track_running_stats", False) for module in self.modules()):
            raise ValueError(
                f"norm is {norm!r}, whose running statistics engine 'checkpoint' would update twice; expected a norm "
                "without them: use 'group' or 'instance', or engine 'none'"
            )

    @torch.jit.unused
    def _double(self, first: int, input: torch.Tensor) -> torch.Tensor:
        return self[first + 1](self[first](input))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting() and self.engine == "checkpoint" and self.training:
            for first in range(0, len(self), 2):
                input = checkpoint(self._double, first, input, use_reentrant=False)
            return input
        for module in self:
            input = module(input)
        return input


def _check_arguments(engine: str, channels: Sequence[int], num_blocks: int) -> None:
    if engine not in ("none", "checkpoint"):
        raise ValueError(
            f"engine is {engine!r}; expected none or checkpoint: the layers of UNet3D cannot be inverted, see "
            "PartiallyInvertibleUNet and FullyInvertibleUNet"
        )
    require_levels(channels)
    require_positive(channels=min(channels), num_blocks=num_blocks)


class UNet3D(nn.Module):
    """3-D U-Net with max-pooling, trilinear upsampling and skips that are concatenated.

    Encoder ``e[0] = B(x)``, ``e[i] = B(maxpool(e[i-1]))``; decoder ``d[n] = e[n]``, ``d[i] = B([e[i], up(d[i+1])])``;
    output: a 1x1x1 convolution of ``d[0]``. Each B is ``num_blocks`` double convolutions: twice a 3x3x3 convolution
    (zero padding), norm, activation.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the output (logits).
        channels: channels of each level, from full resolution down.
        norm: normalisation after each convolution, as MONAI names it. "group" without ``num_groups`` has one group per
            channel: the function of affine instance normalisation at a lower peak of memory in the backward pass.
        act: activation, as MONAI names it. In place it needs no copy of its input for the gradient.
        engine: "none", or "checkpoint": training keeps the input of each double convolution and repeats it in the
            backward pass.
        vae: whether training adds the losses of :class:`invres3d.vae.VAEBranch`.
        num_blocks: double convolutions per level and side.

    Shape:
        - input: (N, in_channels, D, H, W), each of D, H, W a multiple of 2^(len(channels) - 1), 8 with the defaults,
          and one of them at least twice that: over a single voxel at the deepest level a norm would be constant. In
          training with VAE each a multiple of twice that.
        - output: (N, out_channels, D, H, W), a plain tensor also for a ``MetaTensor``; in training with VAE the tuple
          (logits, l2, kl) with l2 and kl of shape (N,).

    Raises:
        ValueError: when there is only one level, when a number is not positive, when the engine is another or would
            update running statistics of the norm twice, or when the input's shape does not fit; the message names the
            shape or the size to pad to.
        TypeError: when the image is of another type than the weights.

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
        engine: str = "none",
        vae: bool = False,
        num_blocks: int = 1,
    ) -> None:
        super().__init__()
        _check_arguments(engine, channels, num_blocks)
        require_positive(in_channels=in_channels, out_channels=out_channels)
        depth = len(channels) - 1
        self.in_channels = in_channels
        self.step = 2**depth
        widths = [in_channels, *channels]
        self.encoder = nn.ModuleList(
            _Blocks(widths[i], widths[i + 1], num_blocks, norm, act, engine) for i in range(depth + 1)
        )
        self.pool = nn.MaxPool3d(2)
        self.upsample = nn.Upsample(scale_factor=2, mode="trilinear")
        self.decoder = nn.ModuleList(
            _Blocks(channels[i] + channels[i + 1], channels[i], num_blocks, norm, act, engine)
            for i in reversed(range(depth))
        )
        self.head = nn.Conv3d(channels[0], out_channels, 1)
        self.vae = VAEBranch(in_channels, channels) if vae else None

    def _trunk(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        skips: list[torch.Tensor] = []
        for i, block in enumerate(self.encoder):
            if i > 0:
                x = self.pool(x)
            x = block(x)
            skips.append(x)
        deepest = x = skips.pop()
        for block in self.decoder:
            # x is rebound at each step to free skip and upsampled map before the convolutions; MONAI's UpCat keeps both
            x = self.upsample(x)
            x = torch.cat([skips.pop(), x], dim=1)
            x = block(x)
        return self.head(x), deepest

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if torch.jit.is_scripting():
            require_volume("UNet3D", list(x.shape), self.in_channels, self.step, self.step)
            return self._trunk(x)[0]
        else:
            vae = self.vae if self.training else None
            if isinstance(x, MetaTensor):
                x = x.as_tensor()
            require_same_type("UNet3D", x, self)
            if not torch.jit.is_tracing():
                require_volume(
                    "UNet3D", list(x.shape), self.in_channels, self.step, self.step * (1 if vae is None else 2)
                )
            logits, deepest = self._trunk(x)
            return logits if vae is None else (logits, *vae(deepest, x))
