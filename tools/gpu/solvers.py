"""Step: U-Node's solvers next to the authors' configuration on torchdiffeq: time, memory, evaluations and error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tools.bench.ode_solvers import Bench, Contender, contenders, measure_accuracy
from tools.bench.unode_reference import REFERENCE, WEIGHTS, num_evaluations, reset_evaluations, sample
from tools.gpu.results import Report
from tools.gpu.timing import Cost, Settings, exact_float32, measure_cost

__all__ = ["batch_of", "run"]

SIZE, BATCH_SIZE, SIZE_OF_ERRORS = (352, 512), 8, (128, 192)
SMALL_SIZE, SMALL_BATCH_SIZE = (64, 64), 2
TIMES_FASTER = 4
SPEED = f"a step at no larger error is at least {TIMES_FASTER} times faster than the authors' configuration"
COLUMNS = ["solver", "ms a step", "MiB", "ms an inference", "MiB of an inference", "evaluations", "step, times faster"]
ERROR_COLUMNS = ["solver", "error of the probability, rms", "largest", "cosine of the gradient"]
REFERENCE_BF16 = f"{REFERENCE}, bfloat16"


def batch_of(size: tuple[int, int], count: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Different views of one phantom and their masks.

    Args:
        size: rows and columns.
        count: of the batch.
        device: of the tensors.
    """
    pair = sample(*size, device)
    views = [[each.roll(37 * i, -1).flip(-2 if i % 2 else -1) for i in range(count)] for each in pair]
    return torch.cat(views[0]), torch.cat(views[1])


def costs_of(bench: Bench, contender: Contender, repeats: int) -> tuple[Cost, Cost, int]:
    """Cost of a training step and of an inference, and evaluations of a forward pass."""
    reset_evaluations(contender.network)
    bench.infer(contender)
    evaluations = num_evaluations(contender.network)
    step = measure_cost(lambda: bench.train(contender), bench.device, repeats)
    inference = measure_cost(lambda: bench.infer(contender), bench.device, repeats)
    return step, inference, evaluations


def check_speed(report: Report, step_seconds: dict[str, float], rms_errors: dict[str, float]) -> None:
    """The fastest solver that is at least as exact as the reference."""
    known = step_seconds.keys() & rms_errors.keys()
    if REFERENCE not in known:
        report.check(SPEED, False, "the reference was not measured")
        return
    exact = [solver for solver in known - {REFERENCE} if rms_errors[solver] <= rms_errors[REFERENCE]]
    if not exact:
        report.check(SPEED, False, "no solver is as exact")
        return
    best = min(exact, key=lambda solver: step_seconds[solver])
    times = step_seconds[REFERENCE] / step_seconds[best]
    report.check(SPEED, times >= TIMES_FASTER, f"{times:.1f} times, {best}")


def costs(report: Report, entries: dict[str, Contender], bench: Bench, repeats: int) -> dict[str, float]:
    """A row of costs for each solver; seconds of a step by solver."""
    rows, columns, count = bench.image.shape[2], bench.image.shape[3], len(bench.image)
    title = f"{rows} x {columns} px, batch of {count}, float32 as by default unless said"
    seconds: dict[str, float] = report.values.setdefault("seconds of a step", {})

    def cells(name: str, contender: Contender) -> Sequence[Any]:
        step, inference, evaluations = costs_of(bench, contender, repeats)
        seconds[name] = step.seconds
        times = f"{seconds[REFERENCE] / step.seconds:.2f}" if REFERENCE in seconds else "-"
        return [*step.cells, *inference.cells, evaluations, times]

    for name, contender in entries.items():
        required = name != REFERENCE_BF16
        report.measure(title, COLUMNS, name, lambda n=name, c=contender: cells(n, c), required)
    return seconds


def run(report: Report, settings: Settings) -> None:
    """Measure all solvers.

    Args:
        report: takes a row for each.
        settings: device and sizes.
    """
    device = settings.device
    size, count = (SMALL_SIZE, SMALL_BATCH_SIZE) if settings.small else (SIZE, BATCH_SIZE)
    weights = torch.load(WEIGHTS, weights_only=True, map_location=device)
    entries = contenders(weights, device)
    bench, repeats = Bench(*batch_of(size, count, device)), 1 if settings.small else 3
    seconds = costs(report, entries, bench, repeats)
    size = SMALL_SIZE if settings.small else SIZE_OF_ERRORS
    with exact_float32():
        accuracies = measure_accuracy(Bench(*sample(*size, device)), entries, weights)
    for name, (rms, largest, cosine) in accuracies.items():
        shown = [f"{rms:.2e}", f"{largest:.1e}", f"{cosine:.3f}"]
        report.row(f"error, {size[0]} x {size[1]} px, one image", ERROR_COLUMNS, name, shown)
    if settings.on_gpu:
        check_speed(report, seconds, {name: accuracy.rms for name, accuracy in accuracies.items()})
    else:
        report.needs_gpu(SPEED)
    costs(report, {REFERENCE_BF16: Contender(entries[REFERENCE].network, amp=True)}, bench, repeats)
