"""Step: memory and time of a training step of every invertible network and engine, next to what the plan predicts."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from invres3d.plan import Training
from invres3d.plan.live_memory import LiveMemory
from tools.bench.invertible_memory import make_step
from tools.gpu.predictions import name_of, trainings
from tools.gpu.results import Report
from tools.gpu.timing import Settings, peak_bytes, seconds_of

__all__ = ["run"]

TOLERANCE = 0.10
"""How far the memory that a GPU allocates may be from the prediction."""
COLUMNS = ["network, engine", "allocated, MiB", "predicted, MiB", "difference", "reserved, MiB", "ms a step"]
REPEATS = 3


def measured_bytes(training: Training, settings: Settings) -> int:
    """Peak of a step: what a GPU allocates, workspaces of kernels included, or the live tensors on a CPU."""
    network, step = make_step(training, settings.device)
    gc.collect()
    if settings.on_gpu:
        step()  # kernels are chosen, and libraries take what they keep
        network.zero_grad(set_to_none=True)
        peak = peak_bytes(step, settings.device)
        assert peak is not None
        return peak
    with LiveMemory() as memory:
        step()
    return memory.peak_bytes


def cells(report: Report, training: Training, predicted: int | None, settings: Settings) -> Sequence[str]:
    """The figures of one training; the prediction is checked."""
    measured = measured_bytes(training, settings)
    reserved = torch.cuda.max_memory_reserved(settings.device) if settings.on_gpu else None
    network, step = make_step(training, settings.device)

    def whole_step() -> None:
        network.zero_grad(set_to_none=True)
        step()

    seconds = seconds_of(whole_step, settings.device, REPEATS)
    shown = ["-", "-"]
    if predicted is not None:
        difference = measured / predicted - 1
        shown = [f"{predicted / 2**20:.1f}", f"{difference:+.1%}"]
        name = f"memory as predicted within {TOLERANCE:.0%}: {name_of(training)}"
        report.check(name, abs(difference) <= TOLERANCE, f"{difference:+.1%}")
    held = "-" if reserved is None else f"{reserved / 2**20:.0f}"
    return [f"{measured / 2**20:.1f}", *shown, held, f"{1000 * seconds:.1f}"]


def run(report: Report, settings: Settings, side: str, precision: str) -> None:
    """Measure all trainings on one cube in one precision.

    Args:
        report: takes a row for each.
        settings: device and sizes.
        side: voxels, as in the full sizes.
        precision: "fp32" or "bf16".
    """
    predictions = report.results.entry("plan")["values"].get(f"{side} {precision}", {})
    where = "" if settings.on_gpu else "; live tensors on a CPU"
    for training in trainings(int(side), precision, settings.small):
        known = predictions.get(name_of(training))
        predicted = known if isinstance(known, int) else None
        title = f"{training.patch[0]}^3 voxels, {precision}, batch of 1{where}"
        refused = training.amp and training.engine == "memcnn" and not settings.on_gpu
        if refused:
            report.needs_gpu(f"{name_of(training)} under autocast")
            continue
        report.measure(
            title, COLUMNS, name_of(training), lambda t=training, p=predicted: cells(report, t, p, settings)
        )  # fmt: skip
        gc.collect()
        if settings.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(settings.device)
