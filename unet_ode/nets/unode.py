"""U-Node: a U-Net whose blocks are neural ordinary differential equations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ..ode import ODEBlock, SolverStats
from .residual_unet import ResidualUNet

__all__ = ["PAPER_SOLVER", "UNode"]

PAPER_SOLVER = {"method": "dopri5", "rtol": 1e-3, "atol": 1e-3, "gradient": "adjoint"}
"""Arguments of :class:`UNode` that solve and differentiate as the paper does, by torchdiffeq."""


class _TimeConv(nn.Module):
    """3x3 convolution, padded with zeros, of the channels [t, x], without ever joining them.

    conv([t, x]) = conv(x, weight) + bias + t conv(1, weight_time): the last term is one plane for all times, which
    differs from its inner value only at the border.
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.three_d = spatial_dims == 3
        kernel = [3] * spatial_dims
        std = (2 / ((channels + 1) * 3**spatial_dims)) ** 0.5
        self.weight = nn.Parameter(torch.randn(channels, channels, *kernel) * std)
        self.weight_time = nn.Parameter(torch.randn(channels, 1, *kernel) * std)
        self.bias = nn.Parameter(torch.zeros(channels))

    def _plane(self, x: torch.Tensor) -> torch.Tensor:
        """conv(1, weight_time): for each voxel the sum of the weights that fall inside the image, axis by axis."""
        plane: torch.Tensor = self.weight_time
        for axis in range(2, x.dim()):
            place = torch.arange(x.size(axis), device=x.device)
            inside = torch.stack([place > 0, place >= 0, place < x.size(axis) - 1]).to(plane.dtype)
            plane = torch.matmul(plane.transpose(axis, -1), inside).transpose(axis, -1)
        return plane.transpose(0, 1)

    def forward(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if self.three_d:
            y = functional.conv3d(x, self.weight, self.bias, padding=1)
        else:
            y = functional.conv2d(x, self.weight, self.bias, padding=1)
        t = t.reshape([-1] + [1] * (x.dim() - 1)).to(y.dtype)
        return y.addcmul_(t, self._plane(x).to(y.dtype))


class _ConvField(nn.Module):
    """f(t, y) = a(conv2([t, norm(a(conv1([t, y])))])), a being the leaky ReLU of slope 0.01."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.conv1 = _TimeConv(spatial_dims, channels)
        self.conv2 = _TimeConv(spatial_dims, channels)

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        inner = functional.instance_norm(functional.leaky_relu_(self.conv1(t, y)))
        return functional.leaky_relu_(self.conv2(t, inner))

    @torch.jit.unused
    def split_parameters(self) -> list[list[torch.Tensor]]:
        """The weights of time and state of each convolution, which are one tensor in the paper's code."""
        return [[conv.weight_time, conv.weight] for conv in (self.conv1, self.conv2)]


class UNode(ResidualUNet):
    """U-Node: the U of :class:`ResidualUNet` with an ordinary differential equation in each of its blocks.

    Args:
        spatial_dims, in_channels, out_channels, channels: as in :class:`ResidualUNet`.
        method: of the solver, as all that follow: see :class:`unet_ode.ode.ODEBlock`.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step; None takes rtol.
        num_steps: number of equal steps; None controls them.
        gradient: "checkpoint", "backprop" or "adjoint".
        first_step: length of the first step tried.
        max_nfe: evaluations that a sample may take in a block.

    Shape:
        As in :class:`ResidualUNet`.

    Raises:
        ValueError, TypeError: as :class:`ResidualUNet`; also for weights of 16 bits.
        SolverError: when a block's dynamics cannot be integrated.

    Source:
        Pinckaers and Litjens 2019, section 3. The solver is not the paper's, which :data:`PAPER_SOLVER` is.

    Example:
        >>> net = UNode(2, 3, 2, rtol=1e-2)
        >>> sum(p.numel() for p in net.parameters())
        2087346
        >>> net(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 2, 32, 48])
        >>> len(net.last_stats())
        9
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        method: str = "bosh3",
        rtol: float = 1e-3,
        atol: float | None = None,
        num_steps: int | None = None,
        gradient: str = "checkpoint",
        first_step: float | None = None,
        max_nfe: int = 1000,
    ) -> None:
        def make_block(width: int, name: str) -> ODEBlock:
            return ODEBlock(
                _ConvField(spatial_dims, width),
                method=method,
                rtol=rtol,
                atol=rtol if atol is None else atol,
                num_steps=num_steps,
                gradient=gradient,
                first_step=first_step,
                max_nfe=max_nfe,
                name=name,
            )

        super().__init__(spatial_dims, in_channels, out_channels, channels, make_block)

    @torch.jit.unused
    def last_stats(self) -> dict[str, SolverStats]:
        """The solver's counts of the last forward pass by block: down1 .., embedding, up1 .. (up1 the deepest)."""
        blocks = [*self.down, self.embedding, *self.up]
        return {block.name: block.last_stats() for block in blocks}
