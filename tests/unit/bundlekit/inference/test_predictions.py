"""What a network has returned: NaN and infinity are found wherever they are."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from bundlekit.errors import InputError
from bundlekit.inference.predictions import check_devices, check_prediction, is_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_value_among_the_largest_ones(dtype, value):
    values = torch.full((2, 3, 40, 41), torch.finfo(dtype).max, dtype=dtype)
    values[0] *= -1
    assert is_finite(values)
    values[1, 2, 39, 17] = value
    assert not is_finite(values)


def test_numbers_that_are_always_finite():
    assert is_finite(torch.tensor([2**62])) and is_finite(torch.zeros(0)) and is_finite(torch.ones(2, dtype=torch.bool))


@pytest.mark.parametrize("wrap", [MetaTensor, lambda t: [torch.zeros(1), t], lambda t: {"a": (torch.zeros(1), t)}])
def test_the_line_counts_what_is_not_finite(wrap):
    values = torch.zeros(1, 2, 5, 7)
    check_prediction(wrap(values), "a.png")
    values[0, 1, :, 3], values[0, 0, 2, 2] = torch.nan, -torch.inf
    with pytest.raises(InputError) as caught:
        check_prediction(wrap(values), "a.png")
    assert str(caught.value) == (
        "a.png: the network's output has 6 of 70 values that are NaN or infinite; expected finite numbers; "
        "look at the image's intensities, or pass --amp false where it is on"
    )


def test_devices_that_work_and_one_that_cannot():
    check_devices(["cpu"], nn.Linear(2, 2), "a.png", "ValueError: no")
    for devices, network in ((["meta"], nn.Linear(2, 2)), (["cpu"], nn.Linear(2, 2, device="meta"))):
        with pytest.raises(InputError) as caught:
            check_devices(devices, network, "a.png", "RuntimeError: no")
        assert str(caught.value) == (
            "a.png: device meta stopped working at it (RuntimeError: no; then NotImplementedError: Cannot copy out of "
            "meta tensor; no data!); expected a device that works to the end; start the run again, or pass --device cpu"
        )
