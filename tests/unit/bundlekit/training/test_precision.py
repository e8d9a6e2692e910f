"""Mixed precision on a CPU against float32, memory format and batch norm."""

import pytest
import torch
from torch import nn

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
