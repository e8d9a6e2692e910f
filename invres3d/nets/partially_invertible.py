"""Partially invertible residual U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..chain.pooling import InterpolateUp, PoolDown
from ..chain.steps import Step
from .invertible import InvertibleUNet, make_couplings
from .requirements import require_levels, require_positive

__all__ = ["PartiallyInvertibleUNet"]


class PartiallyInvertibleUNet(InvertibleUNet):
    """U-Net whose levels are invertible couplings, with max-pooling down and interpolation up between them.

    ``x -> stem -> [L couplings, max-pool, lift] per level -> L couplings -> [reduce, interpolate, add the skip,
    L couplings] per level -> head``; lift and reduce are 1x1x1 convolutions.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the output (logits).
        channels: channels of each level, from full resolution down, even numbers.
        num_couplings: couplings L per level and side.
        engine: "native", "memcnn", "checkpoint" or "none", see :class:`invres3d.chain.engine.Chain`; same weights.
        vae: whether training adds the losses of :class:`invres3d.vae.VAEBranch`.
        order: order of a coupling's layers, "pre" or "post", see :class:`invres3d.chain.coupling.Branch`.
        dropout: share of the channels dropped inside of couplings in training.

    Shape:
        - input: (N, in_channels, D, H, W), each of D, H, W a multiple of 2^(len(channels) - 1), in training with VAE
          of twice that: 8 and 16 with the defaults. One of them at least two voxels at the deepest level.
        - output: (N, out_channels, D, H, W), a plain tensor also for a ``MetaTensor``; in training with VAE the tuple
          (logits, l2, kl) with l2 and kl of shape (N,).

    Raises:
        ValueError: when an argument or the input's shape does not fit; the message names the size to pad to.
        TypeError: when a weight has 16 bits, or the image is of another type than the weights.

    Source:
        Yamazaki, Rathour, Le 2021, "Invertible Residual Network with Regularization for Effective Volumetric
        Segmentation" (arXiv:2103.09042), section 2, figure 2.
        Not stated there and chosen here: depth, channels, couplings per level, the stem, the convolutions that change
        the channels, the sum as the skip, trilinear interpolation, the layers of a coupling and of the VAE, rounding.

    Example:
        >>> import torch
        >>> net = PartiallyInvertibleUNet(4, 3, channels=(8, 16, 32), num_couplings=1)
        >>> [x.shape for x in net(torch.zeros(1, 4, 16, 8, 8))]
        [torch.Size([1, 3, 16, 8, 8]), torch.Size([1]), torch.Size([1])]
        >>> net.eval()(torch.zeros(1, 4, 16, 8, 4)).shape
        torch.Size([1, 3, 16, 8, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (32, 64, 128, 256),
        num_couplings: int = 4,
        engine: str = "native",
        vae: bool = True,
        order: str = "pre",
        dropout: float = 0.0,
    ) -> None:
        require_levels(channels)
        require_positive(channels=min(channels), num_couplings=num_couplings)
        couplings = partial(make_couplings, channels, num_couplings, order, dropout)
        steps: list[Step] = []
        for level in range(len(channels) - 1):
            steps += [*couplings(level), PoolDown(channels[level], channels[level + 1])]
        steps += couplings(len(channels) - 1)
        bottleneck = len(steps)
        for level in reversed(range(len(channels) - 1)):
            steps += [InterpolateUp(channels[level + 1], channels[level]), *couplings(level)]
        super().__init__(in_channels, out_channels, channels, steps, bottleneck, engine, vae)
