"""Remembered operations against the same operations on real tensors."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from invres3d.plan.live_memory import LiveMemory
from invres3d.plan.remembered import KnownRanges, RememberedShapes

OPERATIONS = {
    "one result": lambda x: x + 1,
    "several results": lambda x: torch.max(x, 1)[0],
    "in place": lambda x: x.clone().mul_(2),
    "into another": lambda x: torch.exp(x, out=torch.empty_like(x)),
    "a view": lambda x: x.transpose(0, 1),
    "a view that does not say so": lambda x: x.transpose(0, 1).reshape(-1),
    "a list of views": lambda x: torch.cat(x.chunk(2, 1)),
    "other memory": lambda x: x.clone().set_(torch.cat([x, x])),
    "strides": lambda x: x.t().clone() * 2,
    "another type": lambda x: x.double() + x,
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_shapes_and_bytes_are_those_of_real_tensors(operation, kind):
    x = torch.rand(4, 6)
    with LiveMemory() as real:
        expected = operation(x)
    with FakeTensorMode() if kind == "fake" else torch.device("meta"), RememberedShapes():
        empty = torch.empty(4, 6)
        for _ in range(3):  # the first time may not be remembered, the last one is
            with LiveMemory() as memory:
                found = operation(empty)
            assert (found.shape, found.stride(), found.dtype) == (expected.shape, expected.stride(), expected.dtype)
            assert (memory.peak_bytes, memory.current_bytes) == (real.peak_bytes, real.current_bytes)


def test_results_of_one_shape_are_not_one_tensor():
    with torch.device("meta"), RememberedShapes():
        x = torch.empty(3, requires_grad=True)
        first, second = x * 2, x * 2
    assert first.untyped_storage()._cdata != second.untyped_storage()._cdata


def test_a_number_and_its_type_are_part_of_what_is_remembered():
    with torch.device("meta"), RememberedShapes():
        whole = torch.empty(3, dtype=torch.int64)
        assert (whole * 2).dtype == torch.int64
        assert (whole * 2.0).dtype == torch.float32


def test_ranges_have_numbers_on_any_device():
    with torch.device("meta"), KnownRanges():
        assert torch.arange(2, 5).tolist() == [2, 3, 4]
