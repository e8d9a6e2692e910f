"""The weighted sum of the losses, with MONAI's as that of the segmentation."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss

from invres3d.losses import RegularizedLoss


def test_total_and_terms_with_a_vae():
    segmentation = DiceCELoss(softmax=True, to_onehot_y=True)
    loss = RegularizedLoss(segmentation, l2_weight=0.5, kl_weight=0.25)
    logits, target = torch.randn(2, 3, 4, 4, 4, requires_grad=True), torch.randint(0, 3, (2, 1, 4, 4, 4)).float()
    l2, kl = torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([0.5, 0.1], requires_grad=True)
    total = loss((logits, l2, kl), target)
    want = segmentation(logits, target)
    torch.testing.assert_close(total, want + 0.5 * 2 + 0.25 * 0.3)
    total.backward()
    assert l2.grad.tolist() == [0.25, 0.25] and kl.grad.tolist() == [0.125, 0.125]
    torch.testing.assert_close(
        loss.terms, {"segmentation": want.detach(), "l2": torch.tensor(2.0), "kl": torch.tensor(0.3)}
    )
    assert not any(term.requires_grad for term in loss.terms.values())


def test_logits_alone_are_the_segmentations_loss():
    loss = RegularizedLoss(torch.nn.MSELoss())
    loss((torch.ones(1), torch.ones(1), torch.ones(1)), torch.zeros(1))
    assert loss(torch.full((1,), 2.0), torch.zeros(1)).item() == 4
    assert {name: term.item() for name, term in loss.terms.items()} == {"segmentation": 4}


def test_defaults_are_the_papers_weights():
    total = RegularizedLoss(torch.nn.MSELoss())((torch.ones(1), torch.ones(1), torch.full((1,), 2.0)), torch.zeros(1))
    torch.testing.assert_close(total, torch.tensor(1 + 0.1 + 0.2))
