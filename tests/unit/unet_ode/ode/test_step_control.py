"""Which steps are accepted, which states are kept, and what ends a search for a step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unet_ode.ode import TABLEAUS, ODEBlock, SolverError


class Pursuit(nn.Module):
    """x' = -40 (x - cos 6t), y' = x - y: quick at first, then slow."""

    def forward(self, t, y):
        x, slow = y.unbind(1)
        return torch.stack([-40 * (x - torch.cos(6 * t)), x - slow], dim=1)


class BlowUp(nn.Module):
    """y' = y^2 from 2: infinite at t = 1/2."""

    def forward(self, t, y):
        return y.square()


def _ratio(method: str, field: nn.Module, t: float, h: float, y: torch.Tensor, rtol: float, atol: float):
    """The state after one step of the tableau, written out, and its error in units of the tolerance."""
    tableau, k = TABLEAUS[method], []
    for c, row in zip(tableau.c, tableau.a, strict=True):
        at = y + h * sum(a * k_j for a, k_j in zip(row, k, strict=True))
        k.append(field(torch.tensor([t + c * h], dtype=y.dtype), at))
    end = y + h * sum(b * k_i for b, k_i in zip(tableau.b, k, strict=True))
    error = h * sum(e * k_i for e, k_i in zip(tableau.error, k, strict=True))
    scaled = error / (atol + rtol * torch.maximum(y.abs(), end.abs()))
    return end, scaled.square().mean().sqrt().item()


@pytest.mark.parametrize("rtol, atol", [(1e-2, 1e-4), (1e-5, 1e-5), (1e-9, 1e-3)])
@pytest.mark.parametrize("method", ["bosh3", "dopri5"])
def test_every_accepted_step_is_within_the_tolerance(method, rtol, atol):
    y = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    block = ODEBlock(Pursuit(), method, rtol, atol, first_step=1.0)
    end, steps, *_ = block.solve(y, max_states=1)
    ratios = []
    for _, t, h in steps:
        y, ratio = _ratio(method, block.func, t.item(), h.item(), y, rtol, atol)
        ratios.append(ratio)
    assert max(ratios) <= 1 + 1e-6  # rounding of the small difference between two orders
    assert max(ratios) > 0.3  # and no step is far too careful
    assert block.last_stats().rejected > 0
    torch.testing.assert_close(y, end, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"rtol": 1e-6, "atol": 1e-6}, {"num_steps": 37}])
@pytest.mark.parametrize("max_states", [1, 2, 5, 8])
def test_kept_states_are_evenly_spread(max_states, options):
    block = ODEBlock(Pursuit(), **options)
    _, steps, kept, states = block.solve(torch.tensor([[3.0, -1.0]], dtype=torch.float64), max_states)
    assert len(steps) > 20 and max_states / 2 <= len(kept) == len(states) <= max_states
    gaps = {b - a for a, b in zip(kept, [*kept[1:], len(steps)], strict=True)}
    assert kept[0] == 0 and len({*gaps, kept[1] if len(kept) > 1 else len(steps)}) <= 2  # the last one may be shorter


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_a_step_that_vanishes_ends_the_search(gradient):
    with pytest.raises(SolverError, match=r"block 'ode', sample 0: .*(went to zero|underflow in dt).* at t = "):
        ODEBlock(BlowUp(), gradient=gradient, max_nfe=10**6)(torch.full((1, 2), 2.0))
