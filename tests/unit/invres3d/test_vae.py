"""The VAE branch: its losses against the formulas, its image against the pixel shuffle, its gradient."""

from __future__ import annotations

import pytest
import torch

from invres3d.vae import VAEBranch


def _branch(channels=(4, 8, 16)):
    return VAEBranch(2, channels).double()


def test_kl_is_that_of_the_normal_distributions():
    branch = _branch()
    seen = {}
    branch.mean.register_forward_hook(lambda *call: seen.update(mean=call[-1]))
    branch.log_variance.register_forward_hook(lambda *call: seen.update(log_variance=call[-1]))
    _, kl = branch(torch.randn(3, 16, 2, 4, 2, dtype=torch.float64), torch.randn(3, 2, 8, 16, 8, dtype=torch.float64))
    ours = torch.distributions.Normal(seen["mean"], (seen["log_variance"] / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(ours.mean), torch.ones_like(ours.mean))
    # the divergence has a factor 1/2, which the paper leaves out
    want = 2 * torch.distributions.kl_divergence(ours, prior).mean(1)
    torch.testing.assert_close(kl, want)
    assert kl.min() > 0


def test_l2_is_the_mean_over_voxels_of_the_rebuilt_image():
    branch = _branch()
    torch.nn.init.zeros_(branch.decoder[-1].weight)
    # each voxel of a block gets its number, whatever the code
    branch.decoder[-1].bias.data = torch.arange(16, dtype=torch.float64)
    image = torch.randn(2, 2, 8, 8, 16, dtype=torch.float64)
    l2, _ = branch(torch.randn(2, 16, 2, 2, 4, dtype=torch.float64), image)
    rebuilt = torch.zeros_like(image)
    for number in range(16):
        channel, i, j, k = number // 8, number // 4 % 2, number // 2 % 2, number % 2
        rebuilt[:, channel, i::2, j::2, k::2] = number
    torch.testing.assert_close(l2, (rebuilt - image).square().mean((1, 2, 3, 4)))


def test_noise_has_the_codes_deviation():
    branch = _branch()
    for linear, value in ((branch.mean, 3.0), (branch.log_variance, 2 * torch.tensor(0.5).log().item())):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.constant_(linear.bias, value)
    seen = []
    branch.expand.register_forward_pre_hook(lambda _, call: seen.append(call[0]))
    branch(torch.randn(40, 16, 2, 2, 2, dtype=torch.float64), torch.randn(40, 2, 8, 8, 8, dtype=torch.float64))
    # 5120 draws: the standard errors are 0.007 and 0.005
    assert abs(seen[0].mean().item() - 3) < 0.03
    assert abs(seen[0].std().item() - 0.5) < 0.02


@pytest.mark.parametrize("size", [(2, 2, 2), (8, 4, 10)])
def test_any_size_and_every_parameter_gets_a_gradient(size):
    branch = _branch()
    deepest = torch.randn(2, 16, *size, dtype=torch.float64, requires_grad=True)
    image = torch.randn(2, 2, *(4 * s for s in size), dtype=torch.float64)
    l2, kl = branch(deepest, image)
    assert l2.shape == kl.shape == (2,)
    (l2.sum() + kl.sum()).backward()
    assert deepest.grad.abs().max() > 0
    for name, parameter in branch.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_an_image_can_be_learned():
    branch = VAEBranch(1, (4, 8))
    deepest, image = torch.randn(1, 8, 4, 4, 4), torch.linspace(-2, 2, 8).expand(1, 1, 8, 8, 8)
    optimizer = torch.optim.Adam(branch.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        l2, kl = branch(deepest, image)
        (l2 + 1e-3 * kl).sum().backward()
        optimizer.step()
        losses.append(l2.item())
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
