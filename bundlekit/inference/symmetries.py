"""Inference averaged over the symmetries of the square."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from .predictions import is_finite

__all__ = ["SymmetryInferer"]

_VIEWS = {
    "square": tuple(product(range(4), (False, True))),
    "flips": ((0, False), (0, True), (2, True)),
}


class SymmetryInferer(Inferer):
    """Average the class probabilities over symmetries g of the image: log mean_g g^-1 softmax(net(g x)).

    The output is the logarithm of the mean probability, so that a softmax after it gives the mean probability. With
    ``sigmoid`` it is the logit of the mean of g^-1 sigmoid(net(g x)), so that a sigmoid after it does.

    Args:
        inferer: the inference of one image.
        enabled: False only runs ``inferer`` and returns the network's logits.
        symmetries: "square" for the eight of the square, "flips" for the image as it is, its rows in reverse order,
            and its columns in reverse order.
        sigmoid: the network's channels are independent of each other, not classes that exclude each other.

    Shape:
        - inputs: (N, C, H, W).
        - output: (N, K, H, W), of the network's type; the average is computed in float32 at least.

    Raises:
        ValueError: for other symmetries than these.

    Source:
        Test-time augmentation by the mirrorings and rotations that Ciresan et al. 2012 train with.

    Example:
        >>> from monai.inferers import SimpleInferer
        >>> image = torch.rand(1, 2, 6, 9)
        >>> average = SymmetryInferer(SimpleInferer())(image, torch.nn.Identity())
        >>> torch.allclose(average, torch.log_softmax(image, dim=1), atol=1e-6)
        True
    """

    def __init__(
        self, inferer: Inferer, enabled: bool = True, symmetries: str = "square", sigmoid: bool = False
    ) -> None:
        super().__init__()
        if symmetries not in _VIEWS:
            raise ValueError(f"symmetries is {symmetries!r}; expected one of {', '.join(_VIEWS)}")
        self.inferer = inferer
        self.enabled = enabled
        self.views = _VIEWS[symmetries]
        self.sigmoid = sigmoid

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        if not self.enabled:
            return self.inferer(inputs, network, *args, **kwargs)
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        total, dtype = torch.zeros(()), inputs.dtype
        for turns, mirrored in self.views:
            turned = torch.rot90(image.flip(-1) if mirrored else image, turns, (-2, -1))
            output = self.inferer(turned, network, *args, **kwargs)
            dtype = output.dtype
            output = output.to(torch.promote_types(dtype, torch.float32))
            if not is_finite(output):  # infinite logits would become probabilities 0 and 1
                output = torch.full_like(output, torch.nan)
            output = torch.sigmoid(output) if self.sigmoid else torch.softmax(output, dim=1)
            output = torch.rot90(output, -turns, (-2, -1))
            total = total.to(output.device) + (output.flip(-1) if mirrored else output)
        mean, limits = total / len(self.views), torch.finfo(total.dtype)
        # a probability that was rounded to 0 or 1 must not become an infinite output
        output = torch.logit(mean, eps=limits.eps) if self.sigmoid else torch.log(mean.clamp_min(limits.tiny))
        output = output.to(dtype)
        return MetaTensor(output, meta=inputs.meta) if isinstance(inputs, MetaTensor) else output
