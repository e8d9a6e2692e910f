"""Step: predict the memory of all training steps that later steps measure, in several processes."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context

import torch

from invres3d.plan import Training, list_trainings, predict
from tools.gpu.results import Report
from tools.gpu.timing import Settings

__all__ = ["name_of", "run", "trainings"]

PRECISIONS = ("fp32", "bf16")
SIDES = (128, 96, 64)
DEPTHS, CHANNELS = (1, 4), (32, 64, 128, 256)
SMALL_SIDE, SMALL_DEPTHS, SMALL_CHANNELS = 16, (1,), (4, 8, 16, 32)
MOST_PROCESSES = 12


def trainings(side: int, precision: str, small: bool) -> list[Training]:
    """The training steps on a cube, the ones at depth 1 first.

    Args:
        side: in voxels.
        precision: one of ``PRECISIONS``.
        small: whether to replace side, depths and channels by those of the rehearsal.
    """
    patch, channels = (SMALL_SIDE, SMALL_CHANNELS) if small else (side, CHANNELS)
    depths = dict.fromkeys(("num_couplings", "num_blocks"), SMALL_DEPTHS if small else DEPTHS)
    found = list_trainings(amps=[precision == "bf16"], vae=True, patch=(patch,) * 3, channels=channels, **depths)
    return sorted(found, key=lambda training: training.depth)


def name_of(training: Training) -> str:
    """A training's name in tables of one size and precision."""
    return f"{training.network}, {training.engine}, depth {training.depth}"


def predicted_bytes(training: Training, on_gpu: bool) -> int | str:
    """Live bytes of a step as the plan predicts them, or why there is no prediction."""
    if not on_gpu:
        torch.cuda.is_available = lambda: False  # type: ignore[assignment]  # autocast of a GPU is another one
    torch.set_num_threads(1)
    try:
        return predict(training).live_bytes
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def run(report: Report, settings: Settings) -> None:
    """Predict everything, size by size.

    Args:
        report: keeps the bytes for the steps that measure.
        settings: device and sizes.
    """
    count = max(1, min(MOST_PROCESSES, (os.cpu_count() or 1) - 1))
    predict_one = partial(predicted_bytes, on_gpu=settings.on_gpu)
    known: dict[Training, int | str] = {}  # all sides are the same in the rehearsal
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        for side, precision in product(SIDES, PRECISIONS):
            entries = trainings(side, precision, settings.small)
            if len(report.values.get(f"{side} {precision}", ())) == len(entries):
                continue  # by an earlier run
            new = [training for training in entries if training not in known]
            known |= dict(zip(new, pool.map(predict_one, new), strict=True))
            report.keep(f"{side} {precision}", {name_of(training): known[training] for training in entries})
            bad = {name_of(training): known[training] for training in entries if isinstance(known[training], str)}
            found = f"{len(entries) - len(bad)} of {len(entries)}"
            first = "".join(f"; {name}: {reason}" for name, reason in list(bad.items())[:1])
            report.check(f"steps on {side}^3 voxels, {precision}, are predicted", not bad, found + first)
