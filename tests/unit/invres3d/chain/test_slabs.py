"""The branch by slabs against autograd through the whole branch."""

from __future__ import annotations

import pytest
import torch

from invres3d.chain import slabs
from invres3d.chain.coupling import Branch
from invres3d.chain.gradients import ParameterGradients
from invres3d.chain.grid import round_to_grid
from invres3d.chain.slabs import add_branch_, channel_moments, pull_back_branch_


def _branch(dtype):
    branch = Branch(4, "pre")
    torch.nn.init.uniform_(branch.norm.weight, 0.5, 1.5)
    torch.nn.init.uniform_(branch.norm.bias, -0.5, 0.5)
    return branch.to(dtype)


def _cut(monkeypatch, num):
    """As many slabs as asked for, however small the volume."""
    monkeypatch.setattr(slabs, "_SLAB_BYTES", 1)
    monkeypatch.setattr(slabs, "_SLOW_BELOW", 0)
    monkeypatch.setattr(slabs, "_MAX_SLABS", num)


@pytest.mark.parametrize("num_slabs", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dropout", [False, True])
def test_values_and_gradients_equal_autograd(monkeypatch, num_slabs, batch, dropout):
    _cut(monkeypatch, num_slabs)
    branch = _branch(torch.float64)
    # a mean of 2 and unequal deviations, since the norm's gradient subtracts them
    x = round_to_grid(torch.randn(batch, 4, 7, 5, 6, dtype=torch.float64) * torch.arange(1, 5).view(4, 1, 1, 1) + 2)
    start = round_to_grid(torch.randn_like(x))
    factors = torch.rand(batch, 4, 1, 1, 1, dtype=torch.float64).round_() * 2 if dropout else None
    grad, so_far = torch.randn_like(x), torch.randn_like(x)

    leaf = x.clone().requires_grad_()
    end = start + round_to_grid(branch(leaf, factors))
    want = torch.autograd.grad(end, [leaf, *branch.parameters()], grad)

    target, grad_x, parameter_grads = start.clone(), so_far.clone(), ParameterGradients()
    with torch.no_grad():
        moments = add_branch_(target, branch, x, factors)
        # roundings of float64 move a value to the next point of the grid at most: 2^-43
        torch.testing.assert_close(target, end, rtol=0, atol=2.0**-42)
        pull_back_branch_(target, branch, x, factors, moments, grad, grad_x, parameter_grads)
    assert len(list(slabs._slabs(x))) == num_slabs
    assert torch.equal(target, start)
    got = [grad_x - so_far, *(parameter_grads[p] for p in branch.parameters())]
    for got_grad, want_grad in zip(got, want, strict=True):
        torch.testing.assert_close(got_grad, want_grad, rtol=1e-10, atol=1e-10)  # float64 sums of some hundred terms
        assert want_grad.abs().max() > 1e-3


def test_moments_are_those_of_the_volume(monkeypatch):
    _cut(monkeypatch, 3)
    x = torch.randn(2, 4, 3, 5, 6, dtype=torch.float64) * 3 + 1
    mean, rstd = channel_moments(_branch(torch.float64).norm, x)
    var, want = torch.var_mean(x, (2, 3, 4), correction=0, keepdim=True)
    torch.testing.assert_close(mean, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rstd, (var + 1e-5).rsqrt(), rtol=1e-12, atol=1e-12)


def test_frozen_parameters_get_no_gradient():
    branch = _branch(torch.float32)
    branch.conv.weight.requires_grad_(False)
    branch.norm.bias.requires_grad_(False)
    x, target = torch.randn(1, 4, 3, 3, 3), torch.zeros(1, 4, 3, 3, 3)
    parameter_grads = ParameterGradients()
    with torch.no_grad():
        moments = add_branch_(target, branch, x, None)
        pull_back_branch_(target, branch, x, None, moments, torch.ones_like(x), torch.zeros_like(x), parameter_grads)
    given = {name for name, p in branch.named_parameters() if parameter_grads[p] is not None}
    assert given == {"norm.weight", "conv.bias"}


@pytest.mark.parametrize("shape", [(1, 16, 64, 64, 64), (1, 16, 128, 128, 128), (2, 3, 1, 200, 300), (1, 128, 8, 8, 8)])
def test_slabs_cover_the_planes_once_and_are_no_thinner_than_the_fast_kernel_needs(shape):
    x = torch.empty(shape, device="meta")
    cuts = list(slabs._slabs(x))
    assert [plane for start, stop in cuts for plane in range(start, stop)] == list(range(shape[2]))
    n, c, _, rows, _ = shape
    if len(cuts) > 1:
        assert min(n * c * (stop - start) * rows for start, stop in cuts) > 20480
