"""The squeeze against a written-out matrix per block, and its way back to the bit."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from invres3d.chain.gradients import ParameterGradients
from invres3d.chain.grid import RANGE, round_to_grid
from invres3d.chain.resampling import SqueezeDown, SqueezeUp
from invres3d.chain.squeeze import OrthogonalSqueeze


def _squeeze(channels, dtype=torch.float64, reach=math.pi):
    squeeze = OrthogonalSqueeze(channels).to(dtype)
    torch.nn.init.uniform_(squeeze.angles, -reach, reach)
    return squeeze


def _matrix(angles):
    """The 8x8 matrix from plane rotations; voxel (i, j, k) of the block is entry 4 i + 2 j + k."""
    matrix = torch.eye(8, dtype=angles.dtype)
    pairs = [((0, j, k), (1, j, k)) for j, k in product(range(2), repeat=2)]
    pairs += [((i, 0, k), (i, 1, k)) for i, k in product(range(2), repeat=2)]
    pairs += [((i, j, 0), (i, j, 1)) for i, j in product(range(2), repeat=2)]
    for angle, (a, b) in zip(angles, pairs, strict=True):
        a, b = (4 * i + 2 * j + k for i, j, k in (a, b))
        turn = torch.eye(8, dtype=angles.dtype)
        turn[a, a] = turn[b, b] = angle.cos()
        turn[a, b], turn[b, a] = -angle.sin(), angle.sin()
        matrix = turn @ matrix
    return matrix


def _by_blocks(x, angles):
    """Every block times its channel's matrix, voxel by voxel."""
    n, c, d, h, w = x.shape
    out = x.new_zeros(2, n, 4 * c, d // 2, h // 2, w // 2)
    for channel in range(c):
        matrix = _matrix(angles[channel])
        for z, y, q in product(range(d // 2), range(h // 2), range(w // 2)):
            block = x[:, channel, 2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * q : 2 * q + 2].flatten(1)
            turned = block @ matrix.T
            out[0, :, 4 * channel : 4 * channel + 4, z, y, q] = turned[:, :4]
            out[1, :, 4 * channel : 4 * channel + 4, z, y, q] = turned[:, 4:]
    return out[0], out[1]


def test_is_one_matrix_per_channel_and_gradients_are_its():
    squeeze = _squeeze(3).eval()
    x = torch.randn(2, 3, 4, 2, 6, dtype=torch.float64, requires_grad=True)
    got, want = squeeze(x), _by_blocks(x, squeeze.angles)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)  # float64, factors up to tan(pi / 2 - 0.1)
    weights = [torch.randn_like(s) for s in want]
    level_grads = [
        torch.autograd.grad(sum((s * w).sum() for s, w in zip(out, weights, strict=True)), [x, squeeze.angles])
        for out in (got, want)
    ]
    torch.testing.assert_close(*level_grads, rtol=1e-9, atol=1e-9)


def test_matrix_is_orthogonal_and_quarter_turns_are_the_haar_transform():
    squeeze = _squeeze(1).eval()
    units = torch.eye(8, dtype=torch.float64).view(8, 1, 2, 2, 2)
    matrix = torch.cat(squeeze(units), 1).view(8, 8)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.nn.init.constant_(squeeze.angles, math.pi / 4)
    haar = torch.cat(squeeze(units), 1).view(8, 8)
    torch.testing.assert_close(haar.abs(), torch.full((8, 8), 8**-0.5, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("learned", [True, False])
def test_zero_angles_only_move_voxels(learned):
    x = torch.randn(2, 3, 4, 6, 2)
    s1, s2 = OrthogonalSqueeze(3, learned)(x)
    for channel, j, k in product(range(3), range(2), range(2)):
        place = 4 * channel + 2 * j + k
        # in training a step of a zero angle still rounds what it adds: zero
        assert torch.equal(s1[:, place], x[:, channel, 0::2, j::2, k::2])
        assert torch.equal(s2[:, place], x[:, channel, 1::2, j::2, k::2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trained_squeeze_is_undone_to_the_bit(dtype):
    squeeze = _squeeze(4, dtype, reach=2.5)
    x = round_to_grid(torch.empty(2, 4, 4, 6, 8, dtype=dtype).uniform_(-RANGE / 32, RANGE / 32))
    with torch.no_grad():
        s = squeeze(x)
        assert torch.equal(squeeze.inverse(*s), x)
        assert (torch.stack(s).square().sum() / x.square().sum() - 1).abs() < 1e-3  # orthogonal up to the rounding


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("frozen", [False, True])
def test_steps_in_place_equal_autograd(up, batch, frozen):
    step = (SqueezeUp if up else SqueezeDown)(2, learned=True).double()
    torch.nn.init.uniform_(step.squeeze.angles, -2, 2)
    step.squeeze.angles.requires_grad_(not frozen)
    shapes = [(batch, 5, 4, 6, 2)] * 2
    if up:
        shapes = [shapes[0], (batch, 3, 4, 6, 2), *[(batch, 8, 2, 3, 1)] * 2]
    before = [round_to_grid(torch.randn(shape, dtype=torch.float64)) for shape in shapes]

    leaves = [x.clone().requires_grad_() for x in before]
    want = step(list(leaves), None)
    level_grads = [torch.randn_like(x) for x in want]
    parameters = [] if frozen else [step.squeeze.angles]
    want_grads = torch.autograd.grad(want, [*leaves, *parameters], level_grads)

    levels, parameter_grads = [x.clone() for x in before], ParameterGradients()
    with torch.no_grad():
        kept = step.advance_(levels, None)
        assert [torch.equal(a, b) for a, b in zip(levels, want, strict=True)] == [True] * len(want)
        got_grads = [grad.clone() for grad in level_grads]
        step.retreat_(levels, got_grads, None, kept, parameter_grads)
    assert [torch.equal(a, b) for a, b in zip(levels, before, strict=True)] == [True] * len(before)
    got_grads += [] if frozen else [parameter_grads[step.squeeze.angles]]
    torch.testing.assert_close(got_grads, list(want_grads), rtol=1e-10, atol=1e-10)
    assert (parameter_grads[step.squeeze.angles] is None) == frozen
