"""The commands that the programs start are forks here, see `tests.commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from tests import commands


def fork(command: Sequence[str], cwd: Path) -> CompletedProcess[str]:
    """``subprocess.run(command, cwd=cwd)``, which prints what the command prints."""
    assert command[0] == sys.executable
    done = commands.run(*command[1:], cwd=cwd)
    print(done.stdout, end="", flush=True)
    print(done.stderr, end="", file=sys.stderr, flush=True)
    return done


@pytest.fixture(autouse=True)
def forked_commands(monkeypatch):
    monkeypatch.setattr("tools.commands.subprocess", SimpleNamespace(run=fork))
