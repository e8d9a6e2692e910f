"""Additive couplings: residual layers whose input can be recomputed from their output."""

from __future__ import annotations

import torch
from torch import nn

from .grid import round_to_grid

__all__ = ["ORDERS", "AdditiveCoupling", "Branch", "call_branch"]

ORDERS = ("pre", "post")


class Branch(nn.Module):
    """The function N of a coupling: ``conv(act(norm(x)))`` (order "pre") or ``act(norm(conv(x)))`` ("post").

    Convolution 3x3x3 with zero padding, one normalisation group per channel (affine instance normalisation), leaky
    ReLU of slope 0.01.

    Args:
        channels: channels of input and output.
        order: "pre" or "post".

    Shape:
        - x and output: (N, channels, D, H, W).
        - factors: (N, channels, 1, 1, 1), numbers >= 0 of the activation's channels (dropout), or None.

    Raises:
        ValueError: when order is another.

    Source:
        Yamazaki, Rathour, Le 2021 (arXiv:2103.09042), equation 1 and section 3.3.
        Not stated there: the layers of N and their order. "post" is the order of the 3-D U-Net that the paper extends;
        "pre" lets the sums of a level grow or fall freely and is cheaper to undo.

    Example:
        >>> Branch(4, "pre")(torch.zeros(1, 4, 2, 2, 2)).shape
        torch.Size([1, 4, 2, 2, 2])
    """

    def __init__(self, channels: int, order: str) -> None:
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f"order is {order!r}; expected one of {', '.join(ORDERS)}")
        self.order = order
        self.norm = nn.GroupNorm(channels, channels)
        self.act = nn.LeakyReLU(0.01, inplace=True)
        self.conv = nn.Conv3d(channels, channels, 3, padding=1, bias=order == "pre")

    def forward(self, x: torch.Tensor, factors: torch.Tensor | None = None) -> torch.Tensor:
        x = self.act(self.norm(x if self.order == "pre" else self.conv(x)))
        if factors is not None:
            x = x * factors
        return self.conv(x) if self.order == "pre" else x


def call_branch(branch: nn.Module, x: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
    """``branch(x, factors)``, checked to be what a coupling can add and take away again.

    Args:
        branch: the function N of a coupling, with whatever layers.
        x, factors: as of :class:`Branch`.

    Raises:
        RuntimeError: when the output has another shape than x, or x was changed in place.

    Example:
        >>> branch = Branch(4, "pre")
        >>> branch.conv = nn.Conv3d(4, 4, 3)
        >>> call_branch(branch, torch.zeros(1, 4, 5, 5, 5), None)
        Traceback (most recent call last):
        RuntimeError: a branch of a coupling made shape [1, 4, 3, 3, 3] of [1, 4, 5, 5, 5]; expected the same shape: \
give its layers stride 1, as many output as input channels and padding that keeps the size
    """
    version = 0 if x.is_inference() else x._version
    update = branch(x, factors)
    if update.shape != x.shape:
        raise RuntimeError(
            f"a branch of a coupling made shape {list(update.shape)} of {list(x.shape)}; expected the same shape: give "
            "its layers stride 1, as many output as input channels and padding that keeps the size"
        )
    if version != (0 if x.is_inference() else x._version):
        raise RuntimeError(
            "a branch of a coupling changed its input in place; expected it unchanged, because it is added to later: "
            "give the branch's first layer inplace=False"
        )
    return update


class AdditiveCoupling(nn.Module):
    """Invertible residual layer ``y1 = x1 + N1(x2)``, ``y2 = x2 + N2(y1)``.

    In training N1 and N2 are rounded to the grid of :mod:`.grid`; for inputs on the grid and sums smaller than
    1024 in size, ``inverse`` then gives back the very bits. In evaluation nothing is rounded.

    Args:
        channels: channels of x1 and x2 together, an even number.
        order: order of the layers in N1 and N2, see :class:`Branch`.
        dropout: share of the channels that are dropped, whole, inside N1 and N2 in training.

    Shape:
        - x1, x2, y1, y2: (N, channels / 2, D, H, W).

    Raises:
        ValueError: when channels is odd, or dropout is not in [0, 1).

    Source:
        Yamazaki, Rathour, Le 2021 (arXiv:2103.09042), equation 1. Not stated there: rounding and dropout.

    Example:
        >>> coupling = AdditiveCoupling(4)
        >>> x1, x2 = (round_to_grid(torch.randn(1, 2, 4, 4, 4)) for _ in range(2))
        >>> back = coupling.inverse(*coupling(x1, x2))
        >>> torch.equal(back[0], x1) and torch.equal(back[1], x2)
        True
    """

    def __init__(self, channels: int, order: str = "pre", dropout: float = 0.0) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"a coupling got {channels} channels; expected an even number: it halves them")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; expected a probability of at least 0 and less than 1")
        self.dropout = dropout
        self.width = channels // 2
        self.n1 = Branch(channels // 2, order)
        self.n2 = Branch(channels // 2, order)

    def draw_factors(self, x: torch.Tensor) -> torch.Tensor | None:
        """Factors of the channels for one training pass: (2, N, channels / 2, 1, 1, 1), for N1 and N2; None for ones.

        They are drawn before the pass, because recomputing the input from the output needs the same factors. N, dtype
        and device are as in ``x``.
        """
        if self.dropout == 0 or not self.training:
            return None
        shape, dtype = (2, len(x), self.width, 1, 1, 1), torch.promote_types(x.dtype, torch.float32)
        share = x.new_full(shape, 1 - self.dropout, dtype=dtype)
        return torch.bernoulli(share) / (1 - self.dropout)

    def _update(self, branch: Branch, x: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
        return round_to_grid(call_branch(branch, x, factors)) if self.training else branch(x, factors)

    def forward(
        self, x1: torch.Tensor, x2: torch.Tensor, factors: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        factors1, factors2 = (None, None) if factors is None else (factors[0], factors[1])
        if torch.jit.is_scripting():
            y1 = x1 + self.n1(x2, factors1)
            return y1, x2 + self.n2(y1, factors2)
        y1 = x1 + self._update(self.n1, x2, factors1)
        return y1, x2 + self._update(self.n2, y1, factors2)

    def inverse(
        self, y1: torch.Tensor, y2: torch.Tensor, factors: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The input (x1, x2) from the output, with the same ``factors``."""
        factors1, factors2 = (None, None) if factors is None else (factors[0], factors[1])
        x2 = y2 - self._update(self.n2, y1, factors2)
        return y1 - self._update(self.n1, x2, factors1), x2
