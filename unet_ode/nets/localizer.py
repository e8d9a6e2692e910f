"""A contracting path that first learns to find the centre of an object, and then serves the U-Net that outlines it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import nn

from .input_size import check_multiples
from .unet import double_conv

__all__ = ["Encoder", "Localizer", "LocalizerUNet", "load_localizer", "transfer"]

_CHANNELS = (64, 128, 256, 512, 1024)
_PREFIX = "encoder."


class Encoder(nn.Module):
    """The contracting path that both phases share: two 3x3 convolutions a level, 2x2 max-pooling between levels.

    Each convolution has batch norm, dropout of whole feature maps (in the two lowest levels) and ReLU, and pads with
    zeros.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        channels: channels of each level, from full resolution down.
        dropout: probability of dropping a feature map.

    Attributes:
        step: factor between the resolutions of the first and the last level, ``2 ** (len(channels) - 1)``.

    Shape:
        - input: (N, in_channels, *spatial), every size a multiple of ``step``.
        - output: a map for each level, (N, channels[i], *spatial / 2^i).

    Raises:
        ValueError: for other ``spatial_dims``, fewer than two levels, and sizes that do not fit.

    Source:
        Hu et al. 2018, section 2.2.

    Example:
        >>> [tuple(level.shape) for level in Encoder(2, 1, channels=(4, 8))(torch.zeros(1, 1, 6, 8))]
        [(1, 4, 6, 8), (1, 8, 3, 4)]
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, channels: Sequence[int] = _CHANNELS, dropout: float = 0.2
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}; expected 2 or 3")
        if len(channels) < 2:
            raise ValueError(f"channels is {tuple(channels)}; expected at least two levels")
        self.step = 2 ** (len(channels) - 1)
        widths = [in_channels, *channels]
        self.levels = nn.ModuleList(
            double_conv(
                spatial_dims, widths[i], widths[i + 1], 1, "batch", "relu", dropout if i >= len(channels) - 2 else 0.0
            )
            for i in range(len(channels))
        )
        self.pool = Pool[Pool.MAX, spatial_dims](2)
        _initialise(self)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        if not torch.jit.is_tracing():
            check_multiples(x, self.step, "the encoder")
        maps: list[torch.Tensor] = []
        for i, level in enumerate(self.levels):
            if i > 0:
                x = self.pool(x)
            x = level(x)
            maps.append(x)
        return maps


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):  # not the transposed ones
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Localizer(nn.Module):
    """Phase 1: the encoder and a fully connected layer without activation that gives the centre of the object.

    With f the lowest map of the encoder as one vector of n numbers and s the size of the image in voxels: centre =
    s (1/2 + W f / sqrt(n) + b). The layer gives shares of the image, and the network voxels, in which a mean squared
    error is like the paper's. The root keeps one step of RMSprop, which moves every entry of W by as much, from moving
    the centre out of the image.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        spatial_size: size of the images in voxels, which the fully connected layer is made for.
        channels: channels of each level of the encoder.
        dropout: probability of dropping a feature map in the two lowest levels, and of dropping an input of the fully
            connected layer.

    Shape:
        - input: (N, in_channels, *spatial_size).
        - output: (N, spatial_dims), voxels from the centre of the first one, in the order of the axes.

    Raises:
        ValueError: where ``spatial_size`` does not have a multiple of ``encoder.step`` for each axis, and for images of
            another size.

    Source:
        Hu et al. 2018, "Deep feature transfer between localization and segmentation tasks", section 2.2 and figure 1.

    Not stated in the paper:
        Size of the images, channels, number of fully connected layers (several without activation are equal to one) and
        place and rate of the dropout.

    Example:
        >>> Localizer(2, 1, (16, 24), channels=(4, 8, 16))(torch.zeros(1, 1, 16, 24)).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        spatial_size: Sequence[int],
        channels: Sequence[int] = _CHANNELS,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(spatial_dims, in_channels, channels, dropout)
        step = self.encoder.step
        if len(spatial_size) != spatial_dims or any(size < 1 or size % step for size in spatial_size):
            raise ValueError(
                f"spatial_size is {tuple(spatial_size)}; expected {spatial_dims} sizes, each a multiple of {step}"
            )
        self.spatial_size = [int(size) for size in spatial_size]
        self.drop = nn.Dropout(dropout)
        num_features = channels[-1] * prod(size // step for size in spatial_size)
        self.root = num_features**0.5
        self.head = nn.Linear(num_features, spatial_dims)
        nn.init.zeros_(self.head.weight)  # so that training starts from the middle of the image
        nn.init.zeros_(self.head.bias)
        self.register_buffer("scale", torch.tensor(self.spatial_size, dtype=torch.float32), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_tracing() and list(x.shape[2:]) != self.spatial_size:
            raise ValueError(
                f"the localizer got images of {list(x.shape[2:])} voxels; expected {self.spatial_size}: resize or pad "
                "them, or make it for their size"
            )
        features = self.encoder(x)[-1].flatten(1) / self.root
        shares = self.head(self.drop(features)).float()
        return self.scale * (0.5 + shares)


class LocalizerUNet(nn.Module):
    """Phase 2: the encoder of phase 1, frozen, and the expanding path of a U-Net with concatenated skips.

    A frozen encoder is not trained and stays in evaluation mode, also after ``train()``: its batch norms keep the
    running statistics of phase 1 and it drops nothing. :func:`transfer` gives it the weights.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the output (logits).
        channels: channels of each level, those of the :class:`Localizer`.
        dropout: that of the encoder, which acts only where the encoder is not frozen.
        freeze_encoder: whether to begin with a frozen encoder.

    Shape:
        - input: (N, in_channels, *spatial), every size a multiple of ``encoder.step``.
        - output: (N, out_channels, *spatial).

    Raises:
        ValueError: as :class:`Encoder`.

    Source:
        Hu et al. 2018, "Deep feature transfer between localization and segmentation tasks", section 2.3 and figure 1;
        the expanding path is that of Ronneberger et al. 2015, figure 1, with zero padding and batch norm.

    Differs from the paper:
        The output is the logit; the paper's last layer, the sigmoid, belongs to loss and post-processing.

    Example:
        >>> network = LocalizerUNet(2, 1, 1, channels=(4, 8, 16))
        >>> network(torch.zeros(1, 1, 8, 12)).shape, network.train().encoder.training
        (torch.Size([1, 1, 8, 12]), False)
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = _CHANNELS,
        dropout: float = 0.2,
        freeze_encoder: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(spatial_dims, in_channels, channels, dropout)
        pairs = list(zip(channels[1:], channels[:-1], strict=True))[::-1]  # below and above, from the lowest level up
        self.up = nn.ModuleList(Conv[Conv.CONVTRANS, spatial_dims](below, above, 2, stride=2) for below, above in pairs)
        self.merge = nn.ModuleList(
            double_conv(spatial_dims, 2 * above, above, 1, "batch", "relu", 0.0) for _, above in pairs
        )
        self.head = Conv[Conv.CONV, spatial_dims](channels[0], out_channels, 1)
        for part in (self.merge, self.head):
            _initialise(part)
        self.set_frozen(freeze_encoder)

    def set_frozen(self, frozen: bool) -> None:
        """Freeze the encoder, or let it train as well.

        Example:
            >>> network = LocalizerUNet(2, 1, 1, channels=(4, 8))
            >>> network.set_frozen(False)
            >>> network.encoder.training, all(p.requires_grad for p in network.parameters())
            (True, True)
        """
        self.frozen = frozen
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def parameter_groups(self, encoder_lr: float) -> list[dict[str, Any]]:
        """Groups for an optimiser: the encoder with a learning rate of its own, and the rest of the network.

        Args:
            encoder_lr: learning rate of the encoder.

        Example:
            >>> encoder, rest = LocalizerUNet(2, 1, 1, channels=(4, 8)).parameter_groups(encoder_lr=0.1)
            >>> encoder["lr"], sorted(rest)
            (0.1, ['params'])
        """
        rest = [parameter for part in (self.up, self.merge, self.head) for parameter in part.parameters()]
        return [{"params": list(self.encoder.parameters()), "lr": encoder_lr}, {"params": rest}]

    def train(self, mode: bool = True) -> LocalizerUNet:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.encoder(x)
        x = maps[-1]
        for i, (up, merge) in enumerate(zip(self.up, self.merge)):  # noqa: B905  (TorchScript's zip takes no strict)
            x = merge(torch.cat([maps[len(maps) - 2 - i], up(x)], dim=1))
        return self.head(x)


def transfer(state: Mapping[str, torch.Tensor], network: LocalizerUNet) -> list[str]:
    """Give the encoder of a U-Net the weights and statistics of a localiser's; its fully connected layer stays behind.

    Args:
        state: ``Localizer.state_dict()``.
        network: changed in place; the weights of its expanding path stay as they are.

    Returns:
        The names of all tensors that moved, which are all of the encoder.

    Raises:
        ValueError: where names or shapes of the two encoders are not exactly the same; nothing has moved then.

    Source:
        Hu et al. 2018, section 2.3.

    Example:
        >>> localizer = Localizer(2, 1, (8, 8), channels=(4, 8))
        >>> moved = transfer(localizer.state_dict(), LocalizerUNet(2, 1, 1, channels=(4, 8)))
        >>> len(moved), moved[0]
        (24, 'encoder.levels.0.conv1.weight')
    """
    own = {name: value for name, value in network.state_dict().items() if name.startswith(_PREFIX)}
    weights = {name: value for name, value in state.items() if name.startswith(_PREFIX)}
    wrong = [name for name in {**own, **weights} if name not in own or name not in weights]
    wrong += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        raise ValueError(
            f"{len(wrong)} tensors of the two encoders do not match, first {wrong[0]}; expected the {len(own)} of the "
            "U-Net's encoder: give both networks the same spatial_dims, in_channels and channels"
        )
    network.encoder.load_state_dict({name.removeprefix(_PREFIX): value for name, value in weights.items()}, strict=True)
    return list(own)


def load_localizer(network: LocalizerUNet, path: str | os.PathLike | None) -> LocalizerUNet:
    """:func:`transfer` from a file, for configs.

    Args:
        network: changed in place and returned.
        path: file with a localiser's state dict; None leaves the network as it is.

    Raises:
        ValueError: as :func:`transfer`, with the file's name.

    Example:
        >>> import tempfile
        >>> path, localizer = tempfile.mkdtemp() + "/localizer.pt", Localizer(2, 1, (8, 8), channels=(4, 8))
        >>> torch.save(localizer.state_dict(), path)
        >>> network = load_localizer(LocalizerUNet(2, 1, 1, channels=(4, 8)), path)
        >>> weights = [net.encoder.levels[0].conv1.weight for net in (network, localizer)]
        >>> torch.equal(*weights)
        True
    """
    if path is not None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        try:
            transfer(state, network)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return network
