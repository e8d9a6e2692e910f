"""U-Net whose contracting path is VGG-16, with or without batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import nn

from .initialisation import initialise_convolutions
from .requirements import require_multiples, require_same_type, require_spatial_dims

__all__ = ["VGGUNet"]

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # width and number of convolutions before each pooling


def _conv_unit(spatial_dims: int, in_channels: int, out_channels: int, batch_norm: bool) -> list[nn.Module]:
    unit: list[nn.Module] = [Conv[Conv.CONV, spatial_dims](in_channels, out_channels, 3, padding=1)]
    if batch_norm:
        unit.append(Norm[Norm.BATCH, spatial_dims](out_channels))
    return [*unit, nn.ReLU(inplace=True)]


def _convs(spatial_dims: int, in_channels: int, num: int, out_channels: int, batch_norm: bool) -> nn.Sequential:
    widths = [in_channels] + [out_channels] * (num - 1)
    units = [_conv_unit(spatial_dims, width, out_channels, batch_norm) for width in widths]
    return nn.Sequential(*(layer for unit in units for layer in unit))


def _features(
    spatial_dims: int, in_channels: int, widths: Sequence[int], batch_norm: bool
) -> tuple[list[nn.Module], list[int]]:
    """The layers of VGG-16 without its classifier, and which of them are poolings."""
    layers: list[nn.Module] = []
    pools: list[int] = []
    for width, (_, num_convs) in zip(widths, _STAGES, strict=True):
        layers += _convs(spatial_dims, in_channels, num_convs, width, batch_norm)
        pools.append(len(layers))
        layers.append(Pool[Pool.MAX, spatial_dims](2, 2))
        in_channels = width
    return layers, pools


def _crop(x: torch.Tensor, border: int) -> torch.Tensor:
    """A copy of the middle, so that the rest can be freed; the map itself where nothing is to be left out."""
    if border == 0:
        return x
    for axis in range(2, x.dim()):
        x = x.narrow(axis, border, x.shape[axis] - 2 * border)
    return x.clone()


class VGGUNet(nn.Module):
    """VGG-16 as the contracting path of a U-Net, four convolutions at its lowest level, and a path back up.

    ``features`` holds the layers of VGG-16 in their published order, so that its parameters have the names and, at
    width 1, the shapes of torchvision's ``vgg16_bn`` (``vgg16`` without batch norm): :func:`.vgg_weights.load_encoder`.
    What goes into each of its five poolings is kept. ``bottom`` has two convolutions after the last pooling and two
    before the first upsampling. Five times a 2x2 transposed convolution with stride 2 doubles the size, the kept map of
    that size is concatenated, and two convolutions follow. These 13 + 4 + 10 convolutions are 3x3 and each has batch
    norm, where it is on, and ReLU; a 1x1 convolution gives the logits.

    Args:
        spatial_dims: 2 or 3; published weights are for 2.
        in_channels: channels of the image; published weights are for 3.
        out_channels: channels of the output (logits).
        width: factor of all numbers of channels, 64 to 512 at width 1.
        batch_norm: normalise the output of each 3x3 convolution over the batch.
        freeze_encoder: do not train ``features``, and keep its batch norms at their running statistics.

    Shape:
        - input: (N, in_channels, *spatial), every size a multiple of 32. Training with batch norm needs more than one
          element in the lowest map, (N, ..., size / 32): two images, or 64 voxels along one axis.
        - output: (N, out_channels, *spatial). With ``margin``, a second argument of the call, that many voxels on each
          side are left out, and the path back up computes no more than the rest needs: same values, less time and
          memory, for tiles that overlap.

    Raises:
        ValueError: for other ``spatial_dims``, a ``width`` that leaves no channel, sizes that do not fit, and a
            ``margin`` that leaves nothing.
        TypeError: when the image is of another type than the weights.

    Source:
        Giorgi, Liguori, Mannucci, "U-Net: Segmentation of Biomedical Images" (course report, Sapienza), section 4.
        VGG-16: Simonyan and Zisserman 2015, arXiv:1409.1556, configuration D; initialisation as in torchvision.

    Not stated in the report:
        The widths below VGG (its last, 512, here), what the 27 convolutions count (the 3x3 ones here: the only count
        that comes to 27), and whether its own convolutions have batch norm (they do, if VGG's have).

    Example:
        >>> network = VGGUNet(width=0.0625)
        >>> network(torch.zeros(2, 3, 32, 64)).shape
        torch.Size([2, 1, 32, 64])
        >>> sum(isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) for layer in network.modules())
        27
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        width: float = 1.0,
        batch_norm: bool = True,
        freeze_encoder: bool = False,
    ) -> None:
        super().__init__()
        require_spatial_dims(spatial_dims)
        widths = [round(width * channels) for channels, _ in _STAGES]
        if min(widths) < 1:
            raise ValueError(f"width is {width}; expected at least 1 / 64, which is one channel in the first layer")
        self.step = 2 ** len(_STAGES)
        self.batch_norm, self.freeze_encoder = batch_norm, freeze_encoder
        features, self.pools = _features(spatial_dims, in_channels, widths, batch_norm)
        self.features = nn.Sequential(*features)
        convs = partial(_convs, spatial_dims, batch_norm=batch_norm)
        channels = widths[-1]
        self.bottom = convs(channels, 4, channels)
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        for out in reversed(widths):
            self.up.append(Conv[Conv.CONVTRANS, spatial_dims](channels, out, 2, stride=2))
            self.merge.append(convs(2 * out, 2, out))
            channels = out
        self.head = Conv[Conv.CONV, spatial_dims](channels, out_channels, 1)
        initialise_convolutions(self, "fan_out")
        self.features.requires_grad_(not freeze_encoder)

    def train(self, mode: bool = True) -> VGGUNet:
        super().train(mode)
        if self.freeze_encoder:
            self.features.eval()
        return self

    def _borders(self, margin: int) -> list[int]:
        """What each level may leave out on all sides, the finest first, for the output to lack ``margin`` there.

        The zeros beyond such a border spoil two voxels of two convolutions, and a level begins on an even voxel of the
        one above it.
        """
        borders: list[int] = []
        for _ in range(len(self.pools)):
            margin = max(margin - 2, 0) // 2 * 2
            borders.append(margin)
            margin = margin // 2
        return borders

    def forward(self, x: torch.Tensor, margin: int | None = None) -> torch.Tensor:
        if margin is None:  # torch's older export to ONNX makes a tensor of any other default
            margin = 0
        if not torch.jit.is_scripting():
            require_same_type("VGGUNet", x, self)
        if not torch.jit.is_tracing():
            require_multiples(x, self.step, "VGGUNet")
            if margin < 0 or (margin > 0 and 2 * margin >= min(x.shape[2:])):
                raise ValueError(f"margin is {margin}, the input {list(x.shape)}; expected less than half of each size")
        borders = self._borders(margin)
        skips: list[torch.Tensor] = []
        for i, layer in enumerate(self.features):
            if i in self.pools:
                skips.append(_crop(x, borders[len(skips)]))
            x = layer(x)
        x = self.bottom(x)
        left_out = 0
        for up, merge in zip(self.up, self.merge):  # noqa: B905  (TorchScript's zip takes no strict)
            skip = skips.pop()  # no map is held longer than it is needed
            x = up(_crop(x, borders[len(skips)] // 2 - left_out))
            left_out = borders[len(skips)]
            x = torch.cat([skip, x], dim=1)
            for layer in merge:  # type: ignore[attr-defined]
                x = layer(x)
        return self.head(_crop(x, margin - left_out))
