"""What a block refuses, or must not get wrong without a word."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unet_ode.nets import PAPER_SOLVER, UNode
from unet_ode.ode import ODEBlock, SolverError


class Linear(nn.Module):
    """dy/dt = W y."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.0, 1.0], [-1.0, 0.2]], dtype=torch.float64))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y @ self.weight.T


class Breaks(nn.Module):
    """dy/dt = 1 until t = 0.5, NaN from there on."""

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.where(t[:, None] < 0.5, torch.ones_like(y), torch.full_like(y, float("nan")))


class Square(nn.Module):
    """dy/dt = y^2, which reaches infinity at t = 1 / y(0)."""

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y * y


def _state() -> torch.Tensor:
    return torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)


def test_a_replica_of_data_parallel_has_the_gradients_of_the_module():
    block, expected = ODEBlock(Linear(), num_steps=3), ODEBlock(Linear(), num_steps=3)
    expected(_state()).square().sum().backward()
    copy = block._replicate_for_data_parallel()
    copy.func = block.func._replicate_for_data_parallel()
    weight = block.func.weight * 1.0  # what the broadcast leaves: a tensor with a history, no parameter
    copy.func.weight = weight
    copy.func._former_parameters = {"weight": weight}
    assert list(copy.func.parameters()) == []
    copy(_state()).square().sum().backward()
    torch.testing.assert_close(block.func.weight.grad, expected.func.weight.grad, rtol=1e-12, atol=0)


def test_parameters_that_were_swapped_for_the_forward_pass_are_refused_in_backward():
    block = ODEBlock(Linear(), num_steps=3)
    other = {"func.weight": (3 * block.func.weight.detach()).requires_grad_()}
    end = torch.func.functional_call(block, other, (_state(),))
    with pytest.raises(RuntimeError, match=r"block 'ode': the field's parameters have changed.*gradient='backprop'"):
        end.sum().backward()
    plain = ODEBlock(Linear(), num_steps=3, gradient="backprop")
    torch.func.functional_call(plain, other, (_state(),)).sum().backward()
    assert float(other["func.weight"].grad.abs().sum()) > 0


@pytest.mark.parametrize("solver", [PAPER_SOLVER, {"method": "rk4", "num_steps": 1, "gradient": "adjoint"}])
def test_adjoint_leaves_python_only_with_an_error(solver):
    net, image = UNode(2, 3, 2, channels=(2, 4), **solver), torch.randn(1, 3, 4, 4)
    with pytest.raises(torch.jit.Error, match=r"block 'down1': torchdiffeq's solver.*cannot be scripted"):
        torch.jit.script(net)(image)
    with pytest.raises(RuntimeError, match=r"cannot be scripted, traced or exported|cannot be traced"):
        torch.jit.trace(net, image)
    with pytest.raises(RuntimeError, match=r"cannot be scripted, traced or exported"):
        torch.export.export(net, (image,))


def test_scripted_equal_steps_refuse_what_is_not_finite():
    block = torch.jit.script(ODEBlock(Linear(), method="midpoint", num_steps=2))
    image = _state()
    image[1, 0] = float("nan")
    with pytest.raises(
        torch.jit.Error, match=r"sample 1: the state is too large or not finite at t = 0\.0?, dt = 0\.5"
    ):
        block(image)


def test_equal_steps_name_the_step_that_broke():
    with pytest.raises(SolverError, match=r"sample 0: .* at t = 0\.5, dt = 0\.25, after 3 evaluations"):
        ODEBlock(Breaks(), method="euler", num_steps=4)(torch.zeros(2, 1))


def test_controlled_steps_tell_a_field_that_breaks_from_one_that_is_stiff():
    with pytest.raises(SolverError, match=r"sample 0: the field is not finite at t = 0\.[345]"):
        ODEBlock(Breaks())(torch.zeros(1, 1))
    with pytest.raises(SolverError, match=r"sample 1: the step size went to zero at t = 0\.33"):
        ODEBlock(Square())(torch.tensor([[0.1], [3.0]]))


def test_adjoint_names_the_sample_that_grew():
    with pytest.raises(SolverError, match=r"block 'ode', sample 1: .* at t = 0\.33"):
        ODEBlock(Square(), method="dopri5", gradient="adjoint")(torch.tensor([[0.1], [3.0]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 2.5}, r"num_steps is 2\.5; expected a positive integer"),
        ({"rtol": float("nan")}, "rtol is nan"),
        ({"gradient": "adjoint", "first_step": 0.1}, r"first_step is 0\.1, which gradient 'adjoint' does not accept"),
    ],
)
def test_arguments_that_would_be_ignored_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ODEBlock(Linear(), **arguments)


@pytest.mark.parametrize("state", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64)])
def test_states_that_are_no_batch_of_floats_are_refused(state):
    with pytest.raises(TypeError, match=r"expected \(N, ...\) of floats"):
        ODEBlock(Linear())(state)


def test_weights_of_sixteen_bits_are_refused():
    net = UNode(2, 3, 2, channels=(2, 4)).half()
    with pytest.raises(TypeError, match=r"block 'down1'.*weights of at least 32 bits: use torch.autocast"):
        net(torch.zeros(1, 3, 4, 4).half())


class Root(nn.Module):
    """Smooth in forward; its derivative is infinite where y passes 0, which the adjoint equation meets."""

    def forward(self, t, y):
        return torch.sqrt(y.abs())


@pytest.mark.parametrize("method", ["bosh3", "dopri5"])
def test_backward_of_the_adjoint_names_the_block(method):
    y = torch.tensor([[-1.0, -1.0], [-0.1, -0.2]], requires_grad=True)
    end = ODEBlock(Root(), method, gradient="adjoint", name="up4")(y)
    with pytest.raises(SolverError, match=r"block 'up4', sample \d: .* at t = [\d.e-]+, dt = [\d.e-]+, after \d+ eval"):
        end.sum().backward()


def test_what_is_too_large_to_square_is_said():
    with pytest.raises(SolverError, match=r"sample 1: the state is too large or not finite at t = 0\.0"):
        ODEBlock(Linear())(torch.stack([torch.ones_like(_state()[0]), torch.full_like(_state()[0], 1e200)]))
    with pytest.raises(SolverError, match=r"sample 0: .* 0 evaluations \(euler, 2 equal steps\).*increase num_steps"):
        ODEBlock(Linear(), "euler", num_steps=2)(torch.full_like(_state(), math.nan))


class Normed(nn.Module):
    """A convolution, and a layer that need not give the same again."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv, self.layer = nn.Conv2d(4, 4, 3, padding=1), layer

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.layer(self.conv(y))


@pytest.mark.parametrize("gradient", ["checkpoint", "backprop", "adjoint"])
@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.Dropout2d(0.5), "Dropout2d, which draws other random numbers in each evaluation"),
        (nn.RReLU(), "RReLU, which draws other random numbers"),
        (nn.BatchNorm2d(4), "BatchNorm2d, which takes its statistics over the samples under way"),
        (nn.BatchNorm2d(4, track_running_stats=False), "BatchNorm2d, which takes its statistics over"),
        (nn.InstanceNorm2d(4, track_running_stats=True), "InstanceNorm2d, which changes its statistics"),
    ],
)
def test_a_field_that_is_no_function_is_refused_in_training(layer, why, gradient):
    block, y = ODEBlock(Normed(layer), gradient=gradient, name="down1"), torch.randn(2, 4, 6, 6)
    with pytest.raises(ValueError, match=rf"block 'down1': layer in the field is a {why}"):
        block.train()(y)
    block.eval()
    if not getattr(layer, "track_running_stats", True):
        with pytest.raises(ValueError, match="BatchNorm2d, which takes its statistics over"):
            block(y)
    elif gradient != "adjoint":  # which has one step size for all samples
        torch.testing.assert_close(block(y), torch.cat([block(y[:1]), block(y[1:])]), rtol=1e-5, atol=1e-5)
