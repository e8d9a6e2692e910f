"""Losses that MONAI lacks: pixel-weighted cross entropy, losses on a cropped target, negative log soft Dice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from monai.utils import convert_to_tensor
from torch import nn

__all__ = ["CroppedLoss", "NegativeLogDiceLoss", "PixelWeightedCrossEntropyLoss"]


def _center_crop(target: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    have = tuple(target.shape[2:])
    if len(have) != len(size) or any(h < w or (h - w) % 2 for h, w in zip(have, size, strict=True)):
        raise ValueError(
            f"the target is {have}, the prediction {tuple(size)}; expected a target that is larger by the same number "
            "of voxels on both sides: crop or pad it so that it lies around the prediction"
        )
    for axis, width in enumerate(size, start=2):
        target = target.narrow(axis, (target.size(axis) - width) // 2, width)
    return target


class PixelWeightedCrossEntropyLoss(nn.Module):
    """Cross entropy weighted at each pixel: sum_x w(x) (-log softmax(pred)_label(x)) / sum_x w(x).

    The sums run over all pixels of the batch. Without weights every w(x) is 1. Where all weights are zero the loss is
    0 and so is its gradient. Half-precision predictions are taken to float32 first.

    Args:
        ignore_index: pixels of this class have no weight.

    Shape:
        - pred: (N, C, *spatial), logits.
        - label: (N, 1, *spatial), class indices of any dtype; or (N, 2, *spatial), class indices and weights >= 0.
          A label that is larger than the prediction (valid convolutions) is cropped to its centre.
        - output: a scalar.

    Raises:
        ValueError: when label has neither 1 nor 2 channels or does not lie evenly around the prediction.

    Source:
        Ronneberger, Fischer, Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
        section 3, equation 1.

    Differs from the paper:
        The paper's energy is the plain sum (printed without the minus sign); here it is divided by the sum of the
        weights, so that the learning rate depends on neither the size of the image nor the scale of the weights.

    Example:
        >>> pred = torch.zeros(1, 2, 4, 4)
        >>> label = torch.ones(1, 2, 8, 8)
        >>> round(PixelWeightedCrossEntropyLoss()(pred, label).item(), 4)  # log 2
        0.6931
    """

    def __init__(self, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, pred: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        pred, label = convert_to_tensor(pred), convert_to_tensor(label)
        if label.shape[1] not in (1, 2):
            raise ValueError(
                f"label has {label.shape[1]} channels; expected 1 (class indices) or 2 (class indices, weights): "
                "turn a one-hot label into indices with argmax"
            )
        label = _center_crop(label, pred.shape[2:])
        pred = pred.to(torch.promote_types(pred.dtype, torch.float32))
        index = label[:, 0].long()
        weight = (index != self.ignore_index).to(pred.dtype)
        if label.shape[1] == 2:
            weight = weight * label[:, 1]
        loss = weight * F.cross_entropy(pred, index, ignore_index=self.ignore_index, reduction="none")
        total = weight.sum()
        return loss.sum() / torch.where(total > 0, total, 1)


class CroppedLoss(nn.Module):
    """Any loss, on the centre of the target that the prediction covers: loss(pred, center_crop(target)).

    Args:
        loss: called with (pred, target), for instance a MONAI loss.

    Shape:
        - pred: (N, C, *spatial).
        - target: (N, any, *spatial), larger than pred by the same number of voxels on both sides of each axis.

    Raises:
        ValueError: when the target does not lie evenly around the prediction.

    Example:
        >>> from monai.losses import DiceLoss
        >>> CroppedLoss(DiceLoss())(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 8, 8)).item()
        0.0
    """

    def __init__(self, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.loss(pred, _center_crop(target, pred.shape[2:]))


class NegativeLogDiceLoss(nn.Module):
    """-log of the soft Dice coefficient, -log((2 sum_x p g + s) / (sum_x p + sum_x g + s)), with p = sigmoid(pred).

    The sums run over the voxels of each channel of each image, and the loss is the mean over all of these. The gradient
    is the gradient of 1 - Dice divided by Dice, so that an object that is hardly found weighs more. Half-precision
    predictions are taken to float32 first.

    Args:
        smooth: s, in voxels, above 0; it keeps the loss finite where the target is empty.

    Shape:
        - pred: (N, C, *spatial), logits.
        - target: the same, from 0 to 1; shares of a voxel are allowed.
        - output: a scalar.

    Raises:
        ValueError: for ``smooth`` of 0 or less, or a target of another shape.

    Source:
        Hu et al. 2018, "Deep feature transfer between localization and segmentation tasks", section 2.3, which names
        the loss and gives no formula.

    Example:
        >>> target = torch.zeros(1, 1, 2, 2)
        >>> target[..., 0] = 1
        >>> round(NegativeLogDiceLoss(smooth=1e-6)(torch.zeros(1, 1, 2, 2), target).item(), 4)  # -log(2 / 4)
        0.6931
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        if smooth <= 0:
            raise ValueError(f"smooth is {smooth}; expected a number of voxels above 0")
        self.smooth = smooth

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        pred, target = convert_to_tensor(pred), convert_to_tensor(target)
        if pred.shape != target.shape:
            raise ValueError(f"the target is {tuple(target.shape)}, the prediction {tuple(pred.shape)}; expected equal")
        axes = list(range(2, pred.dim()))
        p = torch.sigmoid(pred.to(torch.promote_types(pred.dtype, torch.float32)))
        both = 2 * (p * target).sum(axes) + self.smooth
        return ((p + target).sum(axes) + self.smooth).log().sub(both.log()).mean()
