"""Applies, undoes and differentiates a coupling's branch in place, one slab of the volume at a time.

With the order norm, activation, convolution, only the state and its gradient have the size of the volume: the
statistics of the norm are small, and the rest is local.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from .coupling import Branch
from .gradients import ParameterGradients
from .grid import add_rounded_
from .guards import is_plain, is_same_size_conv

__all__ = ["Moments", "add_branch_", "channel_moments", "is_slabwise", "pull_back_branch_"]

Moments = tuple[torch.Tensor, torch.Tensor]
"""Mean and 1 / standard deviation of each sample's channels, (N, C, 1, 1, 1)."""

_SLAB_BYTES = 2**23
_MAX_SLABS = 8
# With N * C * planes * rows of at most this, PyTorch's CPU convolution takes a kernel that is ten times slower.
_SLOW_BELOW = 20480


def is_slabwise(branch: Branch) -> bool:
    """Whether calling the branch is what this module computes.

    That is its order, and what its layers are and can be set to; the other settings are read where they are used.

    Example:
        >>> branch = Branch(4, "pre")
        >>> is_slabwise(branch)
        True
        >>> branch.norm = nn.GroupNorm(2, 4)
        >>> is_slabwise(branch)
        False
    """
    norm, act = branch.norm, branch.act
    return (
        type(branch) is Branch
        and branch.order == "pre"
        and is_same_size_conv(branch.conv, 3)
        and all(map(is_plain, (branch, norm, act)))
        and type(norm) is nn.GroupNorm
        and norm.weight is not None
        and norm.bias is not None
        and norm.num_groups == norm.num_channels == branch.conv.in_channels == branch.conv.out_channels
        and type(act) is nn.LeakyReLU
        and act.negative_slope >= 0
    )


def _slabs(x: torch.Tensor) -> Iterator[tuple[int, int]]:
    """First and last + 1 plane of each slab."""
    n, c, planes, rows, _ = x.shape
    thinnest = _SLOW_BELOW // (n * c * rows) + 1
    num = max(1, min(_MAX_SLABS, x.numel() * x.element_size() // _SLAB_BYTES, planes // thinnest))
    for i in range(num):
        yield planes * i // num, planes * (i + 1) // num


def channel_moments(norm: nn.GroupNorm, x: torch.Tensor) -> Moments:
    """Moments of x, (N, C, D, H, W), over its voxels, as the norm takes them; by a few channels at a time."""
    n, channels, voxels = x.shape[0], x.shape[1], x[0, 0].numel()
    width = -(-channels // min(_MAX_SLABS, max(1, x.numel() * x.element_size() // _SLAB_BYTES)))
    parts = []
    for i in range(0, channels, width):
        part = x[:, i : i + width].contiguous()
        c = part.shape[1]
        parts.append(torch.native_group_norm(part, None, None, n, c, voxels, c, norm.eps)[1:])
    mean, rstd = (torch.cat(some, 1)[:, :, None, None, None] for some in zip(*parts, strict=True))
    return mean, rstd


class _Slabwise:
    """The branch on slabs: what the norm and dropout come to for each channel, and the convolution's weights."""

    def __init__(self, branch: Branch, moments: Moments, factors: torch.Tensor | None) -> None:
        per_channel = (1, -1, 1, 1, 1)
        self.mean, self.rstd = moments
        self.factors = torch.ones_like(self.mean) if factors is None else factors
        self.slope = branch.act.negative_slope
        # the activation commutes with factors >= 0, so dropout joins the norm's scale and shift
        self.scale = branch.norm.weight.view(per_channel) * self.rstd * self.factors
        self.shift = branch.norm.bias.view(per_channel) * self.factors - self.mean * self.scale
        device = self.mean.device.type
        autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        self.dtype = torch.get_autocast_dtype(device) if autocast else self.mean.dtype
        weight, bias = branch.conv.weight, branch.conv.bias
        self.wanted = [True, weight.requires_grad, bias is not None and bias.requires_grad]
        self.weight = weight.to(self.dtype)
        self.bias = None if bias is None else bias.to(self.dtype)

    def activate(self, x: torch.Tensor, start: int, stop: int) -> tuple[torch.Tensor, slice]:
        """Activation of the slab and of a plane on each side, zero outside of the volume; the planes within it."""
        n, c, planes, rows, columns = x.shape
        low, high = max(start - 1, 0), min(stop + 1, planes)
        within = slice(low - start + 1, high - start + 1)
        a = x.new_empty((n, c, stop - start + 2, rows, columns))
        if start == 0:
            a[:, :, 0] = 0
        if stop == planes:
            a[:, :, -1] = 0
        inside = a[:, :, within]
        torch.addcmul(self.shift, x[:, :, low:high], self.scale, out=inside)
        F.leaky_relu_(inside, self.slope)
        return a, within

    def convolve(self, a: torch.Tensor) -> torch.Tensor:
        return F.conv3d(a.to(self.dtype), self.weight, self.bias, padding=(0, 1, 1))

    def convolve_back(self, grad: torch.Tensor, a: torch.Tensor) -> list:
        """Gradients by ``a``, the weights and the bias; None for what is frozen."""
        return torch.ops.aten.convolution_backward(
            grad.to(self.dtype), a.to(self.dtype), self.weight, [self.weight.shape[0]], [1, 1, 1], [0, 1, 1],
            [1, 1, 1], False, [0, 0, 0], 1, self.wanted,
        )  # fmt: skip


def add_branch_(target: torch.Tensor, branch: Branch, x: torch.Tensor, factors: torch.Tensor | None) -> Moments:
    """``target += round_to_grid(branch(x))`` in place, for order "pre". Gives the moments of x, for the way back."""
    moments = channel_moments(branch.norm, x)
    slabwise = _Slabwise(branch, moments, factors)
    for start, stop in _slabs(x):
        add_rounded_(target[:, :, start:stop], slabwise.convolve(slabwise.activate(x, start, stop)[0]))
    return moments


def _pull_back_norm_(
    branch: Branch,
    slabwise: _Slabwise,
    x: torch.Tensor,
    total: torch.Tensor,
    total_centred: torch.Tensor,
    grad_x: torch.Tensor,
    parameter_grads: ParameterGradients,
) -> None:
    """What the means of g and of (x - mean) g, given as sums over the voxels, add to the gradients."""
    norm = branch.norm
    total_hat = total_centred * slabwise.rstd
    parameter_grads.add(norm.weight, (total_hat * slabwise.factors).sum(0).flatten())
    parameter_grads.add(norm.bias, (total * slabwise.factors).sum(0).flatten())
    voxels = x[0, 0].numel()
    slope = slabwise.scale * slabwise.rstd * total_hat / voxels
    offset = slabwise.scale * total / voxels - slabwise.mean * slope
    grad_x.addcmul_(x, slope, value=-1).sub_(offset)


def pull_back_branch_(
    target: torch.Tensor,
    branch: Branch,
    x: torch.Tensor,
    factors: torch.Tensor | None,
    moments: Moments,
    grad_target: torch.Tensor,
    grad_x: torch.Tensor,
    parameter_grads: ParameterGradients,
) -> None:
    """Undo ``add_branch_`` in place and add the branch's gradients to ``grad_x`` and ``parameter_grads``.

    With z = scale x + shift the normalised input and g the gradient by z, that by x is
    scale (g - mean(g) - xhat mean(g xhat)), where xhat = (x - mean) rstd; the means are known after the last slab.
    """
    slabwise = _Slabwise(branch, moments, factors)
    total, total_centred = torch.zeros_like(slabwise.mean), torch.zeros_like(slabwise.mean)
    planes = x.shape[2]
    for start, stop in _slabs(x):
        a, within = slabwise.activate(x, start, stop)
        add_rounded_(target[:, :, start:stop], slabwise.convolve(a), sign=-1)
        padded, *parameters = slabwise.convolve_back(grad_target[:, :, start:stop], a)
        for parameter, gradient in zip((branch.conv.weight, branch.conv.bias), parameters, strict=True):
            parameter_grads.add(parameter, gradient)
        g = padded.to(grad_x.dtype)[:, :, within]
        del padded
        torch.ops.aten.leaky_relu_backward.grad_input(g, a[:, :, within], slabwise.slope, True, grad_input=g)
        del a
        around = slice(max(start - 1, 0), min(stop + 1, planes))
        grad_x[:, :, around].addcmul_(g, slabwise.scale)
        total += g.sum((2, 3, 4), keepdim=True)
        centred = (x[:, :, around] - slabwise.mean).mul_(g)
        total_centred += centred.sum((2, 3, 4), keepdim=True)
        del g, centred
    _pull_back_norm_(branch, slabwise, x, total, total_centred, grad_x, parameter_grads)
