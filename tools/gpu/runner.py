"""Runs steps one after another, each in a process of its own with a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.gpu.page import write_page
from tools.gpu.results import DONE, FAILED, NOT_DONE, RUNNING, STOPPED, Results
from tools.gpu.steps import Step

__all__ = ["Ended", "order", "run_limited", "run_steps"]

ROOT = Path(__file__).resolve().parents[2]
LEAST_S = 5
"""Seconds that must be left for a further step to begin."""


class Ended(NamedTuple):
    """How a process ended: a status of :mod:`.results`, why, and after how many seconds."""

    status: str
    why: str
    seconds: float


def end(process: subprocess.Popen) -> None:
    """End a process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(text: str) -> str:
    """The last line that is not empty, in at most 200 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it printed nothing"


def run_limited(command: Sequence[str], limit_s: float, log: Path) -> Ended:
    """Run a command in the repository's folder; end it, with its children, after the time limit.

    Args:
        command: program and arguments.
        limit_s: seconds.
        log: file to which its output is added.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
            output.seek(0)
            text = output.read()
            with log.open("a", encoding="utf-8") as kept:
                kept.write(f"$ {' '.join(command)}\n{text}\n")
    seconds = time.monotonic() - began
    if code is None:
        return Ended(STOPPED, f"after {seconds:.0f} s, its time limit", seconds)
    if code != 0:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Ended(FAILED, f"{how}: {last_line(text)}", seconds)
    return Ended(DONE, "", seconds)


def order(steps: Sequence[Step], results: Results) -> list[Step]:
    """The steps that are to be run: those never begun first, then those that failed or were stopped."""
    left = [step for step in steps if not results.is_finished(step.name)]
    fresh = [step for step in left if results.entry(step.name)["status"] == NOT_DONE]
    return [*fresh, *(step for step in left if step not in fresh)]


def run_steps(
    steps: Sequence[Step],
    results: Results,
    minutes: float,
    options: Sequence[str],
    patience: float = 1,
    start: Callable[[Sequence[str], float, Path], Ended] = run_limited,
) -> Results:
    """Run what is not finished until the time is over; results and page are on the disk after each step.

    Args:
        steps: in the order of their importance.
        results: of earlier runs, too.
        minutes: from now on.
        options: ``--device`` and ``--sizes``, for the processes.
        patience: multiplies the steps' time limits.
        start: runs a command under a limit.

    Returns:
        the results as they are on the disk afterwards.
    """
    deadline = time.monotonic() + 60 * minutes
    log = results.path.with_name("gpu.log")
    for step in order(steps, results):
        left = deadline - time.monotonic()
        if left < LEAST_S:
            break
        results.entry(step.name).update(status=RUNNING, why="it was interrupted")
        results.save()
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tools.gpu.process", step.name, "--results", str(results.path)]
            ended = start([*command, "--folder", folder, *options], min(patience * step.limit_s, left), log)
        results = Results(results.path)  # the process has added to it
        entry = results.entry(step.name)
        entry.update(status=ended.status, why=ended.why, seconds=round(ended.seconds, 1))
        results.save()
        write_page(results, steps)
        print(f"{step.name}: {ended.status} {ended.why} ({ended.seconds:.0f} s)".replace("  ", " "), flush=True)
    return results
