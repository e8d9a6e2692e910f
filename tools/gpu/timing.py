"""Seconds and memory of a call on a device, and the precision of float32 there."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

__all__ = ["Cost", "Settings", "exact_float32", "measure_cost", "peak_bytes", "seconds_of"]

LONG_S = 4
"""Seconds after which a call is not repeated further."""


class Settings(NamedTuple):
    """How a step is run.

    Args:
        device: device that is checked.
        small: whether sizes are those of the rehearsal, which takes minutes on a CPU.
        folder: for files that nobody needs afterwards.
    """

    device: torch.device
    small: bool
    folder: str

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"


class Cost(NamedTuple):
    """Of one call: median seconds, and bytes allocated at the peak beyond those before it; None on a CPU."""

    seconds: float
    peak_bytes: int | None

    @property
    def cells(self) -> list[str]:
        """Milliseconds and MiB, as in a table."""
        return [f"{1000 * self.seconds:.1f}", "-" if self.peak_bytes is None else f"{self.peak_bytes / 2**20:.0f}"]


def wait(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device, repeats: int = 3, warm_up: bool = True) -> float:
    """Median seconds of a call; there are fewer than ``repeats`` where it is slow.

    Args:
        call: what to measure.
        device: where it computes.
        repeats: calls that count.
        warm_up: whether to call it once before.
    """
    if warm_up:
        call()
    times: list[float] = []
    while len(times) < repeats and sum(times) < LONG_S:
        wait(device)
        began = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that PyTorch has allocated on a GPU at the peak of a call, less those before it; None on a CPU."""
    if device.type != "cuda":
        call()
        return None
    wait(device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    wait(device)
    return torch.cuda.max_memory_allocated(device) - before


def measure_cost(call: Callable[[], object], device: torch.device, repeats: int = 3) -> Cost:
    """Memory of a first call and time of the next ones."""
    peak = peak_bytes(call, device)
    return Cost(seconds_of(call, device, repeats, warm_up=False), peak)


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Let a GPU multiply float32 without rounding it to TF32, as it does by default in convolutions."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
