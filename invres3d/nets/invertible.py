"""Base class of the two invertible networks: everything except the changes of resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import nn

from ..chain.coupling import AdditiveCoupling
from ..chain.engine import Chain
from ..chain.guards import is_same_size_conv
from ..chain.steps import Residual, Step, halves
from ..vae import VAEBranch
from .requirements import require_long_types, require_positive, require_same_type, require_volume

__all__ = ["InvertibleUNet", "make_couplings"]


def make_couplings(channels: Sequence[int], num_couplings: int, order: str, dropout: float, level: int) -> list[Step]:
    """The couplings of one side of a level.

    Args:
        channels: of each level.
        num_couplings: how many.
        order, dropout: as of :class:`invres3d.chain.coupling.AdditiveCoupling`.
        level: number of the level, from full resolution down.

    Example:
        >>> len(make_couplings([4, 8], 3, "pre", 0.0, level=1))
        3
    """
    return [Residual(AdditiveCoupling(channels[level], order, dropout)) for _ in range(num_couplings)]


class InvertibleUNet(nn.Module):
    """Stem, chain of invertible steps with the head, and in training the VAE branch at the deepest level.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the output (logits).
        channels: channels of each level, from full resolution down, even numbers.
        steps: the chain's.
        bottleneck: number of the step before which the state is at the deepest level.
        engine: see :class:`invres3d.chain.engine.Chain`.
        vae: whether there is a VAE branch.

    Raises:
        ValueError: when a number of channels is not positive.
        TypeError: in a forward pass, when a weight has 16 bits, or the image is of another type than the weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        steps: Sequence[Step],
        bottleneck: int,
        engine: str,
        vae: bool,
    ) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, out_channels=out_channels, channels=min(channels))
        self.in_channels = in_channels
        self.step = 2 ** (len(channels) - 1)
        self.name = type(self).__name__
        self.stem = nn.Conv3d(in_channels, channels[0], 3, padding=1)
        self.chain = Chain(steps, nn.Conv3d(channels[0], out_channels, 1), bottleneck, engine)
        self.vae = VAEBranch(in_channels, channels) if vae else None

    def _halves(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The stem's output in two halves; in training with memory of their own, which the engine may use up."""
        if torch.jit.is_scripting() or not self.training:
            x1, x2 = self.stem(x).chunk(2, 1)
            return x1, x2
        return self._own_halves(x)

    @torch.jit.unused
    def _own_halves(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not is_same_size_conv(self.stem, 3) or self.stem.bias is None:
            x1, x2 = halves(self.stem(x))
            return x1, x2
        (w1, w2), (b1, b2) = self.stem.weight.chunk(2), self.stem.bias.chunk(2)
        return F.conv3d(x, w1, b1, padding=1), F.conv3d(x, w2, b2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if torch.jit.is_scripting():
            require_volume(self.name, list(x.shape), self.in_channels, self.step, self.step)
            return self.chain(*self._halves(x))[0]
        else:
            vae = self.vae if self.training else None
            if isinstance(x, MetaTensor):
                x = x.as_tensor()
            require_long_types(self.name, self)
            require_same_type(self.name, x, self)
            if not torch.jit.is_tracing():
                require_volume(
                    self.name, list(x.shape), self.in_channels, self.step, self.step * (1 if vae is None else 2)
                )
            logits, deepest = self.chain(*self._halves(x))
            return logits if vae is None else (logits, *vae(deepest, x))
