"""Initial weights of convolutions."""

from __future__ import annotations

from torch import nn

__all__ = ["initialise_convolutions"]


def initialise_convolutions(network: nn.Module, mode: str = "fan_in") -> None:
    """Draw the weights of all convolutions but transposed ones from N(0, 2 / fan), and set their biases to 0.

    Args:
        network: changed in place.
        mode: which fan counts, "fan_in" or "fan_out".

    Source:
        He et al. 2015, "Delving Deep into Rectifiers", equations 10 and 14.

    Example:
        >>> conv = nn.Conv2d(1, 2, 3)
        >>> initialise_convolutions(conv)
        >>> conv.bias.tolist()
        [0.0, 0.0]
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")  # type: ignore[arg-type]
            if module.bias is not None:
                nn.init.zeros_(module.bias)
