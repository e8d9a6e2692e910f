"""The sum against MONAI's own sum of Dice and cross entropy."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DiceCELoss, DiceLoss

from bundlekit.training.sum_loss import SumLoss


def test_dice_and_cross_entropy_are_those_of_monai():
    logits = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    labels = MetaTensor(torch.randint(0, 3, (2, 1, 4, 5, 6)))
    loss = SumLoss(
        cross_entropy=lambda logits, labels: torch.nn.functional.cross_entropy(logits, labels[:, 0].long()),
        dice=DiceLoss(to_onehot_y=True, softmax=True),
    )
    reference = DiceCELoss(to_onehot_y=True, softmax=True)(logits, labels.as_tensor())
    total = loss(logits, labels)
    assert type(total) is torch.Tensor
    torch.testing.assert_close(total, reference, rtol=1e-12, atol=0)
    torch.testing.assert_close(sum(loss.terms.values()), reference.detach(), rtol=1e-12, atol=0)
    assert list(loss.terms) == ["cross_entropy", "dice"] and not loss.terms["dice"].requires_grad
    (wanted,) = torch.autograd.grad(reference, logits)
    (found,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-18)


def test_a_sum_of_nothing():
    with pytest.raises(ValueError, match="got no loss; expected at least one"):
        SumLoss()


def test_its_losses_move_with_it_and_are_copied_and_saved_with_it():
    classes = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))
    loss = SumLoss(classes=classes, absolute=lambda logits, labels: logits.abs().mean())
    logits, labels = torch.randn(4, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    assert list(loss.state_dict()) == ["classes.weight"]
    moved = copy.deepcopy(loss).to(torch.float64)
    assert moved.classes.weight.dtype == torch.float64 and loss.classes.weight.dtype == torch.float32
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    wanted = torch.nn.functional.cross_entropy(logits, labels, weights) + logits.abs().mean()
    torch.testing.assert_close(moved(logits, labels), wanted, rtol=1e-12, atol=0)
    assert moved.to("meta").classes.weight.device.type == "meta" and len(list(moved.children())) == 1
