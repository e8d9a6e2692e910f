"""An encoder that trains from some epoch on, at the learning rate of its own group."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from bundlekit.training.unfreeze_encoder import UnfreezeEncoder
from unet_ode.nets import LocalizerUNet


def test_encoder_moves_from_its_epoch_on_and_more_slowly():
    torch.manual_seed(0)
    network = LocalizerUNet(2, 1, 1, (4, 8)).train()
    groups = [{"params": network.encoder.parameters(), "lr": 0.01}, {"params": network.head.parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    kernel = network.encoder.levels[0].conv1.weight
    kernels = []

    def step(engine, batch):
        network.train()  # as MONAI's trainer does
        loss = network(batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        kernels.append((kernel.detach().clone(), None if kernel.grad is None else kernel.grad.clone()))
        optimizer.step()

    engine = Engine(step)
    UnfreezeEncoder(network, epoch=3).attach(engine)
    engine.run([torch.rand(2, 1, 8, 8)], max_epochs=4)
    (a, no_gradient), (b, _), (c, gradient), (d, _) = kernels
    assert no_gradient is None and torch.equal(a, b) and torch.equal(b, c)
    torch.testing.assert_close(d, c - 0.01 * gradient)


def test_a_wrapped_network_is_refused():
    with pytest.raises(ValueError, match="of type Sequential; expected one with set_frozen"):
        UnfreezeEncoder(nn.Sequential(LocalizerUNet(2, 1, 1, (4, 8))), epoch=2)
