"""Descriptions of objects: equal for the same arguments in every process, other for other arguments."""

import functools
import json

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceLoss
from monai.transforms import Compose, Lambdad, Rand2DElasticd, RandFlipd, Resized
from monai.utils import MetricReduction

from bundlekit.training.descriptions import describe
from bundlekit.training.precision import Precision
from bundlekit.training.recipe import find_differences
from tests import commands

MAKE = {
    "transforms": lambda size: Compose([RandFlipd("image", prob=0.5), Resized("image", (size, size))]),
    "loss": lambda size: DiceLoss(smooth_dr=size),
    "array": lambda size: np.full(3, size),
    "tensor": lambda size: torch.full((3,), size, dtype=torch.bfloat16),
    "function": lambda size: Lambdad("image", eval(f"lambda image: image in {{{size}, 'a', 'b'}}")),
    "partial": lambda size: functools.partial(max, size),
    "enum": lambda size: [MetricReduction.MEAN, MetricReduction.SUM][size - 3],
    "set": lambda size: {"a", "b", size},
    "network": lambda size: torch.nn.Sequential(torch.nn.Conv2d(1, size, 3)),
    "optimizer": lambda size: torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=size),
    "none": lambda size: [None, size],
}


@pytest.mark.parametrize("kind", MAKE)
def test_the_same_arguments_give_the_same_description_and_others_another(kind):
    one, same, other = (describe(MAKE[kind](size)) for size in (3, 3, 4))
    assert one == same != other
    assert "0x" not in json.dumps(one)


def test_devices_of_sliding_windows_do_not_count():
    one, other = (SlidingWindowInferer(8, sw_device=name, device=name) for name in ("cpu", "cuda"))
    assert describe(one) == describe(other) != describe(SlidingWindowInferer(9, sw_device="cpu", device="cpu"))


@pytest.mark.parametrize("amp", [False, True])
def test_mixed_precision_on_a_cpu_leaves_the_network_as_it_is(amp):
    network = Precision("cpu", amp).prepare(torch.nn.Linear(2, 3))
    assert describe(network) == describe(torch.nn.Linear(2, 3))


def test_random_state_and_device_do_not_count():
    transforms = [Rand2DElasticd("image", spacing=(2, 2), magnitude_range=(0, 1)) for _ in range(2)]
    transforms[1].set_random_state(seed=3)
    assert describe(transforms[0]) == describe(transforms[1])
    one, other = torch.optim.SGD([torch.zeros(1)], lr=0.1), torch.optim.SGD([torch.ones(1)], lr=0.1)
    assert describe(one) == describe(other)


def test_an_object_that_holds_itself():
    class Node:
        pass

    node = Node()
    node.next = [node]
    assert describe(node) == {"class": "Node", "next": ["Node"]}


def test_another_process_gives_the_same_description():
    """Whose sets and texts are in another order."""
    program = (
        "import json; from tests.unit.bundlekit.training.test_descriptions import MAKE, describe\n"
        "print(json.dumps({kind: describe(make(3)) for kind, make in MAKE.items()}))"
    )
    done = commands.run("-c", program)
    assert json.loads(done.stdout.splitlines()[-1]) == {kind: describe(make(3)) for kind, make in MAKE.items()}


def test_differences_are_named_by_place_and_with_both_values():
    was = [{"rate": 0.1, "size": [3, 3]}, {"data": [{"image": "a.png, 3 bytes"}, {"image": "b.png, 4 bytes"}]}]
    now = [{"rate": 0.1, "size": [5, 3]}, {"data": [{"image": "a.png, 3 bytes"}, {"image": "c.png, 4 bytes"}]}]
    assert find_differences(was, was) == []
    assert find_differences(was, now) == [
        "size was [3, 3] and is [5, 3]",
        "data::1::image was b.png, 4 bytes and is c.png, 4 bytes",
    ]
    shorter = find_differences([{"data": [{"a": 1}, {"a": 2}]}], [{"data": [{"a": 1}]}])
    assert shorter == ["data was 2 entries and is 1 entries"]
    assert find_differences([{"a": "x" * 99, "b": 1}], [{"b": 1}]) == [f"a was {'x' * 57}... and is nothing"]
