"""Phase 2 of the transfer: a U-Net on the encoder that has learned to find the object."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from .double_conv import double_conv
from .encoder import CHANNELS, Encoder
from .initialisation import initialise_convolutions

__all__ = ["LocalizerUNet", "load_localizer", "transfer_encoder"]

_PREFIX = "encoder."


class LocalizerUNet(nn.Module):
    """Phase 2: the encoder of phase 1, frozen, and the expanding path of a U-Net with concatenated skips.

    A frozen encoder is not trained and stays in evaluation mode, also after ``train()``: its batch norms keep the
    running statistics of phase 1 and it drops nothing. :func:`transfer_encoder` gives it the weights.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the output (logits).
        channels: channels of each level, as in the :class:`Localizer`.
        dropout: the encoder's dropout, which acts only if the encoder is not frozen.
        freeze_encoder: whether the encoder is frozen at first.

    Shape:
        - input: (N, in_channels, *spatial), every size a multiple of ``encoder.step``.
        - output: (N, out_channels, *spatial).

    Raises:
        ValueError, TypeError: as :class:`Encoder`.

    Source:
        Hu et al. 2018, "Deep feature transfer between localization and segmentation tasks", section 2.3 and figure 1;
        the expanding path is from Ronneberger et al. 2015, figure 1, with zero padding and batch norm.

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
        channels: Sequence[int] = CHANNELS,
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
            initialise_convolutions(part)
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


def transfer_encoder(state: Mapping[str, torch.Tensor], network: LocalizerUNet) -> list[str]:
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
        >>> from .localizer import Localizer
        >>> localizer = Localizer(2, 1, (8, 8), channels=(4, 8))
        >>> moved = transfer_encoder(localizer.state_dict(), LocalizerUNet(2, 1, 1, channels=(4, 8)))
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
    """:func:`transfer_encoder` from a file, for configs.

    Args:
        network: changed in place and returned.
        path: file with a localiser's state dict; None leaves the network as it is.

    Raises:
        ValueError: as :func:`transfer_encoder`, with the file's name.

    Example:
        >>> import tempfile
        >>> from .localizer import Localizer
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
            transfer_encoder(state, network)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return network
