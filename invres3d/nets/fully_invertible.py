"""Fully invertible residual U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from ..chain.resampling import SqueezeDown, SqueezeUp
from ..chain.steps import Step
from .invertible import InvertibleUNet, make_couplings
from .requirements import require_levels, require_positive

__all__ = ["FullyInvertibleUNet"]


def _require_squeezable(channels: Sequence[int]) -> None:
    for i, (above, below) in enumerate(pairwise(channels), start=1):
        if below % 8 or not 0 < below < 4 * above:
            raise ValueError(
                f"channels[{i}] is {below} after {above}; expected a multiple of 8 below {4 * above}: an eighth of "
                "it comes down from the level above, and less than half of the channels there may go down"
            )


class FullyInvertibleUNet(InvertibleUNet):
    """U-Net with only invertible steps: couplings, squeezes down, squeezes up; training stores one state.

    ``x -> stem -> [L couplings, split, squeeze] per level -> L couplings -> [unsqueeze, join, L couplings] per level ->
    head``. Of a level's channels, ``channels[i + 1] / 8`` go down; the others are the skip.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the output (logits).
        channels: channels of each level, from full resolution down; multiples of 8 after the first, the first even,
            each less than 4 times the one before.
        num_couplings: couplings L per level and side.
        engine: "native", "memcnn", "checkpoint" or "none", see :class:`invres3d.chain.engine.Chain`; same weights.
        vae: whether training adds the losses of :class:`invres3d.vae.VAEBranch`.
        order: order of a coupling's layers, "pre" or "post", see :class:`invres3d.chain.coupling.Branch`.
        dropout: share of the channels dropped inside of couplings in training.
        learned_resampling: whether the squeezes rotate each block of voxels by learned angles.

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
        Segmentation" (arXiv:2103.09042), section 2, figure 3.
        Not stated there and chosen here: depth, channels, couplings per level, the stem, the share of the channels that
        goes down, what is learned in the resampling, the layers of a coupling and of the VAE, rounding to a grid.

    Example:
        >>> import torch
        >>> net = FullyInvertibleUNet(4, 3, channels=(8, 16, 32), num_couplings=1)
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
        learned_resampling: bool = True,
    ) -> None:
        require_levels(channels)
        require_positive(channels=min(channels), num_couplings=num_couplings)
        _require_squeezable(channels)
        down = [below // 8 for below in channels[1:]]
        couplings = partial(make_couplings, channels, num_couplings, order, dropout)
        steps: list[Step] = []
        for level, width in enumerate(down):
            steps += [*couplings(level), SqueezeDown(width, learned_resampling)]
        steps += couplings(len(down))
        bottleneck = len(steps)
        for level in reversed(range(len(down))):
            steps += [SqueezeUp(down[level], learned_resampling), *couplings(level)]
        super().__init__(in_channels, out_channels, channels, steps, bottleneck, engine, vae)
