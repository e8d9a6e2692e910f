"""The loss of the networks with a VAE branch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

__all__ = ["RegularizedLoss"]


class RegularizedLoss(nn.Module):
    """``loss(logits, target) + l2_weight * mean(l2) + kl_weight * mean(kl)``, the means over the samples.

    Args:
        loss: of the segmentation, called with (logits, target); for instance MONAI's ``DiceCELoss``.
        l2_weight: weight of the squared error of the rebuilt image.
        kl_weight: weight of the divergence of the code from a normal distribution.

    Attributes:
        terms: last values of "segmentation", and of "l2" and "kl" where there were any, detached and not weighted.

    Shape:
        - pred: logits, or the tuple (logits, l2, kl) that a network gives in training with a VAE; l2 and kl are (N,).
        - target: what ``loss`` takes.
        - output: a scalar.

    Source:
        Yamazaki, Rathour, Le 2021 (arXiv:2103.09042), equation 2, with cross entropy + Dice as ``loss``.

    Example:
        >>> loss = RegularizedLoss(nn.MSELoss())
        >>> total = loss((torch.ones(2, 1), torch.tensor([1.0, 3.0]), torch.tensor([4.0, 6.0])), torch.zeros(2, 1))
        >>> round(total.item(), 4)  # 1 + 0.1 * 2 + 0.1 * 5
        1.7
        >>> {name: term.item() for name, term in loss.terms.items()}
        {'segmentation': 1.0, 'l2': 2.0, 'kl': 5.0}
    """

    def __init__(
        self,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        l2_weight: float = 0.1,
        kl_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.l2_weight = l2_weight
        self.kl_weight = kl_weight
        self.terms: dict[str, torch.Tensor] = {}

    def forward(
        self, pred: torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor], target: torch.Tensor
    ) -> torch.Tensor:
        if isinstance(pred, torch.Tensor):
            total = self.loss(pred, target)
            terms = {"segmentation": total}
        else:
            logits, l2, kl = pred
            terms = {"segmentation": self.loss(logits, target), "l2": l2.mean(), "kl": kl.mean()}
            total = terms["segmentation"] + self.l2_weight * terms["l2"] + self.kl_weight * terms["kl"]
        self.terms = {name: term.detach() for name, term in terms.items()}
        return total
