"""Effective receptive field: the part of an image that influences the output at one pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from monai.data import MetaTensor
from torch import nn

from ..inference.reflection import reflected_indices

__all__ = ["check_pixel", "draw_receptive_field", "effective_receptive_field", "radius_of_share"]

_DECADES = 3  # what is smaller than 10^-3 of the largest gradient has the darkest colour
_SHARES, _STYLES = (0.5, 0.95), (":", "-")  # of the gradient, each with the line of its circle


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and in its own mode again afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def check_pixel(pixel: Sequence[int], sizes: Sequence[int], what: str = "pixel") -> None:
    """Refuse an index that does not exist.

    Args:
        pixel: index, a number for each axis.
        sizes: of the array along each axis.
        what: how the message calls the pixel.

    Raises:
        ValueError: when ``pixel`` lies outside, or has another number of axes.

    Example:
        >>> check_pixel((4, 0), (4, 8))
        Traceback (most recent call last):
        ValueError: pixel is (4, 0); expected an index from (0, 0) to (3, 7)
    """
    if len(pixel) != len(sizes) or not all(0 <= place < size for place, size in zip(pixel, sizes, strict=True)):
        last = tuple(int(size) - 1 for size in sizes)
        raise ValueError(f"{what} is {tuple(pixel)}; expected an index from {(0,) * len(last)} to {last}")


def _pad(image: torch.Tensor, divisor: int) -> torch.Tensor:
    """The image continued by reflection at the end of each axis, up to a multiple of ``divisor``."""
    sizes = [-(-size // divisor) * divisor for size in image.shape[2:]]
    if max(sizes) == divisor > 1:  # instance norm needs more than one voxel at the deepest level
        sizes = [2 * divisor] * len(sizes)
    for axis, size in enumerate(sizes, start=2):
        index = reflected_indices(0, size, image.shape[axis])
        image = image.index_select(axis, index.to(image.device))
    return image


def effective_receptive_field(
    network: nn.Module, image: torch.Tensor, pixel: Sequence[int], channel: int = 0, divisor: int = 16
) -> torch.Tensor:
    """How strongly each voxel moves one output: sum_c |d network(image)[channel, pixel] / d image[c, voxel]|.

    The network runs once, in evaluation mode, and once backwards. The image is continued by reflection to a size that
    the network takes; a voxel's gradient includes the gradients of its reflections. Modes and gradients of the network
    stay as they were, and the caller may be under ``torch.no_grad`` or ``torch.inference_mode``.

    Args:
        network: gives (1, K, *spatial) for (1, C, *spatial).
        image: one image, as the network gets it.
        pixel: index of the output's voxel, one number for each spatial axis of ``image``.
        channel: channel of the output.
        divisor: product of the network's strides; sizes are padded to multiples of it.

    Shape:
        - image: (1, C, *spatial), any size.
        - output: (*spatial).

    Raises:
        ValueError: when there is not one image, ``pixel`` or ``channel`` lies outside, or the network's output is not
            as large as its input.

    Source:
        Luo et al. 2016, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", section 2.

    Example:
        >>> blur = torch.nn.Conv2d(1, 1, 3, padding=1)
        >>> _ = torch.nn.init.constant_(blur.weight, -0.5)
        >>> effective_receptive_field(blur, torch.rand(1, 1, 4, 5), (1, 0), divisor=1)
        tensor([[0.5000, 0.5000, 0.0000, 0.0000, 0.0000],
                [0.5000, 0.5000, 0.0000, 0.0000, 0.0000],
                [0.5000, 0.5000, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.0000, 0.0000, 0.0000]])
    """
    if image.dim() < 3 or image.shape[0] != 1:
        raise ValueError(
            f"image has shape {tuple(image.shape)}; expected (1, C, *spatial): take one image of the batch"
        )
    check_pixel(pixel, image.shape[2:])
    image = image.as_tensor() if isinstance(image, MetaTensor) else image
    with torch.inference_mode(False), torch.enable_grad(), _evaluating(network):
        leaf = image.clone().detach().requires_grad_()
        padded = _pad(leaf, divisor)
        output = network(padded)
        if output.shape[2:] != padded.shape[2:]:
            raise ValueError(
                f"the network returned {tuple(output.shape[2:])} for an image of {tuple(padded.shape[2:])}; expected "
                "the same size: use a network with same padding"
            )
        if not 0 <= channel < output.shape[1]:
            raise ValueError(
                f"channel is {channel}; expected 0 to {output.shape[1] - 1}: choose one of the output's channels"
            )
        (gradient,) = torch.autograd.grad(output[(0, channel, *pixel)], leaf)
    return gradient[0].abs().sum(0)


def radius_of_share(field: torch.Tensor, pixel: Sequence[int], share: float = 0.95) -> float:
    """The radius, in voxels, of the smallest ball around ``pixel`` that holds ``share`` of the field's sum.

    Args:
        field: not negative, see :func:`effective_receptive_field`.
        pixel: centre of the ball.
        share: in (0, 1].

    Shape:
        - field: (*spatial).

    Raises:
        ValueError: when ``pixel`` lies outside.

    Example:
        >>> radius_of_share(torch.ones(1, 11), (0, 5), share=0.8)  # 9 of 11
        4.0
    """
    check_pixel(pixel, field.shape)
    axes = [(torch.arange(size) - place).square() for size, place in zip(field.shape, pixel, strict=True)]
    squares = sum(torch.meshgrid(*axes, indexing="ij"), start=torch.zeros(())).flatten()
    squares, order = squares.sort()
    held = field.detach().cpu().double().flatten()[order].cumsum(0)
    return squares[int(torch.searchsorted(held, share * held[-1]))].sqrt().item()


def _plane(values: torch.Tensor, pixel: Sequence[int]) -> np.ndarray:
    """(..., x, y[, z]) as rows y of columns x, at the pixel's z."""
    values = values.detach().cpu().float()
    return (values[..., pixel[2]] if len(pixel) == 3 else values).transpose(-1, -2).numpy()


def _grey_or_colour(image: np.ndarray) -> np.ndarray:
    """(C, rows, columns) between 0 and 1; three channels are colours, the mean is taken of any others."""
    image = image - image.min()
    image = image / max(float(image.max()), np.finfo(np.float32).tiny)
    return np.moveaxis(image, 0, -1) if len(image) == 3 else image.mean(0)


def _mark(axes: Axes, centre: tuple[int, int], radii: Sequence[float], title: str) -> None:
    limits = axes.get_xlim(), axes.get_ylim()
    for colour, width in (("black", 2.6), ("white", 1.2)):  # an outline, so that it shows on any ground
        for radius, style in zip(radii, _STYLES, strict=True):
            axes.add_patch(Circle(centre, radius, fill=False, edgecolor=colour, linewidth=width, linestyle=style))
        axes.plot(*centre, marker="+", color=colour, markersize=9 + width, markeredgewidth=width)
    axes.set(title=title, xlabel="x / px", xlim=limits[0], ylim=limits[1])


def draw_receptive_field(
    image: torch.Tensor,
    field: torch.Tensor,
    pixel: Sequence[int],
    start: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """The image with its pixel marked, next to the effective receptive field relative to its maximum, on a log scale.

    Both show the circles around the pixel that hold 50 % (dotted) and 95 % of the gradient. The first axis runs to the
    right, the second down, as MONAI reads pictures; of a volume it is the slice through the pixel, the second axis up.

    Args:
        image: what the network got; three channels are shown as colours.
        field: see :func:`effective_receptive_field`.
        pixel: index of the output's voxel in ``image``.
        start: index of the image's first voxel where it is a window of a larger one, for the ticks.
        title: of the whole figure.

    Shape:
        - image: (C, *spatial), two or three spatial axes.
        - field: (*spatial).

    Example:
        >>> field = torch.zeros(20, 10)
        >>> field[4, 2:7] = 1.0
        >>> figure = draw_receptive_field(torch.rand(3, 20, 10), field, (4, 4))
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['image', 'gradient: 50% within 1.0 px, 95% within 2.0 px']
    """
    start = [0] * len(pixel) if start is None else start
    radii = [radius_of_share(field, pixel, share) for share in _SHARES]
    centre = pixel[0] + start[0], pixel[1] + start[1]
    left, right = start[0] - 0.5, start[0] + field.shape[0] - 0.5
    low, high = start[1] - 0.5, start[1] + field.shape[1] - 0.5
    up = len(pixel) == 3
    place = {
        "origin": "lower" if up else "upper",
        "extent": (left, right, low, high) if up else (left, right, high, low),
    }
    strength = _plane(field, pixel)
    strength = strength / max(float(field.max()), np.finfo(np.float32).tiny)
    figure = Figure(figsize=(11, 1.4 + 4.6 * min(max((high - low) / (right - left), 0.5), 1.5)), layout="constrained")
    picture, map_ = figure.subplots(1, 2, sharex=True, sharey=True)
    picture.imshow(_grey_or_colour(_plane(image, pixel)), cmap="gray", vmin=0, vmax=1, **place)
    shown = map_.imshow(np.maximum(strength, 10**-_DECADES), cmap="magma", norm=LogNorm(10**-_DECADES, 1), **place)
    figure.colorbar(shown, ax=map_, label="|gradient| / maximum", extend="min")
    picture.set_ylabel("y / px")
    _mark(picture, centre, radii, "image")
    held = (f"{share:.0%} within {radius:.1f} px" for share, radius in zip(_SHARES, radii, strict=True))
    _mark(map_, centre, radii, "gradient: " + ", ".join(held))
    figure.suptitle(title)
    return figure
