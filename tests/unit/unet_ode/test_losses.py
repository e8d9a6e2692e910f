"""Weighted cross entropy against closed forms and torch's own; cropping against slicing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.losses import DiceCELoss
from monai.transforms import ConcatItemsd

from unet_ode.losses import CroppedLoss, PixelWeightedCrossEntropyLoss


def _draw(classes: int, *size: int, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(2, classes, *size, generator=generator, dtype=dtype)
    index = torch.randint(classes, (2, 1, *size), generator=generator)
    weight = torch.rand(2, 1, *size, generator=generator, dtype=dtype)
    return pred, index, weight


def test_two_pixels_by_hand():
    # Logits (0, log 3) are probabilities (1/4, 3/4). Class 1 with weight 1 costs log(4/3), class 0 with weight 3 log 4.
    pred = torch.tensor([0.0, math.log(3)], dtype=torch.float64).reshape(1, 2, 1, 1).expand(1, 2, 1, 2)
    label = torch.tensor([[[[1.0, 0.0]], [[1.0, 3.0]]]], dtype=torch.float64)
    wanted = (1 * math.log(4 / 3) + 3 * math.log(4)) / (1 + 3)
    assert PixelWeightedCrossEntropyLoss()(pred, label).item() == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("size", [(7, 5), (4, 3, 5)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
@pytest.mark.parametrize("weights", [False, True])
def test_unit_weights_give_torchs_mean(size, dtype, weights):
    pred, index, _ = _draw(3, *size)
    label = torch.cat([index, torch.ones_like(index)], dim=1) if weights else index
    loss = PixelWeightedCrossEntropyLoss()(pred, label.to(dtype))
    torch.testing.assert_close(loss, F.cross_entropy(pred, index[:, 0]), rtol=1e-6, atol=0)  # order of summation


def test_a_weight_counts_like_copies_of_the_pixel():
    pred, index, _ = _draw(3, 8, dtype=torch.float64)
    copies = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    label = torch.cat([index, copies.expand(2, 1, 8)], dim=1)
    wanted = F.cross_entropy(pred.repeat_interleave(copies, 2), index[:, 0].repeat_interleave(copies, 1))
    torch.testing.assert_close(PixelWeightedCrossEntropyLoss()(pred, label), wanted, rtol=1e-14, atol=0)


def test_ignored_pixels_have_no_weight():
    pred, index, _ = _draw(3, 6, 6)
    wanted = F.cross_entropy(pred, index[:, 0], ignore_index=2)
    torch.testing.assert_close(PixelWeightedCrossEntropyLoss(ignore_index=2)(pred, index), wanted, rtol=1e-6, atol=0)
    label = torch.cat([index.where(index != 2, 255), torch.ones_like(index)], dim=1)  # no class, but a weight
    torch.testing.assert_close(PixelWeightedCrossEntropyLoss(ignore_index=255)(pred, label), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("ignore", [False, True])
def test_no_weight_at_all_gives_zero_and_a_zero_gradient(ignore):
    pred, index, weight = _draw(2, 5, 5)
    pred.requires_grad_()
    label = torch.full_like(index, -100) if ignore else torch.cat([index, 0 * weight], dim=1)
    loss = PixelWeightedCrossEntropyLoss()(pred, label)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(pred.grad, torch.zeros_like(pred))


def test_tiny_weights_are_still_normalised():
    pred, index, weight = _draw(2, 5, 5, dtype=torch.float64)
    losses = [PixelWeightedCrossEntropyLoss()(pred, torch.cat([index, s * weight], dim=1)) for s in (1.0, 1e-12)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-13, atol=0)


def test_gradient():
    pred, index, weight = _draw(3, 3, 4, dtype=torch.float64)
    label = torch.cat([index, weight], dim=1)
    assert torch.autograd.gradcheck(lambda x: PixelWeightedCrossEntropyLoss()(x, label), pred.requires_grad_())


@pytest.mark.parametrize("size, crop", [((9, 8), (1, 2)), ((8, 6, 10), (2, 0, 3))])
def test_a_larger_label_is_cropped_to_its_centre(size, crop):
    pred, index, weight = _draw(3, *size)
    inner = (..., *(slice(c, n - c) for c, n in zip(crop, size, strict=True)))
    label = torch.cat([index, weight], dim=1)
    wanted = (F.cross_entropy(pred, index[:, 0], reduction="none") * weight[:, 0])[inner].sum() / weight[inner].sum()
    torch.testing.assert_close(PixelWeightedCrossEntropyLoss()(pred[inner], label), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype, autocast):
    pred, index, weight = _draw(3, 16, 16)
    label = torch.cat([index, weight], dim=1)
    half = pred.to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        loss = PixelWeightedCrossEntropyLoss()(half, label)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, PixelWeightedCrossEntropyLoss()(half.double(), label).float(), rtol=1e-6, atol=0)


def test_meta_tensors_give_a_plain_scalar():
    pred, index, weight = _draw(2, 6, 6)
    label = torch.cat([index, weight], dim=1)
    wanted = PixelWeightedCrossEntropyLoss()(pred, label)
    image = MetaTensor(pred.clone()).requires_grad_()
    loss = PixelWeightedCrossEntropyLoss()(image, MetaTensor(label))
    loss.backward()
    assert type(loss) is torch.Tensor and torch.equal(loss.detach(), wanted)
    assert image.grad.abs().sum() > 0


def test_label_and_weight_from_concatitemsd():
    pred, index, weight = _draw(2, 4, 4)
    item = {"label": index[0].numpy().astype(np.uint8), "weight": weight[0].numpy()}
    label = ConcatItemsd(["label", "weight"], "target")(item)["target"][None]
    each = F.cross_entropy(pred[:1], index[:1, 0], reduction="none")
    wanted = (each * weight[0]).sum() / weight[0].sum()
    loss = PixelWeightedCrossEntropyLoss()(pred[:1], torch.as_tensor(label))
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)


def test_cropped_loss_equals_the_loss_on_the_slice():
    pred, index, _ = _draw(3, 6, 4)
    target = F.pad(index, (2, 2, 1, 1), value=1)
    dice_ce = DiceCELoss(to_onehot_y=True, softmax=True)
    assert torch.equal(CroppedLoss(dice_ce)(pred, target), dice_ce(pred, index))


@pytest.mark.parametrize("size", [(2, 4), (5, 5), (4,), (4, 6, 4)])
def test_targets_that_do_not_lie_around_the_prediction(size):
    for loss in (PixelWeightedCrossEntropyLoss(), CroppedLoss(DiceCELoss())):
        with pytest.raises(ValueError, match=r"the prediction \(4, 4\); expected a target that is larger"):
            loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, *size))


def test_one_hot_labels_are_refused():
    with pytest.raises(ValueError, match=r"label has 3 channels; expected 1 .* or 2"):
        PixelWeightedCrossEntropyLoss()(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
