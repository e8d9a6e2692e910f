"""Reports the CPU seconds of a test run, user and system, of all workers and of the processes that they started.

The line stands at the end of pytest's output. Where `--durations N` is given, so are the N most costly tests: on a
machine that does something else as well, CPU seconds say more than seconds of a clock.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import psutil
import pytest

LIMIT_S = 600
"""Of `make test`, on two cores."""
NAME = "cpu_s"


def measure_s() -> float:
    """CPU seconds of this process, of its children that ended, and of those that still run with theirs that ended."""
    total_s = sum(os.times()[:4])
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    for pid in path.read_text().split() if path.exists() else ():
        try:
            total_s += sum(psutil.Process(int(pid)).cpu_times()[:4])
        except psutil.Error:  # it has ended in between
            continue
    return total_s


class CpuTime:
    """Measures in each worker, and adds up in the process that reports."""

    def __init__(self) -> None:
        self.last_s = measure_s()
        self.workers_s = 0.0
        self.tests_s: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        now_s = measure_s()
        report.user_properties.append((NAME, now_s - self.last_s))
        self.last_s = now_s
        return report

    def pytest_runtest_logreport(self, report) -> None:
        self.tests_s[report.nodeid] += dict(report.user_properties).get(NAME, 0.0)

    def pytest_sessionfinish(self, session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[NAME] = measure_s()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error) -> None:
        self.workers_s += getattr(node, "workeroutput", {}).get(NAME, 0.0)

    def pytest_terminal_summary(self, terminalreporter, config) -> None:
        own_s = sum(os.times()[:2]) if self.workers_s else measure_s()
        count = config.getoption("durations") or 0
        if count:
            terminalreporter.section(f"CPU seconds of the {count} most costly tests")
            for test, seconds in self.tests_s.most_common(count):
                terminalreporter.write_line(f"{seconds:8.2f} {test}")
        terminalreporter.write_line(f"CPU time: {own_s + self.workers_s:.0f} s (limit of `make test`: {LIMIT_S} s)")
