"""Squeeze: exact and invertible conversion of 2x2x2 voxel blocks to channels, rotated by learned angles."""

from __future__ import annotations

import torch
from torch import nn

from .gradients import ParameterGradients
from .grid import add_rounded_, round_to_grid

__all__ = ["OrthogonalSqueeze", "view_blocks", "view_places"]


def view_blocks(x: torch.Tensor) -> torch.Tensor:
    """View of (N, c, 2D, 2H, 2W) as (2, N, c, 2, 2, D, H, W): the place along depth first, then rows, columns."""
    n, c, d, h, w = x.shape
    return x.view(n, c, d // 2, 2, h // 2, 2, w // 2, 2).permute(3, 0, 1, 5, 7, 2, 4, 6)


def view_places(s: torch.Tensor) -> torch.Tensor:
    """View of (N, 4c, D, H, W) as (N, c, 2, 2, D, H, W)."""
    n, c, d, h, w = s.shape
    return s.view(n, c // 4, 2, 2, d, h, w)


class OrthogonalSqueeze(nn.Module):
    """Voxels of each 2x2x2 block to channels (pixel unshuffle), then rotated by an orthogonal 8x8 matrix per channel.

    The matrix is a product of plane rotations: of the block's voxels that are neighbours along the depth, then along
    rows, then along columns. Zero angles are the plain pixel unshuffle, angles of pi/4 the Haar transform (up to
    signs). A rotation (a, b) -> (a cos t - b sin t, a sin t + b cos t) is taken as three steps ``a -= tan(t/2) b``,
    ``b += sin(t) a``, ``a -= tan(t/2) b``. In training what each adds is rounded to the grid of :mod:`.grid`,
    so that the inverse gives back the very bits, whatever the angles.

    Args:
        channels: channels c of the full resolution.
        learned: whether there are angles; without, it is the pixel unshuffle.

    Shape:
        - x: (N, c, 2D, 2H, 2W).
        - output: two tensors (N, 4c, D, H, W): the even and the odd planes; channels c-major, then row, column.

    Source:
        Yamazaki, Rathour, Le 2021 (arXiv:2103.09042), section 2: learned invertible resampling by squeezing (pixel
        shuffle). Not stated there: what is learned. Rotations by three steps: Bruekers and van den Enden 1992, "New
        Networks for Perfect Inversion and Perfect Reconstruction".

    Example:
        >>> squeeze = OrthogonalSqueeze(1)
        >>> x = torch.arange(8.0).view(1, 1, 2, 2, 2)
        >>> [s.flatten().tolist() for s in squeeze(x)]
        [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]
        >>> torch.equal(squeeze.inverse(*squeeze(x)), x)
        True
    """

    def __init__(self, channels: int, learned: bool = True) -> None:
        super().__init__()
        self.angles = nn.Parameter(torch.zeros(channels, 12)) if learned else None

    def _lifts(self) -> list[torch.Tensor]:
        """-tan(t/2) and sin(t) of all angles, (c, 12) each."""
        assert self.angles is not None
        return [-torch.tan(self.angles / 2), torch.sin(self.angles)]

    def _lift(self, a: torch.Tensor, b: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """a + k b, with a leading axis of channels after the samples and three of space at the end."""
        update = k[..., None, None, None] * b
        if not torch.jit.is_scripting() and self.training:
            update = round_to_grid(update)
        return a + update

    def _rotate(
        self, a: torch.Tensor, b: torch.Tensor, k: list[torch.Tensor], first: int, sign: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        width = 2 if a.dim() == 6 else 4
        outer = sign * k[0][:, first : first + width].reshape(a.shape[1:-3])
        inner = sign * k[1][:, first : first + width].reshape(a.shape[1:-3])
        a = self._lift(a, b, outer)
        b = self._lift(b, a, inner)
        return self._lift(a, b, outer), b

    def _rotate_rows(self, t: torch.Tensor, k: list[torch.Tensor], first: int, sign: int) -> torch.Tensor:
        a, b = self._rotate(t[:, :, 0], t[:, :, 1], k, first, sign)
        return torch.stack([a, b], 2)

    def _rotate_columns(self, t: torch.Tensor, k: list[torch.Tensor], first: int, sign: int) -> torch.Tensor:
        a, b = self._rotate(t[:, :, :, 0], t[:, :, :, 1], k, first, sign)
        return torch.stack([a, b], 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        blocks = view_blocks(x)
        t1, t2 = blocks[0], blocks[1]
        if self.angles is not None:
            k = self._lifts()
            t1, t2 = self._rotate(t1, t2, k, 0, 1)
            t1, t2 = self._rotate_rows(t1, k, 4, 1), self._rotate_rows(t2, k, 6, 1)
            t1, t2 = self._rotate_columns(t1, k, 8, 1), self._rotate_columns(t2, k, 10, 1)
        return t1.flatten(1, 3), t2.flatten(1, 3)

    def inverse(self, s1: torch.Tensor, s2: torch.Tensor) -> torch.Tensor:
        """(N, c, 2D, 2H, 2W) from the output of forward."""
        t1, t2 = view_places(s1), view_places(s2)
        if self.angles is not None:
            k = self._lifts()
            t1, t2 = self._rotate_columns(t1, k, 8, -1), self._rotate_columns(t2, k, 10, -1)
            t1, t2 = self._rotate_rows(t1, k, 4, -1), self._rotate_rows(t2, k, 6, -1)
            t1, t2 = self._rotate(t1, t2, k, 0, -1)
        n, c, _, _, d, h, w = t1.shape
        blocks = torch.stack([t1, t2]).permute(1, 2, 5, 0, 6, 3, 7, 4)
        return blocks.reshape(n, c, 2 * d, 2 * h, 2 * w)

    def _lifts_in_place(
        self, s1: torch.Tensor, s2: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor, int, slice]]:
        """The steps of the rotations in their order: what is added to, what is added, its factor, for which angles."""
        t1, t2 = view_places(s1), view_places(s2)
        turns = [(t1, t2, 0)]
        turns += [(t[:, :, 0], t[:, :, 1], first) for t, first in ((t1, 4), (t2, 6))]
        turns += [(t[:, :, :, 0], t[:, :, :, 1], first) for t, first in ((t1, 8), (t2, 10))]
        lifts = []
        for a, b, first in turns:
            angles = slice(first, first + (4 if first == 0 else 2))
            lifts += [(a, b, 0, angles), (b, a, 1, angles), (a, b, 0, angles)]
        return lifts

    def rotate_(self, s: list[torch.Tensor], sign: int) -> None:
        """Rotate in place, outside of autograd (sign 1), or rotate back (sign -1)."""
        if self.angles is None:
            return
        k = self._lifts()
        for a, b, which, angles in self._lifts_in_place(*s)[::sign]:
            factor = k[which][:, angles].reshape(a.shape[1:-3])
            add_rounded_(a, factor[..., None, None, None] * b, sign)

    def pull_back_rotation_(
        self, s: list[torch.Tensor], level_grads: list[torch.Tensor], sign: int, parameter_grads: ParameterGradients
    ) -> None:
        """Undo ``rotate_(s, sign)``, and turn the gradients by its output into those by its input, in place."""
        if self.angles is None:
            return
        with torch.enable_grad():
            k = self._lifts()
        by_k = [torch.zeros_like(self.angles) for _ in k]
        lifts = zip(self._lifts_in_place(*s), self._lifts_in_place(*level_grads), strict=True)
        for (a, b, which, angles), (grad_a, grad_b, _, _) in list(lifts)[::-sign]:
            factor = sign * k[which].detach()[:, angles].reshape(a.shape[1:-3])[..., None, None, None]
            add_rounded_(a, factor * b, sign=-1)
            grad_b.addcmul_(factor, grad_a)
            by_k[which][:, angles] += sign * (grad_a * b).sum((0, -3, -2, -1)).view(len(by_k[which]), -1)
        if self.angles.requires_grad:
            parameter_grads.add(self.angles, torch.autograd.grad(k, self.angles, by_k)[0])
