"""Rounding to the grid: closed forms, and exact sums up to the edge of the range."""

from __future__ import annotations

import pytest
import torch

from invres3d.chain.grid import RANGE, add_rounded_, grid_step, round_to_grid


@pytest.mark.parametrize(("dtype", "exponent"), [(torch.float32, -14), (torch.float64, -43)])
def test_step_leaves_the_mantissas_bits_for_the_range(dtype, exponent):
    assert grid_step(dtype) == 2.0**exponent
    # the largest number of the range and its neighbour on the grid differ by the spacing of floats there
    top = torch.tensor(RANGE, dtype=dtype)
    assert (top - torch.nextafter(top, torch.zeros_like(top))).item() == grid_step(dtype)


def test_rounds_to_the_nearest_point_and_passes_the_gradient():
    x = torch.tensor([0.0, 0.4, 0.6, -0.6, 7.0]) * 2**-14
    x.requires_grad_()
    rounded = round_to_grid(x)
    assert (rounded * 2**14).tolist() == [0, 0, 1, -1, 7]
    assert torch.autograd.grad(rounded, x, torch.arange(5.0))[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_goes_to_float32(dtype):
    x = torch.tensor([0.1, 3.0], dtype=dtype)
    assert round_to_grid(x).dtype == torch.float32
    assert (round_to_grid(x) - x.float()).abs().max() <= 2**-15


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("update_dtype", [torch.bfloat16, None])
def test_adding_and_taking_away_is_exact_in_the_range_and_not_beyond(dtype, update_dtype):
    x = round_to_grid(torch.empty(10_000, dtype=dtype).uniform_(-RANGE / 2, RANGE / 2))
    update = torch.empty(10_000, dtype=dtype).uniform_(-RANGE / 2, RANGE / 2).to(update_dtype or dtype)
    y = x.clone()
    add_rounded_(y, update.clone())
    torch.testing.assert_close(y, x + update.to(dtype), rtol=0, atol=grid_step(dtype) / 2)
    assert not torch.equal(y, x)
    add_rounded_(y, update.clone(), sign=-1)
    assert torch.equal(y, x)

    big = torch.full_like(update, 4 * RANGE)
    add_rounded_(y, big.clone())
    add_rounded_(y, big.clone(), sign=-1)
    assert not torch.equal(y, x)
