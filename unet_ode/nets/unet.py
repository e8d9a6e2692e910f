"""U-Net with valid or same convolutions, in 2-D and 3-D."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from monai.networks.layers.factories import Conv, Pool, split_args
from torch import nn

from .double_conv import double_conv
from .initialisation import initialise_convolutions
from .requirements import refuse_size, require_levels, require_same_type, require_spatial_dims

__all__ = ["UNet"]


class UNet(nn.Module):
    """U-Net: a contracting path, an expanding path, and skips that are concatenated.

    With the defaults this is the network of the paper: valid 3x3 convolutions, 2x2 max-pooling, 2x2 transposed
    convolutions that halve the channels, skips cropped to the centre. Weights are drawn from N(0, 2 / fan_in).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the output (logits).
        channels: channels of each level, from full resolution down.
        padding: "valid" (the paper) shrinks the output; "same" pads with zeros and keeps the size.
        norm: normalisation after each convolution, as MONAI names it ("batch", "instance", ...); the paper has none.
        act: activation, as MONAI names it.
        dropout: probability of dropping a whole feature map at the end of the contracting path.

    Shape:
        - input: (N, in_channels, *spatial). Let d be ``len(channels) - 1``. "same": every size a multiple of 2^d,
          at least 2^(d + 1) with instance norm.
          "valid": every size as :meth:`valid_size` gives it (572 for instance).
        - output: (N, out_channels, *spatial), smaller by ``margin`` voxels on each side ("valid": 572 -> 388, so 92).

    Raises:
        ValueError: when the input's size does not fit; the message names the nearest sizes that do.
        TypeError: when the image is of another type than the weights.

    Source:
        Ronneberger, Fischer, Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
        section 2 and figure 1; initialisation and dropout from section 3.

    Example:
        >>> UNet(2, 1, 2)(torch.zeros(1, 1, 188, 188)).shape
        torch.Size([1, 2, 4, 4])
        >>> UNet(2, 1, 2, channels=(8, 16), padding="same")(torch.zeros(1, 1, 10, 12)).shape
        torch.Size([1, 2, 10, 12])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        padding: str = "valid",
        norm: str | tuple | None = None,
        act: str | tuple = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require_spatial_dims(spatial_dims)
        if padding not in ("valid", "same"):
            raise ValueError(f"padding is {padding!r}; expected 'valid' or 'same'")
        require_levels(channels)
        self._set_sizes(len(channels) - 1, padding == "same", norm)
        convs = partial(double_conv, spatial_dims, padding=1 if self.same else 0, norm=norm, act=act)
        widths = [in_channels, *channels]
        self.down = nn.ModuleList(
            convs(widths[i], widths[i + 1], dropout=dropout if i >= self.depth - 1 else 0.0)
            for i in range(self.depth + 1)
        )
        self.pool = Pool[Pool.MAX, spatial_dims](2)
        levels, up = range(self.depth)[::-1], Conv[Conv.CONVTRANS, spatial_dims]
        self.up = nn.ModuleList(up(channels[i + 1], channels[i], 2, stride=2) for i in levels)
        self.merge = nn.ModuleList(convs(2 * channels[i], channels[i], dropout=0.0) for i in levels)
        self.head = Conv[Conv.CONV, spatial_dims](channels[0], out_channels, 1)
        initialise_convolutions(self)

    def _set_sizes(self, depth: int, same: bool, norm: str | tuple | None) -> None:
        """What the sizes of input and output follow from, see :meth:`valid_size`."""
        self.depth = depth
        self.same = same
        self.step = 2**depth
        self.margin = 0 if same else 6 * self.step - 4
        self.rest = 0 if same else 4
        # statistics over one element are none: the deepest maps of an instance norm need two a side
        one_deep_pixel = same and norm is not None and str(split_args(norm)[0]).lower() == "instance"
        self.min_output = self.step + 1 if one_deep_pixel else 1

    @torch.jit.export
    def valid_size(self, at_least: int) -> int:
        """The smallest side of an input that the network takes and that is >= ``at_least``.

        Example:
            >>> UNet(2, 1, 2).valid_size(500), UNet(2, 1, 2, padding="same").valid_size(500)
            (508, 512)
        """
        output = max(at_least - 2 * self.margin, self.min_output)
        return 2 * self.margin + output + (self.rest - output) % self.step

    def _check_size(self, x: torch.Tensor) -> None:
        for axis in range(2, x.dim()):
            size = x.size(axis)
            above = self.valid_size(size)
            if above != size:
                refuse_size("UNet", axis, size, max(above - self.step, self.valid_size(1)), above)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting():
            require_same_type("UNet", x, self)
        if not torch.jit.is_tracing():
            self._check_size(x)
        skips: list[torch.Tensor] = []
        for i, block in enumerate(self.down):
            if i > 0:
                x = self.pool(x)
            x = block(x)
            skips.append(x)
        for i, (up, merge) in enumerate(zip(self.up, self.merge)):  # noqa: B905  (TorchScript's zip takes no strict)
            x = up(x)
            skip = skips[self.depth - 1 - i]
            if not self.same:
                for axis in range(2, x.dim()):
                    skip = skip.narrow(axis, (skip.size(axis) - x.size(axis)) // 2, x.size(axis))
            x = merge(torch.cat([skip, x], dim=1))
        return self.head(x)
