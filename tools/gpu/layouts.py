"""Step: training steps of the 3-D networks with channels last and with torch.compile."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from invres3d.plan import Training
from tools.bench.invertible_memory import make_step
from tools.gpu.predictions import CHANNELS, SMALL_CHANNELS, SMALL_SIDE
from tools.gpu.results import Report
from tools.gpu.timing import Settings, measure_cost

__all__ = ["run"]

SIDE, DEPTH = 96, 1
NETWORKS = (("UNet3D", "none"), ("FullyInvertibleUNet", "native"), ("FullyInvertibleUNet", "none"))
VARIANTS = ("contiguous", "channels_last_3d", "compiled")
COLUMNS = ["network, engine, variant", "ms a step", "MiB", "loss"]


def variant_of(network: nn.Module, variant: str) -> None:
    """Change a network in place."""
    if variant == "channels_last_3d":
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    elif variant == "compiled":
        network.compile()


def cells(training: Training, variant: str, settings: Settings) -> Sequence[str]:
    """Cost of a step and its loss."""
    torch.manual_seed(0)
    network, step = make_step(training, settings.device)
    variant_of(network, variant)
    losses: list[torch.Tensor] = []

    def whole_step() -> None:
        network.zero_grad(set_to_none=True)
        losses.append(step())

    cost = measure_cost(whole_step, settings.device, 1 if settings.small else 5)
    return [*cost.cells, f"{float(losses[0]):.4f}"]


def run(report: Report, settings: Settings) -> None:
    """Measure the variants that take longest last.

    Args:
        report: takes a row for each.
        settings: device and sizes.
    """
    side, channels = (SMALL_SIDE, SMALL_CHANNELS) if settings.small else (SIDE, CHANNELS)
    for variant in VARIANTS:
        if variant == "compiled" and not settings.on_gpu:
            report.needs_gpu("torch.compile")
            continue
        for network, engine in NETWORKS:
            training = Training(network, engine, DEPTH, True, (side,) * 3, channels=channels)
            name = f"{network}, {engine}, {variant}"
            report.measure(
                f"{side}^3 voxels, bf16, depth {DEPTH}", COLUMNS, name,
                lambda t=training, v=variant: cells(t, v, settings), required=variant != "compiled",
            )  # fmt: skip
