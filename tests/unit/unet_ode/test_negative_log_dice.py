"""The logarithm of soft Dice against its closed forms and against MONAI's Dice."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss

from unet_ode.losses import NegativeLogDiceLoss


def test_closed_form_of_each_image_and_channel():
    # p = 1/2 everywhere; g covers 1 of 4 and 3 of 4 pixels: Dice 2 (1/2) / (2 + 1) and 2 (3/2) / (2 + 3)
    target = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0]]).reshape(2, 1, 2, 2)
    expected = (math.log(3) + math.log(5 / 3)) / 2
    loss = NegativeLogDiceLoss(smooth=1e-9)(torch.zeros(2, 1, 2, 2), target)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_gradient_is_that_of_dice_over_dice():
    torch.manual_seed(0)
    target = (torch.rand(1, 1, 8, 8, dtype=torch.float64) > 0.7).double()
    a = torch.randn(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    b = a.detach().clone().requires_grad_()
    NegativeLogDiceLoss(smooth=1e-12)(a, target).backward()
    one_minus_dice = DiceLoss(sigmoid=True, smooth_nr=1e-12, smooth_dr=1e-12)(b, target)
    one_minus_dice.backward()
    torch.testing.assert_close(a.grad, b.grad / (1 - one_minus_dice.detach()))


def test_perfect_and_empty_targets_are_finite():
    target = torch.zeros(1, 1, 4, 4)
    loss = NegativeLogDiceLoss()
    assert loss(torch.full((1, 1, 4, 4), -50.0), target).item() == pytest.approx(0, abs=1e-6)
    # 16 pixels of p = 1 where none should be: log((16 + 1) / 1)
    assert loss(torch.full((1, 1, 4, 4), 50.0), target).item() == pytest.approx(math.log(17), abs=1e-5)
    target[..., :2] = 1
    assert loss(100 * target - 50, target).item() == pytest.approx(0, abs=1e-6)


def test_half_precision_is_summed_in_float32():
    pred, target = torch.zeros(1, 1, 400, 400, dtype=torch.bfloat16), torch.ones(1, 1, 400, 400)
    assert NegativeLogDiceLoss()(pred, target).item() == pytest.approx(math.log(1.5), abs=1e-4)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="smooth is 0; expected a number of voxels above 0"):
        NegativeLogDiceLoss(smooth=0)
    with pytest.raises(ValueError, match=r"the target is \(1, 1, 4, 4\), the prediction \(1, 2, 4, 4\)"):
        NegativeLogDiceLoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
