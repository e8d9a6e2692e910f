"""Changes of resolution in the partially invertible network: pooling down, interpolation up onto the skip.

They are not invertible, but what they add is a function of states that are: the state above stays where it is while
the deeper levels are at work, and is left as it was once the interpolated map is subtracted again.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from .gradients import ParameterGradients, pull_back
from .grid import StateMismatchError, add_rounded_, channel_sums, round_to_grid, sums_match
from .steps import Step, halves

__all__ = ["InterpolateUp", "PoolDown"]

_MAX_PARTS = 8


def _parts(channels: int) -> Iterator[slice]:
    """Some channels at a time, so that what is made on the way is small."""
    width = -(-channels // _MAX_PARTS)
    for start in range(0, channels, width):
        yield slice(start, min(start + width, channels))


def _pool(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool3d(x, 2)


def _interpolate(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="trilinear")


def _interpolate_back(grad: torch.Tensor) -> torch.Tensor:
    """Gradient by x of ``sum(grad * interpolate(x))``."""
    n, c, *size = grad.shape
    half = [s // 2 for s in size]
    return torch.ops.aten.upsample_trilinear3d_backward(grad, size, [n, c, *half], False, 2.0, 2.0, 2.0)


def _scatter_add_(grad_x: torch.Tensor, index: torch.Tensor, grad_pooled: torch.Tensor) -> None:
    """Add the gradient of each pooled voxel to the gradient of the voxel that it was taken from."""
    flat_x = grad_x.view(*grad_x.shape[:2], -1)  # in place: never a copy
    for flat, places, values in zip(flat_x, index.flatten(2), grad_pooled.flatten(2), strict=True):
        flat.scatter_add_(1, places, values.to(flat.dtype))


class PoolDown(Step):
    """A deeper level from the deepest: 2x2x2 max-pooling, then a 1x1x1 convolution to more channels.

    Args:
        in_channels: channels of the deepest level so far.
        out_channels: channels of the new level.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lift = nn.Conv3d(in_channels, out_channels, 1)

    def _down(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        return self.lift(torch.cat([_pool(x1), _pool(x2)], 1))

    def forward(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> list[torch.Tensor]:
        deeper = self._down(levels[-2], levels[-1])
        if not torch.jit.is_scripting() and self.training:
            deeper = round_to_grid(deeper)
        z1, z2 = deeper.chunk(2, 1)
        levels.append(z1)
        levels.append(z2)
        return levels

    def advance_(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> torch.Tensor:
        dtype = levels[-1].dtype
        for half in halves(self._down(*levels[-2:])):
            levels.append(torch.zeros_like(half, dtype=dtype))
            add_rounded_(levels[-1], half)
        return channel_sums(levels[-2:])

    def retreat_(
        self,
        levels: list[torch.Tensor],
        level_grads: list[torch.Tensor],
        factors: torch.Tensor | None,
        saved: torch.Tensor,
        parameter_grads: ParameterGradients,
    ) -> None:
        if not sums_match(levels[-2:], saved):  # the state above does not tell: it was left as it is
            raise StateMismatchError
        del levels[-2:]
        grad = torch.cat([level_grads.pop(-2), level_grads.pop()], 1)
        pooled, indices = zip(*(F.max_pool3d(x, 2, return_indices=True) for x in levels[-2:]), strict=True)
        (grad_pooled,) = pull_back(self.lift, [torch.cat(pooled, 1)], self.lift.parameters(), grad, parameter_grads)
        for grad_x, index, part in zip(level_grads[-2:], indices, grad_pooled.chunk(2, 1), strict=True):
            _scatter_add_(grad_x, index, part)


class InterpolateUp(Step):
    """The deepest level is added to the one above: a 1x1x1 convolution to its channels, then trilinear interpolation.

    Args:
        in_channels: channels of the deepest level.
        out_channels: channels of the level above.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(in_channels, out_channels, 1)

    def _reduce(self, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
        return self.reduce(torch.cat([z1, z2], 1))

    def forward(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> list[torch.Tensor]:
        z2 = levels.pop()
        z1 = levels.pop()
        update = _interpolate(self._reduce(z1, z2))
        if not torch.jit.is_scripting() and self.training:
            update = round_to_grid(update)
        u1, u2 = update.chunk(2, 1)
        levels[-2] = levels[-2] + u1
        levels[-1] = levels[-1] + u2
        return levels

    def advance_(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> list[torch.Tensor]:
        z2, z1 = levels.pop(), levels.pop()
        for x, reduced in zip(levels[-2:], self._reduce(z1, z2).chunk(2, 1), strict=True):
            for part in _parts(x.shape[1]):
                add_rounded_(x[:, part], _interpolate(reduced[:, part]))
        return [z1, z2]

    def retreat_(
        self,
        levels: list[torch.Tensor],
        level_grads: list[torch.Tensor],
        factors: torch.Tensor | None,
        saved: list[torch.Tensor],
        parameter_grads: ParameterGradients,
    ) -> None:
        grads_reduced = []
        for x, grad, reduced in zip(levels[-2:], level_grads[-2:], self._reduce(*saved).chunk(2, 1), strict=True):
            for part in _parts(x.shape[1]):
                add_rounded_(x[:, part], _interpolate(reduced[:, part]), sign=-1)
                grads_reduced.append(_interpolate_back(grad[:, part]))
        joined = torch.cat(grads_reduced, 1)
        del grads_reduced
        level_grads += pull_back(self._reduce, saved, self.reduce.parameters(), joined, parameter_grads)
        levels += saved
