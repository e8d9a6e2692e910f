"""Gradients, memory, autocast and MetaTensors of ODEBlock against plain autograd, finite differences, torchdiffeq."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
import torchdiffeq
from monai.data import MetaTensor, decollate_batch, list_data_collate
from torch import nn
from torch.utils.checkpoint import checkpoint

from unet_ode.ode import TABLEAUS, ODEBlock

CONTROLLED = ["bosh3", "dopri5"]


class Field(nn.Module):
    """A small smooth field; the state's last component scales the speed, so that samples differ in their steps."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.inner, self.outer = nn.Linear(width, 6), nn.Linear(6, width)
        self.one, self.two = (nn.Parameter(torch.randn(6)) for _ in range(2))  # their gradients are one tensor
        self.seen: list[tuple] = []

    def forward(self, t, y):
        inner = self.inner(y)
        self.seen.append((type(y), t.dtype, y.dtype, inner.dtype))
        return self.outer(torch.tanh(inner + t[:, None] + (self.one + self.two))) * (
            1 + 4 * torch.sin(y[:, -1:]).square()
        )


def _start(n: int = 3, dtype=torch.float64) -> torch.Tensor:
    y = torch.randn(n, 4, dtype=dtype)
    y[:, -1] = torch.linspace(0, 1.5, n)  # from easy to hard
    return y


def _gradients(layer, field: nn.Module, y: torch.Tensor) -> list[torch.Tensor]:
    """Of the input, then of the parameters, for a loss that weighs every component differently."""
    start = y.clone().requires_grad_()
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
    return list(torch.autograd.grad((layer(start) * weights).sum(), [start, *field.parameters()]))


def _assert_equal(found, expected, tolerance: float = 1e-12) -> None:
    for a, b in zip(found, expected, strict=True):
        assert b.abs().max() > 1e-3  # equality of zeros would say little
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * b.abs().max().item())


def _step(method: str, field: nn.Module, t: float, h: float, y: torch.Tensor) -> torch.Tensor:
    """One step of the tableau, written out for one sample."""
    tableau, k = TABLEAUS[method], []
    for c, row in zip(tableau.c, tableau.a, strict=True):
        at = y + h * sum(a * k_j for a, k_j in zip(row, k, strict=True))
        k.append(field(torch.full((1,), t + c * h, dtype=y.dtype), at))
    return y + h * sum(b * k_i for b, k_i in zip(tableau.b, k, strict=True))


@pytest.mark.parametrize("gradient", ["checkpoint", "backprop"])
@pytest.mark.parametrize("method", CONTROLLED)
def test_gradients_are_those_of_the_accepted_steps(method, gradient):
    """Plain autograd through a loop over the steps that the solver took, sample by sample."""
    field, y = Field().double(), _start()
    block = ODEBlock(field, method, 1e-6, 1e-6, gradient=gradient)
    found = _gradients(block, field, y)
    steps = block.solve(y, max_states=1)[1]
    assert len({int(n) for n in block.last_stats().accepted}) == 3  # the batch thins out on the way

    def loop(start):
        ends = []
        for i in range(len(y)):
            state = start[i : i + 1]
            for rows, t, h in steps:
                for place in (rows == i).nonzero().flatten():
                    state = _step(method, field, t[place].item(), h[place].item(), state)
            ends.append(state)
        return torch.cat(ends)

    _assert_equal(found, _gradients(loop, field, y), 1e-11)  # the loop adds in another order


@pytest.mark.parametrize("gradient", ["checkpoint", "backprop"])
@pytest.mark.parametrize("method", TABLEAUS)
def test_gradients_of_equal_steps_are_finite_differences(method, gradient):
    field, y = Field().double(), _start(2).requires_grad_()
    block = ODEBlock(field, method, num_steps=3, gradient=gradient, max_states=2)
    assert torch.autograd.gradcheck(lambda y, *params: block(y), (y, *field.parameters()))


@pytest.mark.parametrize("options", [{"rtol": 1e-7, "atol": 1e-7}, {"num_steps": 25}])
def test_number_of_stored_states_does_not_matter(options):
    field, y = Field().double(), _start()
    plain = ODEBlock(field, gradient="backprop", **options)
    expected = _gradients(plain, field, y)
    assert plain.last_stats().accepted.min() > 20
    for max_states in (1, 2, 3, 4, 100):
        _assert_equal(_gradients(ODEBlock(field, max_states=max_states, **options), field, y), expected)


@pytest.mark.parametrize("gradient", ["checkpoint", "backprop"])
def test_only_what_asks_for_a_gradient_gets_one(gradient):
    field, y = Field().double(), _start()
    block = ODEBlock(field, gradient=gradient)
    expected = _gradients(block, field, y)
    field.inner.weight.requires_grad_(False)
    block(y).mul(torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
    assert field.inner.weight.grad is None
    rest = [p for p in field.parameters() if p.requires_grad]
    _assert_equal([p.grad for p in rest], [*expected[1:3], *expected[4:]])
    field.requires_grad_(False)
    start = y.clone().requires_grad_()
    block(start).mul(torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
    _assert_equal([start.grad], expected[:1])
    assert not block(y).requires_grad


@pytest.mark.parametrize("gradient", ["checkpoint", "backprop", "adjoint"])
def test_without_gradients_the_solution_is_the_same(gradient):
    block, y = ODEBlock(Field().double(), gradient=gradient), _start()
    with torch.no_grad():
        free = block(y)
    assert not free.requires_grad and block(y).requires_grad
    assert torch.equal(free, block(y))


def test_two_graphs_at_once():
    """Every graph keeps its own steps; the order of the backward passes is free."""
    field, first, second = Field().double(), _start(3), _start(2) + 0.5
    block = ODEBlock(field, rtol=1e-4, atol=1e-4)
    expected = [_gradients(block, field, y) for y in (first, second)]
    starts = [y.clone().requires_grad_() for y in (first, second)]
    weights = [torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape) for y in starts]
    ends, given = [block(y) for y in starts], copy.deepcopy(weights)
    for i in (1, 0):
        _assert_equal(torch.autograd.grad(ends[i], [starts[i], *field.parameters()], given[i]), expected[i])
    assert all(torch.equal(a, b) for a, b in zip(given, weights, strict=True))  # others may need that gradient too


@pytest.mark.parametrize("outside", [torch.autograd.graph.save_on_cpu, nullcontext])
def test_other_savers_of_memory_work_around_it(outside):
    field, y = Field().double(), _start()
    block = ODEBlock(field)
    expected = _gradients(block, field, y)
    with outside():
        _assert_equal(_gradients(lambda start: checkpoint(block, start, use_reentrant=False), field, y), expected)


@pytest.mark.parametrize("gradient", ["checkpoint", "backprop"])
def test_autocast_reaches_the_field_alone(gradient):
    field, y = Field(), _start(dtype=torch.float32)
    expected = _gradients(ODEBlock(field, gradient="backprop"), field, y)
    block, start = ODEBlock(field, gradient=gradient), y.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        field.seen.clear()
        loss = (block(start) * torch.linspace(-1, 2, y.numel()).reshape(y.shape)).sum()
    found = torch.autograd.grad(loss, [start, *field.parameters()])  # outside: the backward pass casts by itself
    assert set(field.seen) == {(torch.Tensor, torch.float32, torch.float32, torch.bfloat16)}
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_state_has_32_bits_at_least_and_the_output_the_input_s_type(dtype):
    class Decay(nn.Module):
        def forward(self, t, y):
            assert y.dtype == t.dtype == (dtype if dtype.itemsize >= 4 else torch.float32)
            return -y

    y = torch.tensor([[1.0, 2.0]], dtype=dtype, requires_grad=True)
    end = ODEBlock(Decay(), rtol=1e-6, atol=1e-6)(y)
    (grad,) = torch.autograd.grad(end.sum(), y)
    assert end.dtype == grad.dtype == dtype
    exact = (y.detach().double() * torch.tensor(-1.0).double().exp()).to(dtype)
    torch.testing.assert_close(end.detach(), exact, rtol=max(1e-5, torch.finfo(dtype).eps), atol=0)


def test_metatensors_pass_and_the_field_sees_plain_tensors():
    items = [MetaTensor(y, affine=i * torch.eye(4), meta={"name": str(i)}) for i, y in enumerate(_start(2), start=1)]
    batch = list_data_collate([{"image": item} for item in items])["image"]
    field = Field().double()
    out = ODEBlock(field)(batch)
    assert isinstance(out, MetaTensor) and out.is_batch and torch.equal(out.affine, batch.affine)
    assert [item.meta["name"] for item in decollate_batch(out)] == ["1", "2"]
    assert out.applied_operations == batch.applied_operations
    assert {kind for kind, *_ in field.seen} == {torch.Tensor}
    assert torch.equal(out.as_tensor(), ODEBlock(field)(batch.as_tensor()))
    out.sum().backward()
    assert field.outer.bias.grad.abs().min() > 0


@pytest.mark.parametrize("method, num_steps", [("dopri5", None), ("bosh3", None), ("euler", 4), ("midpoint", 8)])
def test_adjoint_is_torchdiffeq_s(method, num_steps):
    field, y = Field().double(), _start()
    block = ODEBlock(field, method, 1e-4, 1e-5, num_steps=num_steps, gradient="adjoint")

    class Broadcast(nn.Module):
        def __init__(self):
            super().__init__()
            self.field, self.nfe = field, 0

        def forward(self, t, y):
            self.nfe += 1
            return self.field(t.repeat(len(y)), y)

    func, times = Broadcast(), torch.tensor([0.0, 1.0], dtype=y.dtype)
    options = {"step_size": 1 / num_steps} if num_steps else None

    def solve(start):
        return torchdiffeq.odeint_adjoint(func, start, times, rtol=1e-4, atol=1e-5, method=method, options=options)[1]

    assert torch.equal(block(y), solve(y))
    assert block.last_stats().nfe.tolist() == [func.nfe] * 3 and block.last_stats().accepted.tolist() == [-1] * 3
    _assert_equal(_gradients(block, field, y), _gradients(solve, field, y))


def test_copies_and_states_do_not_hold_the_last_pass():
    block, y = ODEBlock(Field().double()), _start()
    block(y).sum().backward()
    twin = copy.deepcopy(block)
    assert torch.equal(twin(y), block(y)) and set(block.state_dict()) == {
        f"func.{n}" for n in Field().double().state_dict()
    }
