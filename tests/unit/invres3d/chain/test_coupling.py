"""Couplings against the formula written out, and their inverse to the bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from invres3d.chain.coupling import AdditiveCoupling, Branch
from invres3d.chain.grid import grid_step, round_to_grid


def random_affine(net: torch.nn.Module) -> torch.nn.Module:
    """Norms start as scale 1 and shift 0, which would hide a wrong one."""
    for module in net.modules():
        if isinstance(module, torch.nn.GroupNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    return net


def _norm(x, norm):
    centred = x - x.mean((2, 3, 4), keepdim=True)
    x = centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()
    return x * norm.weight.view(-1, 1, 1, 1) + norm.bias.view(-1, 1, 1, 1)


def _branch(x, branch):
    if branch.order == "pre":
        x = _norm(x, branch.norm)
        return F.conv3d(torch.where(x > 0, x, 0.01 * x), branch.conv.weight, branch.conv.bias, padding=1)
    x = _norm(F.conv3d(x, branch.conv.weight, branch.conv.bias, padding=1), branch.norm)
    return torch.where(x > 0, x, 0.01 * x)


def _halves(dtype, n=2, c=3):
    return [round_to_grid(torch.randn(n, c, 5, 4, 6, dtype=dtype)) for _ in range(2)]


@pytest.mark.parametrize("order", ["pre", "post"])
@pytest.mark.parametrize("training", [False, True])
def test_forward_is_the_papers_formula(order, training):
    coupling = random_affine(AdditiveCoupling(6, order)).double().train(training)
    x1, x2 = _halves(torch.float64)
    y1 = x1 + _branch(x2, coupling.n1)
    y2 = x2 + _branch(y1, coupling.n2)
    got = coupling(x1, x2)
    # float64 sums of some hundred terms, and in training half a step of the grid, which is 1e-13
    torch.testing.assert_close(got, (y1, y2), rtol=1e-11, atol=1e-11)
    on_grid = [torch.equal(y, round_to_grid(y)) for y in got]
    assert on_grid == [training, training]


@pytest.mark.parametrize("order", ["pre", "post"])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_inverse_gives_back_the_bits_after_many_couplings(order, autocast, dropout):
    couplings = [random_affine(AdditiveCoupling(6, order, dropout)) for _ in range(16)]
    x = _halves(torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        all_factors = [coupling.draw_factors(x[0]) for coupling in couplings]
        y = x
        for coupling, factors in zip(couplings, all_factors, strict=True):
            y = coupling(*y, factors)
        assert (y[0] - x[0]).abs().max() > 1
        for coupling, factors in zip(reversed(couplings), reversed(all_factors), strict=True):
            y = coupling.inverse(*y, factors)
    assert torch.equal(y[0], x[0]) and torch.equal(y[1], x[1])


@pytest.mark.parametrize("order", ["pre", "post"])
def test_dropped_channels_are_those_of_the_activation(order):
    branch = random_affine(Branch(3, order)).double()
    x = torch.randn(2, 3, 4, 4, 4, dtype=torch.float64)
    factors = torch.tensor([[0.0, 2.0, 0.5], [1.0, 0.0, 3.0]], dtype=torch.float64)[:, :, None, None, None]
    if order == "pre":
        normed = _norm(x, branch.norm)
        want = F.conv3d(
            factors * torch.where(normed > 0, normed, 0.01 * normed), branch.conv.weight, branch.conv.bias, padding=1
        )
    else:
        want = factors * _branch(x, branch)
    torch.testing.assert_close(branch(x, factors), want, rtol=1e-11, atol=1e-11)


def test_drawn_factors_keep_the_mean_and_stop_in_evaluation():
    coupling = AdditiveCoupling(400, dropout=0.25)
    factors = coupling.draw_factors(torch.zeros(50, 200, 1, 1, 1, dtype=torch.bfloat16))
    assert factors.shape == (2, 50, 200, 1, 1, 1) and factors.dtype == torch.float32
    kept = factors > 0
    assert torch.equal(factors[kept], torch.full_like(factors[kept], 1 / 0.75))
    # 20 000 draws: the standard deviation of their share is 0.003
    assert abs(kept.float().mean().item() - 0.75) < 0.015
    assert coupling.eval().draw_factors(torch.zeros(1)) is None


def test_grid_is_finer_than_what_float32_rounds_anyway():
    coupling = AdditiveCoupling(8)
    x = _halves(torch.float32, c=4)
    trained, evaluated = coupling(*x), coupling.eval()(*x)
    difference = max((a - b).abs().max().item() for a, b in zip(trained, evaluated, strict=True))
    # half a step twice over, the first time through N2
    assert 0 < difference < 4 * grid_step(torch.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 5}, "a coupling got 5 channels; expected an even number"),
        ({"channels": 4, "order": "mid"}, "order is 'mid'; expected one of pre, post"),
        ({"channels": 4, "dropout": 1.0}, "dropout is 1.0; expected a probability of at least 0 and less than 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdditiveCoupling(**arguments)
