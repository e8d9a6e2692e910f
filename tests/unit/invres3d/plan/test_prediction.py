"""Predictions against the same training steps on real tensors."""

from __future__ import annotations

import contextlib
import gc
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from monai.losses import DiceCELoss

from invres3d.losses import RegularizedLoss
from invres3d.plan import NETWORKS, OPTIMIZERS, Training, list_trainings, predict
from invres3d.plan.live_memory import LiveMemory

SMALL = {"patch": (32, 32, 16), "in_channels": 2, "out_channels": 3, "channels": (8, 16, 32)}
ALL = list_trainings([1, 2], [False, True], vae=True, num_blocks=[1, 3], **SMALL)

COVERING = [
    "UNet3D-none-deep-fp32",
    "UNet3D-checkpoint-shallow-bf16",
    "PartiallyInvertibleUNet-none-shallow-fp32",
    "PartiallyInvertibleUNet-checkpoint-deep-bf16",
    "PartiallyInvertibleUNet-memcnn-deep-fp32",
    "PartiallyInvertibleUNet-native-shallow-bf16",
    "FullyInvertibleUNet-none-deep-bf16",
    "FullyInvertibleUNet-checkpoint-shallow-fp32",
    "FullyInvertibleUNet-memcnn-shallow-bf16",
    "FullyInvertibleUNet-native-deep-fp32",
]
"""Each network with each of its engines, and each pair of any two properties; the others are slow."""


def measure_live(training: Training) -> int:
    """Peak live bytes of the step on real tensors."""
    network = training.make_network().train()
    image = torch.randn(training.batch_size, training.in_channels, *training.patch)
    label = torch.randint(0, training.out_channels, (training.batch_size, 1, *training.patch)).float()
    loss = RegularizedLoss(DiceCELoss(softmax=True, to_onehot_y=True))
    gc.collect()
    with LiveMemory() as memory:
        with torch.autocast("cpu", torch.bfloat16) if training.amp else contextlib.nullcontext():
            output = network(image)
            total = loss(output, label)
        del output
        total.backward()
    return memory.peak_bytes


def name(training: Training) -> str:
    depth, precision = "deep" if training.depth > 1 else "shallow", "bf16" if training.amp else "fp32"
    return f"{training.network}-{training.engine}-{depth}-{precision}"


CASES = [pytest.param(t, id=name(t), marks=[] if name(t) in COVERING else pytest.mark.slow) for t in ALL]


def test_the_quick_cases_hold_every_pair_of_properties():
    every = {frozenset(pair) for t in ALL for pair in combinations(name(t).split("-"), 2)}
    quick = {frozenset(pair) for text in COVERING for pair in combinations(text.split("-"), 2)}
    assert quick == every and {*COVERING} <= {name(t) for t in ALL}


@pytest.mark.skipif(torch.cuda.is_available(), reason="predicts for the GPU")
@pytest.mark.parametrize("training", CASES)
def test_live_bytes_are_those_of_the_step(training):
    # 10 % is what is promised; small operations on scalars may differ
    assert predict(training).live_bytes == pytest.approx(measure_live(training), rel=0.1)


def test_every_network_engine_depth_and_precision_is_among_the_choices():
    expected = {(network, engine, depth, amp) for network, engines in NETWORKS.items() for engine in engines
                for depth in ([1, 3] if network == "UNet3D" else [1, 2]) for amp in (False, True)}  # fmt: skip
    assert {(t.network, t.engine, t.depth, t.amp) for t in ALL} == expected


def test_batches_and_volumes_scale_what_they_should():
    single = predict(Training("UNet3D", "none", **SMALL))
    double = predict(Training("UNet3D", "none", batch_size=2, **SMALL))
    assert double.batch_bytes == 2 * single.batch_bytes == 2 * 32 * 32 * 16 * (2 + 1) * 4
    # at the peak some of the parameters have their gradients, and those do not grow
    assert 2 * single.live_bytes - single.parameter_bytes <= double.live_bytes < 2 * single.live_bytes


@pytest.mark.parametrize(("optimizer", "moments"), [("adam", 2), ("adamw", 2), ("sgd", 1)])
def test_parameters_and_moments(optimizer, moments):
    training = Training("FullyInvertibleUNet", "native", 1, optimizer=optimizer, **SMALL)
    network = training.make_network()
    parameters = list(network.parameters())
    found = predict(training)
    assert found.parameter_bytes == sum(p.numel() for p in parameters) * 4

    image = torch.randn(1, 2, 32, 32, 16)
    network(image).square().mean().backward()
    updater = OPTIMIZERS[optimizer](parameters)
    updater.step()
    # the counters of steps, without axes, stay in the CPU's memory
    state = [v for p in parameters for v in updater.state[p].values() if isinstance(v, torch.Tensor) and v.dim()]
    assert found.optimizer_bytes == sum(value.numel() * 4 for value in state) == moments * found.parameter_bytes
    assert found.update_bytes >= found.parameter_bytes  # the gradients at least


def test_total_has_the_larger_of_step_and_update():
    found = predict(Training("UNet3D", "none", **SMALL))
    held = found.parameter_bytes + found.optimizer_bytes + found.batch_bytes
    assert found.live_bytes > found.update_bytes
    assert found.total_bytes == held + found.live_bytes
    assert replace(found, update_bytes=found.live_bytes + 1).total_bytes == held + found.live_bytes + 1


def test_the_patch_must_fit():
    with pytest.raises(ValueError, match=r"multiples of 8, .*: pad to \[32, 32, 24\]"):
        predict(Training("FullyInvertibleUNet", "native", 1, vae=True, **{**SMALL, "patch": (32, 32, 20)}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("UNet", "none"), "network is 'UNet'; expected one of UNet3D"),
        (("UNet3D", "native"), "engine is 'native'; expected one of none, checkpoint for UNet3D"),
        (("FullyInvertibleUNet", "native", 0), "depth is 0; expected at least 1"),
        (("UNet3D", "none", 1, False, (16, 16)), "patch is .*; expected three numbers"),
        (("UNet3D", "none", 1, False, (16, 16, -16)), "patch is .*; expected positive numbers"),
        (
            ("UNet3D", "none", 1, False, (16, 16, 16), 1, 1, 1),
            "out_channels is 1; expected at least 2: background and one class",
        ),
    ],
)
def test_settings_that_do_not_exist(arguments, message):
    with pytest.raises(ValueError, match=message):
        Training(*arguments)


def test_an_unknown_optimizer():
    with pytest.raises(ValueError, match="optimizer is 'lion'; expected one of adam, adamw, sgd"):
        Training("UNet3D", "none", optimizer="lion")
