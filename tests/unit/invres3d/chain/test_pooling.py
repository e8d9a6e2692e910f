"""Pooling and interpolation in place against autograd and against the formulas written out."""

from __future__ import annotations

import pytest
import torch

from invres3d.chain.gradients import ParameterGradients
from invres3d.chain.grid import round_to_grid
from invres3d.chain.pooling import InterpolateUp, PoolDown


def _run(step, shapes):
    """(state, gradients) before the step, as autograd and as the step itself gives them."""
    before = [round_to_grid(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
    leaves = [x.clone().requires_grad_() for x in before]
    want = step(list(leaves), None)
    level_grads = [torch.randn_like(x) for x in want]
    wanted = torch.autograd.grad(want, [*leaves, *step.parameters()], level_grads)
    levels, parameter_grads = [x.clone() for x in before], ParameterGradients()
    with torch.no_grad():
        saved = step.advance_(levels, None)
        torch.testing.assert_close(levels, [x.detach() for x in want], rtol=0, atol=2.0**-42)  # two steps of the grid
        step.retreat_(levels, level_grads, None, saved, parameter_grads)
    # the deeper level below a pooling step is dropped, not undone
    assert [torch.equal(a, b) for a, b in zip(levels, before, strict=True)] == [True] * len(before)
    torch.testing.assert_close(
        [*level_grads, *(parameter_grads[p] for p in step.parameters())], list(wanted), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("batch", [1, 2])
def test_pooling_in_place_equals_autograd(batch):
    _run(PoolDown(20, 6).double(), [(batch, 10, 4, 6, 2)] * 2)


@pytest.mark.parametrize("batch", [1, 2])
def test_interpolation_in_place_equals_autograd(batch):
    _run(InterpolateUp(6, 20).double(), [(batch, 10, 4, 6, 2)] * 2 + [(batch, 3, 2, 3, 1)] * 2)


def test_pooling_takes_the_largest_of_each_block():
    step = PoolDown(2, 2).eval()
    torch.nn.init.zeros_(step.lift.bias)
    step.lift.weight.data = torch.tensor([[1.0, 2.0], [3.0, -1.0]]).view(2, 2, 1, 1, 1)
    x1, x2 = torch.randn(1, 1, 2, 4, 2), torch.randn(1, 1, 2, 4, 2)
    with torch.no_grad():
        *_, z1, z2 = step([x1, x2], None)
    for i in range(2):
        a, b = (x[0, 0, :, 2 * i : 2 * i + 2].max() for x in (x1, x2))
        torch.testing.assert_close(
            torch.stack([z1[0, 0, 0, i, 0], z2[0, 0, 0, i, 0]]), torch.stack([a + 2 * b, 3 * a - b])
        )


def test_interpolation_adds_a_constant_and_a_ramp_as_they_are():
    step = InterpolateUp(2, 2).eval()
    torch.nn.init.zeros_(step.reduce.bias)
    step.reduce.weight.data = torch.eye(2).view(2, 2, 1, 1, 1)
    ramp = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 1, 4, 3, 2)
    skip = torch.randn(2, 1, 1, 8, 6, 4)
    with torch.no_grad():
        y1, y2 = step([skip[0], skip[1], torch.full_like(ramp, 3.0), ramp], None)
    torch.testing.assert_close(y1 - skip[0], torch.full_like(y1, 3.0))
    # the centres of fine voxels lie a quarter beside the coarse ones; the ends are held
    line = (torch.arange(8) / 2 - 0.25).clamp(0, 3).view(1, 1, 8, 1, 1)
    torch.testing.assert_close(y2 - skip[1], line.expand_as(y2), rtol=0, atol=1e-5)
