"""Sliding-window pixel classifier, evaluated at every pixel of an image in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.layers import get_act_layer
from monai.networks.layers.factories import Conv, Pool
from torch import nn

from .initialisation import initialise_convolutions
from .requirements import require_same_type, require_spatial_dims

__all__ = ["PixelClassifier"]

_LAST_MAP = 3  # side of the map that the fully connected layer reads, as in the paper's table


def _check_arguments(spatial_dims, padding, channels, kernel_sizes) -> None:
    require_spatial_dims(spatial_dims)
    if padding not in ("reflect", "valid"):
        raise ValueError(f"padding is {padding!r}; expected 'reflect' or 'valid'")
    if len(channels) != len(kernel_sizes) or not kernel_sizes or min(kernel_sizes) < 1:
        raise ValueError(
            f"channels is {tuple(channels)} and kernel_sizes {tuple(kernel_sizes)}; expected one positive kernel "
            "size for each of at least one stage"
        )


def _window(kernel_sizes: Sequence[int]) -> int:
    """The side that shrinks to the last map: a stage takes 2 s + kernel - 1 pixels to s."""
    side = _LAST_MAP
    for kernel in reversed(kernel_sizes):
        side = 2 * side + kernel - 1
    if side % 2 == 0:
        raise ValueError(
            f"kernel_sizes {tuple(kernel_sizes)} give a window of {side} pixels, which has no centre pixel; "
            f"expected an odd window: make the first kernel size even, {kernel_sizes[0]} is odd"
        )
    return side


class PixelClassifier(nn.Module):
    """Class of each pixel from the square window centred on it: logits(p) = N(image[p - w // 2 .. p + w // 2]).

    The network N of a window is a stack of stages (valid convolution, activation, 2x2 max-pooling), a fully connected
    layer with an activation and a linear layer; with the defaults the paper's N4 with w = 95. The windows of
    neighbouring pixels share nearly all their work. Therefore ``forward`` runs N once on the whole image: every
    pooling moves by one pixel instead of two, and whatever follows i poolings is dilated by 2^i. The result at each
    pixel equals :meth:`classify_windows` with the same weights. Weights are drawn from N(0, 2 / fan_in).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: number of classes (logits).
        channels: channels of the stages.
        kernel_sizes: side of each stage's kernel in pixels. They give the window's side ``window``: the one for which
            every pooling divides exactly and a map of 3 pixels is left for the fully connected layer.
        hidden: neurons of the fully connected layer.
        padding: "reflect" mirrors the image at its border and gives the logits of every pixel; "valid" gives those
            of the pixels whose window lies inside the image.
        act: activation, as MONAI names it.
        dropout: probability of dropping a neuron of the fully connected layer.

    Attributes:
        window: side of the window in pixels (95).
        margin: pixels that the output lacks on each side: 0 with "reflect", ``window // 2`` with "valid".

    Shape:
        - input: (N, in_channels, *spatial); each size >= 2 ("reflect") or >= ``window`` ("valid").
        - output: (N, out_channels, *spatial), smaller by ``margin`` pixels on each side.

    Raises:
        ValueError: for arguments out of range, kernel sizes that give an even window, and images that are too small.
        TypeError: when the image is of another type than the weights.

    Source:
        Ciresan, Giusti, Gambardella, Schmidhuber 2012, "Deep neural networks segment neuronal membranes in electron
        microscopy images", NIPS 25, table 1 (network N4).

    Differs from / not stated in the paper:
        Its table gives neither activation nor initialisation: ReLU and He initialisation are our choice. The output
        is logits; the paper's probabilities are their softmax. Dropout is an addition, off by default.

    Example:
        >>> net = PixelClassifier(2, 1, 2)
        >>> net.window, net(torch.zeros(1, 1, 20, 24)).shape
        (95, torch.Size([1, 2, 20, 24]))
        >>> PixelClassifier(2, 1, 2, padding="valid")(torch.zeros(1, 1, 95, 100)).shape
        torch.Size([1, 2, 1, 6])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (48, 48, 48, 48),
        kernel_sizes: Sequence[int] = (4, 5, 4, 4),
        hidden: int = 200,
        padding: str = "reflect",
        act: str | tuple = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_arguments(spatial_dims, padding, channels, kernel_sizes)
        self.window = _window(kernel_sizes)
        self.margin = self.window // 2 if padding == "valid" else 0
        self.reflect = self.window // 2 - self.margin
        self.min_size = self.window if padding == "valid" else 2
        conv, pool = Conv[Conv.CONV, spatial_dims], Pool[Pool.MAX, spatial_dims]
        self.stages = nn.ModuleList(
            nn.Sequential(
                conv(width, channels[i], kernel_sizes[i], dilation=2**i),
                get_act_layer(act),
                pool(2, stride=1, dilation=2**i),
            )
            for i, width in enumerate([in_channels, *channels[:-1]])
        )
        self.hidden = conv(channels[-1], hidden, _LAST_MAP, dilation=2 ** len(channels))
        self.classify = nn.Sequential(get_act_layer(act), nn.Dropout(dropout), conv(hidden, out_channels, 1))
        initialise_convolutions(self)

    def _pad(self, x: torch.Tensor) -> torch.Tensor:
        # By index, as torch's own reflection stops at one image length: smaller images are mirrored again and again.
        # bundlekit's tiles have their own, since neither package imports the other.
        for axis in range(2, x.dim()):
            size = x.size(axis)
            position = torch.arange(-self.reflect, size + self.reflect, device=x.device)
            period = torch.full_like(position, 2 * size - 2)  # a tensor, as ONNX export fails on a number
            position = position % period
            x = x.index_select(axis, torch.minimum(position, period - position))
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting():
            require_same_type("PixelClassifier", x, self)
        if not torch.jit.is_tracing():
            for axis in range(2, x.dim()):
                if x.size(axis) < self.min_size:
                    raise ValueError(
                        f"PixelClassifier got {x.size(axis)} pixels along axis {axis}; expected at least "
                        f"{self.min_size}: pad the image"
                    )
        if self.reflect > 0:
            x = self._pad(x)
        for stage in self.stages:
            x = stage(x)
        return self.classify(self.hidden(x))

    def classify_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits of the centre pixels of windows, by the strided network as the paper's table lists it.

        Args:
            windows: (N, in_channels, *window), each side of ``window`` pixels.

        Returns:
            Logits, (N, out_channels).

        Raises:
            ValueError: when a side is not ``window``.
            TypeError: when the windows are of another type than the weights.

        Example:
            >>> PixelClassifier(2, 1, 2).classify_windows(torch.zeros(3, 1, 95, 95)).shape
            torch.Size([3, 2])
        """
        require_same_type("PixelClassifier", windows, self)
        if any(side != self.window for side in windows.shape[2:]):
            raise ValueError(
                f"windows are {tuple(windows.shape[2:])}; expected {self.window} pixels a side: crop or pad them"
            )
        conv, pool = (F.conv2d, F.max_pool2d) if windows.dim() == 4 else (F.conv3d, F.max_pool3d)
        for stage in self.stages:
            layer, act, _ = stage.children()
            windows = pool(act(conv(windows, layer.weight, layer.bias)), 2)  # type: ignore[arg-type]
        return self.classify(conv(windows, self.hidden.weight, self.hidden.bias)).flatten(1)  # type: ignore[arg-type]
