"""Steps, their sizes and their counts against closed forms and torchdiffeq; what cannot be solved is refused."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
import torchdiffeq
from torch import nn

from unet_ode.ode import TABLEAUS, ODEBlock, SolverError

CONTROLLED = ["bosh3", "dopri5"]


class Field(nn.Module):
    """Any function of (t, y), with its own count of evaluations and times."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.times: list[torch.Tensor] = []

    def forward(self, t, y):
        self.times.append(t.detach().clone())
        return self.function(t, y)


def _system(t, y):
    """-y cos t, the logistic equation, and a turning pair: three problems with closed forms, in one state."""
    a, b, c, d = y.unbind(1)
    return torch.stack([-a * torch.cos(t), 3 * b * (1 - b), 2 * d, -2 * c], dim=1)


def _system_solved(y: torch.Tensor) -> torch.Tensor:
    a, b, c, d = y.unbind(1)
    cos, sin = math.cos(2), math.sin(2)
    return torch.stack(
        [a * math.exp(-math.sin(1)), b / (b + (1 - b) * math.exp(-3)), cos * c + sin * d, cos * d - sin * c], 1
    )


def _start(n: int = 3) -> torch.Tensor:
    return 0.1 + 0.8 * torch.rand(n, 4, dtype=torch.float64)


def _pursuit(t, y):
    """x' = -rate (x - cos 6t): the second component is the rate, and decides how hard a sample is."""
    x, rate = y.unbind(1)
    return torch.stack([-rate * (x - torch.cos(6 * t)), torch.zeros_like(rate)], dim=1)


@pytest.mark.parametrize("method", TABLEAUS)
def test_order_by_halving_the_step(method):
    y = _start()
    errors = []
    for num_steps in (16, 32):
        end = ODEBlock(Field(_system), method, num_steps=num_steps)(y)
        errors.append((end - _system_solved(y)).norm().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(TABLEAUS[method].order, abs=0.2)


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_equal_steps_are_torchdiffeq_s(method):
    y = _start()
    end = ODEBlock(Field(_system), method, num_steps=8)(y)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    expected = torchdiffeq.odeint(_system, y, times, method=method, options={"step_size": 1 / 8})[-1]
    torch.testing.assert_close(end, expected, rtol=1e-14, atol=1e-14)  # the order of sums


@pytest.mark.parametrize("method", CONTROLLED)
def test_tight_tolerance_gives_torchdiffeq_s_solution(method):
    y = _start()
    end = ODEBlock(Field(_system), method, rtol=1e-9, atol=1e-9, max_nfe=100_000)(y)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    expected = torchdiffeq.odeint(_system, y, times, method="dopri5", rtol=1e-11, atol=1e-11)[-1]
    torch.testing.assert_close(end, expected, rtol=1e-8, atol=1e-8)  # ten times the tolerance of a step
    torch.testing.assert_close(end, _system_solved(y), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", CONTROLLED)
def test_error_follows_the_tolerance(method):
    y = _start(1)
    errors, counts = [], []
    for rtol in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        block = ODEBlock(Field(_system), method, rtol=rtol, atol=rtol)
        errors.append((block(y) - _system_solved(y)).abs().max().item() / rtol)
        counts.append(int(block.last_stats().nfe))
    assert max(errors) < 10  # of the solution, in tolerances of a step; of the order of the number of steps at most
    assert errors[0] * 1e-2 > 100 * errors[-1] * 1e-6 and counts == sorted(set(counts))


@pytest.mark.parametrize("method", CONTROLLED)
@pytest.mark.parametrize("first_step", [None, 0.3])
def test_samples_do_not_depend_on_their_neighbours(method, first_step):
    rates = torch.tensor([0.1, 60.0, 5.0, 25.0], dtype=torch.float64)
    y = torch.stack([torch.linspace(0, 1, 4, dtype=torch.float64), rates], dim=1)
    block = ODEBlock(Field(_pursuit), method, rtol=1e-5, atol=1e-5, first_step=first_step)
    together, stats = block(y), block.last_stats()
    for i in range(4):
        alone = block(y[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)  # a vector's tail may round otherwise
        for name in ("nfe", "accepted", "rejected"):
            assert getattr(block.last_stats(), name).tolist() == [getattr(stats, name)[i].item()]
    assert stats.nfe[0] < stats.nfe[2] < stats.nfe[3] < stats.nfe[1]
    assert stats.rejected.sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", CONTROLLED)
def test_steps_join_and_the_last_one_ends_at_one(method, dtype):
    y = torch.tensor([[0.0, 3.0], [1.0, 20.0]], dtype=dtype)
    block = ODEBlock(Field(_pursuit), method)
    at = torch.zeros(2, dtype=dtype)
    for rows, t, h in block.solve(y, max_states=1)[1]:
        assert torch.equal(t, at[rows]) and (h > 0).all()
        at[rows] = t + h
    assert at.tolist() == [1.0, 1.0]
    assert torch.cat(block.func.times).max() == 1  # no evaluation beyond the interval, and one at its end


@pytest.mark.parametrize("first_step, evaluations_before_the_steps", [(None, 2), (0.25, 1)])
@pytest.mark.parametrize("method, per_step", [("bosh3", 3), ("dopri5", 6)])
def test_counts_are_those_of_the_field(method, per_step, first_step, evaluations_before_the_steps):
    block = ODEBlock(Field(_pursuit), method, rtol=1e-6, atol=1e-6, first_step=first_step)
    block(torch.tensor([[0.0, 30.0]], dtype=torch.float64))
    stats = block.last_stats()
    assert stats.nfe.tolist() == [len(block.func.times)]
    assert stats.nfe == evaluations_before_the_steps + per_step * (stats.accepted + stats.rejected)
    if first_step:
        assert block.func.times[1].item() == first_step * TABLEAUS[method].c[1]


@pytest.mark.parametrize("method, per_step", [("euler", 1), ("midpoint", 2), ("rk4", 4), ("bosh3", 3), ("dopri5", 6)])
def test_counts_of_equal_steps(method, per_step):
    block = ODEBlock(Field(_system), method, num_steps=5)
    block(_start(2))
    assert block.last_stats().nfe.tolist() == [5 * per_step] * 2 and len(block.func.times) == 5 * per_step
    assert block.last_stats().accepted.tolist() == [5, 5] and block.last_stats().rejected.tolist() == [0, 0]
    assert all(t.shape == (2,) for t in block.func.times)


def test_no_counts_before_a_pass():
    with pytest.raises(RuntimeError, match="block 'up4' has not run yet"):
        ODEBlock(Field(_system), name="up4").last_stats()


@pytest.mark.parametrize("function", [lambda t, y: -y, lambda t, y: torch.ones_like(y)])
def test_samples_at_rest(function):
    """Zeros, and a field without motion, give no scale of time; the first step must still be a number."""
    y = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    block = ODEBlock(Field(function), rtol=1e-8, atol=1e-8)
    expected = y * math.exp(-1) if function(0, y)[0, 0] == 0 else y + 1
    torch.testing.assert_close(block(y), expected, rtol=1e-7, atol=1e-12)
    assert block(y[:0]).shape == (0, 2)


FAILURES = {
    "stiff": (lambda t, y: -1e6 * (y - 1), 0.0, "max_nfe exceeded"),
    "blows up": (lambda t, y: y * y, 2.0, "the step size went to zero|max_nfe exceeded"),
    "turns NaN": (lambda t, y: torch.where(t[:, None] > 0.5, torch.nan, 1.0) * y, 1.0, "not finite|went to zero"),
    "starts NaN": (lambda t, y: -y, math.nan, "not finite"),
    "starts infinite": (lambda t, y: torch.tanh(y), math.inf, "not finite"),
}


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
@pytest.mark.parametrize("method", CONTROLLED)
@pytest.mark.parametrize("failure", FAILURES)
def test_dynamics_that_cannot_be_solved(failure, method, gradient):
    function, value, reason = FAILURES[failure]
    y = torch.full((1, 3), value)
    with pytest.raises(SolverError) as error:
        ODEBlock(Field(function), method, gradient=gradient, max_nfe=300, name="up4")(y)
    assert error.match(rf"block 'up4', sample 0: .*({reason}) at t = .*, dt = .*, after \d+ evaluations .*{method}")


@pytest.mark.parametrize("function", [lambda t, y: -y, lambda t, y: torch.tanh(y)])  # tanh is finite at infinity
@pytest.mark.parametrize("kwargs", [{}, {"method": "euler", "num_steps": 3}, {"gradient": "adjoint"}])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_bad_sample_is_named(value, kwargs, function):
    y = torch.ones(4, 3)
    y[2, 1] = value
    with pytest.raises(SolverError, match=r"block 'ode', sample 2: the (state is too large or|field is) not finite"):
        ODEBlock(Field(function), **kwargs)(y)


def test_evaluations_are_those_of_a_sample():
    """A hard sample next to many easy ones: each by itself is within the limit that their sum would break."""
    y = torch.stack([torch.zeros(8), torch.tensor([60.0] + [0.1] * 7)], dim=1)
    block = ODEBlock(Field(_pursuit))
    block(y[:1])
    nfe = int(block.last_stats().nfe)
    ODEBlock(Field(_pursuit), max_nfe=nfe)(y)
    with pytest.raises(SolverError, match="sample 0: max_nfe exceeded"):
        ODEBlock(Field(_pursuit), max_nfe=nfe - 1)(y)


@pytest.mark.slow
def test_refusals_do_not_rest_on_assert():
    """``python -O`` drops every assert, torchdiffeq's too, which then tries ever smaller steps."""
    program = """
from importlib import _bootstrap_external as loader
compiled = loader.cache_from_source  # torch and MONAI from their ordinary cache: to compile them again takes long
loader.cache_from_source = lambda path: compiled(path, optimization="")
import monai.data, torch
loader.cache_from_source = compiled
from unet_ode.ode import ODEBlock, SolverError
class Field(torch.nn.Module):
    def forward(self, t, y):
        return self.function(t, y)
functions = [lambda t, y: -1e6 * (y - 1), lambda t, y: y * y, lambda t, y: y * torch.nan]
for gradient in ("checkpoint", "adjoint"):
    for method in ("bosh3", "dopri5"):
        for function in functions:
            field = Field()
            field.function = function
            try:
                ODEBlock(field, method, gradient=gradient, max_nfe=300, name="up4")(torch.full((1, 3), 2.0))
            except SolverError as error:
                print(str(error).startswith("block 'up4', sample 0: "), __debug__)
"""
    done = subprocess.run([sys.executable, "-O", "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[:-1] == ["True False"] * 12, done.stderr


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"method": "heun"}, "method is 'heun'; expected one of euler, midpoint, rk4, bosh3, dopri5"),
        ({"method": "rk4"}, "method rk4 has no step size control; give num_steps"),
        ({"gradient": "exact"}, "gradient is 'exact'; expected one of checkpoint, backprop, adjoint"),
        ({"gradient": "adjoint", "num_steps": 3}, "bosh3 has step size control with gradient 'adjoint'"),
        ({"rtol": -1e-3}, "rtol is -0.001, atol 0.001; expected"),
        ({"atol": -1.0}, "atol -1.0"),
        ({"rtol": 0, "atol": 0}, "not both 0"),
        ({"num_steps": 0}, "num_steps is 0; expected a positive integer, or None"),
        ({"first_step": 0.0}, "first_step is 0.0; expected"),
        ({"first_step": 1.5}, "first_step is 1.5"),
        ({"max_nfe": 4}, "max_nfe is 4; expected at least 5"),
        ({"max_nfe": 3, "first_step": 0.1}, "max_nfe is 3; expected at least 4"),
        ({"num_steps": True}, "num_steps is True"),
        ({"rtol": math.inf}, "rtol is inf"),
        ({"max_states": 0}, "max_states is 0; expected a positive integer"),
    ],
)
def test_arguments_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ODEBlock(Field(_system), **kwargs)
