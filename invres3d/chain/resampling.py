"""Changes of resolution that can be undone exactly, by the squeeze."""

from __future__ import annotations

from typing import Any

import torch

from .gradients import ParameterGradients
from .squeeze import OrthogonalSqueeze, view_blocks, view_places
from .steps import Step

__all__ = ["SqueezeDown", "SqueezeUp"]


def _unshuffle(x: torch.Tensor) -> list[torch.Tensor]:
    """Even and odd planes of the blocks as channels, in new memory."""
    n, c, d, h, w = x.shape
    parts = []
    for planes in view_blocks(x):
        part = x.new_empty((n, 4 * c, d // 2, h // 2, w // 2))
        view_places(part).copy_(planes)
        parts.append(part)
    return parts


def _split(levels: list[torch.Tensor], channels: int) -> None:
    """The last ``channels`` channels of the deepest level become a level of their own; the others stay."""
    x2 = levels.pop()
    skip = x2[:, : x2.shape[1] - channels].clone()
    deeper = _unshuffle(x2[:, x2.shape[1] - channels :])
    levels += [skip, *deeper]


def _join(levels: list[torch.Tensor]) -> None:
    """Undo ``_split``."""
    s2, s1, skip = levels.pop(), levels.pop(), levels.pop()
    n, width, d, h, w = skip.shape
    x2 = skip.new_empty((n, width + s1.shape[1] // 4, d, h, w))
    x2[:, :width] = skip
    for planes, part in zip(view_blocks(x2[:, width:]), (s1, s2), strict=True):
        planes.copy_(view_places(part))
    levels.append(x2)


class _SqueezeStep(Step):
    """A step by a squeeze of some channels.

    Args:
        channels: channels that change their level.
        learned: see :class:`.squeeze.OrthogonalSqueeze`.
    """

    def __init__(self, channels: int, learned: bool) -> None:
        super().__init__()
        self.channels = channels
        self.squeeze = OrthogonalSqueeze(channels, learned)


class SqueezeDown(_SqueezeStep):
    """The last channels of the deepest level's second half are squeezed to a deeper level; the rest is the skip."""

    def forward(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> list[torch.Tensor]:
        x2 = levels.pop()
        width = x2.shape[1] - self.channels
        s1, s2 = self.squeeze(x2[:, width:])
        levels.append(x2[:, :width])
        levels.append(s1)
        levels.append(s2)
        return levels

    def advance_(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> None:
        _split(levels, self.channels)
        self.squeeze.rotate_(levels[-2:], sign=1)

    def retreat_(
        self,
        levels: list[torch.Tensor],
        level_grads: list[torch.Tensor],
        factors: torch.Tensor | None,
        saved: Any,
        parameter_grads: ParameterGradients,
    ) -> None:
        self.squeeze.pull_back_rotation_(levels[-2:], level_grads[-2:], 1, parameter_grads)
        _join(levels)
        _join(level_grads)


class SqueezeUp(_SqueezeStep):
    """The deepest level is brought to the resolution of the one above by the inverse squeeze and joins its skip."""

    def forward(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> list[torch.Tensor]:
        s2 = levels.pop()
        s1 = levels.pop()
        skip = levels.pop()
        levels.append(torch.cat([skip, self.squeeze.inverse(s1, s2)], 1))
        return levels

    def advance_(self, levels: list[torch.Tensor], factors: torch.Tensor | None) -> None:
        self.squeeze.rotate_(levels[-2:], sign=-1)
        _join(levels)

    def retreat_(
        self,
        levels: list[torch.Tensor],
        level_grads: list[torch.Tensor],
        factors: torch.Tensor | None,
        saved: Any,
        parameter_grads: ParameterGradients,
    ) -> None:
        _split(levels, self.channels)
        _split(level_grads, self.channels)
        self.squeeze.pull_back_rotation_(levels[-2:], level_grads[-2:], -1, parameter_grads)
