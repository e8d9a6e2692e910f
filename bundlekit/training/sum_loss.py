"""Loss that is the sum of several losses and stores the value of each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.data import MetaTensor
from torch import nn

__all__ = ["SumLoss"]


class SumLoss(nn.Module):
    """``sum_i loss_i(logits, target)``.

    Args:
        losses: by the name that each is logged under.

    Attributes:
        terms: last value of each, detached.

    Shape:
        - logits, target: what the losses take; the target may be a ``MetaTensor``.
        - output: a scalar.

    Raises:
        ValueError: where there is no loss.

    Example:
        >>> loss = SumLoss(absolute=nn.L1Loss(), squared=nn.MSELoss())
        >>> loss(torch.ones(2), torch.tensor([1.0, 5.0])).item()  # 2 + 8
        10.0
        >>> {name: term.item() for name, term in loss.terms.items()}
        {'absolute': 2.0, 'squared': 8.0}
    """

    def __init__(self, **losses: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        if not losses:
            raise ValueError("got no loss; expected at least one, such as dice=DiceLoss()")
        self.losses = losses
        for name, loss in losses.items():
            if isinstance(loss, nn.Module):
                self.add_module(name, loss)  # moved with the sum
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if isinstance(target, MetaTensor):
            target = target.as_tensor()
        terms = {name: loss(logits, target) for name, loss in self.losses.items()}
        self.terms = {name: term.detach() for name, term in terms.items()}
        return torch.stack(list(terms.values())).sum()
