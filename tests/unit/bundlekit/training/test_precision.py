"""Mixed precision on a CPU against float32, memory format and batch norm."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from bundlekit.training.precision import Precision


def test_autocast_on_cpu_rounds_to_bfloat16_and_keeps_float32_weights():
    exact, fast = nn.Linear(64, 64), nn.Linear(64, 64)
    fast.load_state_dict(exact.state_dict())
    fast = Precision("cpu", amp=True).prepare(fast)
    x = torch.rand(8, 64)
    difference = (fast(x) - exact(x)).abs().max()
    # bfloat16 has 8 bits: half a unit in the last place of values below 2 is 2^-8, plus the rounding of the operands
    assert 0 < difference < 0.02 and fast(x).dtype == torch.float32 and fast.weight.dtype == torch.float32


def test_autocast_on_cpu_takes_a_tuple_of_outputs():
    class Regularized(nn.Linear):
        def forward(self, x):
            return super().forward(x), x.sum(dim=1)

    network = Precision("cpu", amp="true").prepare(Regularized(64, 2))
    logits, term = network(torch.rand(8, 64))
    assert (logits.shape, logits.dtype, term.shape, term.dtype) == ((8, 2), torch.float32, (8,), torch.float32)


def test_autocast_that_is_off_changes_nothing():
    exact, x = nn.Linear(64, 64), torch.rand(8, 64)
    off = Precision("cpu", amp="False").prepare(nn.Linear(64, 64))
    off.load_state_dict(exact.state_dict())
    assert torch.equal(off(x), exact(x))


def test_weights_are_stored_channels_last_on_request():
    convolution = Precision("cpu", amp=False, channels_last=True).prepare(nn.Conv2d(4, 8, 3))
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    plain = Precision("cpu", amp=False).prepare(nn.Conv2d(4, 8, 3))
    assert plain.weight.is_contiguous()


def test_batch_norm_stays_on_a_cpu():
    network = Precision("cpu", amp=False, sync_batch_norm=True).prepare(nn.Sequential(nn.BatchNorm2d(2)))
    assert type(network[0]) is nn.BatchNorm2d


def test_engines_get_amp_only_for_a_gpu():
    found = {(device, amp): Precision(device, amp).gpu_amp for device in ("cpu", "cuda:0") for amp in (True, False)}
    assert [key for key, value in found.items() if value] == [("cuda:0", True)]


def test_a_word_that_is_no_switch():
    with pytest.raises(ValueError, match="expected true or false"):
        Precision("cpu", amp="maybe")


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x))


@pytest.fixture
def fast():
    torch.manual_seed(0)
    return Precision("cpu", amp=True).prepare(Scaled())


X = torch.linspace(-1, 1, 64).reshape(4, 16)


def test_a_copy_computes_with_its_own_weights(fast):
    twin = copy.deepcopy(fast)
    before = fast.eval()(X)
    with torch.no_grad():
        twin.linear.weight.zero_()
        twin.linear.bias.fill_(2)
    torch.testing.assert_close(twin.eval()(X), torch.full((4, 16), 2.0), rtol=0.01, atol=0)  # norm: almost the identity
    assert torch.equal(fast(X), before)


def test_an_average_of_weights_computes_with_the_average(fast):
    average = AveragedModel(fast, avg_fn=lambda mean, new, count: (mean + new) / 2)
    with torch.no_grad():
        average.update_parameters(fast)
        for parameter in fast.parameters():
            parameter.mul_(3)
    average.update_parameters(fast)  # w and 3 w
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.mul_(2 / 3)
    torch.testing.assert_close(average.eval()(X), fast.eval()(X))
    assert {name.removeprefix("module.") for name in average.state_dict()} == {*fast.state_dict(), "n_averaged"}


def test_a_pickle_is_the_whole_network(fast):
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert torch.equal(again.eval()(X), fast.eval()(X)) and (again(X) - again.module(X)).abs().max() > 0


def test_states_are_those_of_the_network(fast):
    plain = Scaled()
    assert fast.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(fast.state_dict())
    other = Precision("cpu", amp=True).prepare(Scaled())
    other.load_state_dict(plain.state_dict())
    assert torch.equal(other.eval()(X), fast.eval()(X))
    outer = nn.Sequential(other)
    assert list(outer.state_dict()) == [f"0.{name}" for name in plain.state_dict()]
    outer.load_state_dict({name: torch.zeros_like(value) for name, value in outer.state_dict().items()})
    assert not other.linear.weight.any()
    with pytest.raises(RuntimeError, match=r"Missing key.*linear\.bias"):
        other.load_state_dict({name: value for name, value in plain.state_dict().items() if name != "linear.bias"})


def test_torchscript_compiles_the_network(fast):
    scripted = torch.jit.script(fast.eval())
    assert torch.equal(scripted(X), fast.module(X))


def test_mode_and_hooks_of_the_network_stay():
    network = Scaled().eval()
    seen = []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    fast = Precision("cpu", amp=True).prepare(network)
    assert not fast.training and fast(X).dtype == torch.float32 and len(seen) == 1


def test_attributes_are_those_of_the_network(fast):
    fast.module.scale = 1
    fast.scale = 2
    fast.note = "new"
    assert fast.module.scale == 2 and "scale" not in vars(fast) and not hasattr(fast.module, "note")
    fast.linear = nn.Linear(16, 16, bias=False)
    assert fast.module.linear.bias is None and "linear.bias" not in fast.state_dict()
    with pytest.raises(AttributeError, match="object has no attribute 'absent'"):
        _ = fast.absent


def test_outputs_of_64_bits_stay():
    network = Precision("cpu", amp=True).prepare(nn.Linear(2, 2).double())
    x = torch.rand(3, 2, dtype=torch.float64)
    assert torch.equal(network(x), network.module(x))


@pytest.mark.parametrize("cls", [nn.Linear, None])
def test_one_step_of_training_has_the_bits_of_autocast_written_out(cls):
    networks = [nn.Linear(16, 16) if cls else Scaled() for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    fast = Precision("cpu", amp=True).prepare(networks[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = networks[1](X)
    output = fast(X)
    assert torch.equal(output, expected.float())
    for network, out in ((fast, output), (networks[1], expected.float())):
        optimizer = torch.optim.Adam(network.parameters())
        out.square().mean().backward()
        optimizer.step()
    for name, value in networks[1].state_dict().items():
        assert torch.equal(fast.state_dict()[name], value)


def test_an_error_in_the_network_leaves_autocast(fast):
    with pytest.raises(RuntimeError):
        fast(torch.zeros(4, 3))
    assert not torch.is_autocast_enabled("cpu")
