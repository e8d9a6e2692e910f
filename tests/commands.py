"""Runs Python's command lines in processes that need not import anything: forks of a server that has done so once.

A start of ``python -m monai.bundle`` costs several CPU seconds of imports before it does anything. `start` gives the
same process for a tenth of that: the server, one for each worker of the tests, has imported what the commands import
and has computed nothing, so that no thread runs in it. The process has its own working directory, environment, output
and process group, and can be killed. What differs: it ends without the functions registered with `atexit`.

`start_ranks` starts the processes of a distributed run as ``torchrun`` does; `run_script` runs a script within this
process, for scripts that keep nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

PRELOAD = [
    "bundlekit.inference.evaluator",
    "bundlekit.inference.tiles",
    "bundlekit.inference.writers",
    "bundlekit.inputs.volumes",
    "bundlekit.metrics.object_metrics",
    "bundlekit.phantoms",
    "bundlekit.reports.tracking",
    "bundlekit.training.state",
    "fire",
    "ignite.handlers",
    "invres3d.nets",
    "itk",
    "matplotlib.pyplot",
    "monai.bundle",
    "monai.engines",
    "monai.handlers",
    "mlflow",
    "skimage.segmentation",
    "tests.commands",
    "torch.utils.tensorboard",
    "unet_ode.nets",
]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOAD)


@atexit.register
def _end_what_runs() -> None:
    """What a test that failed has left behind: multiprocessing would wait for it."""
    for process in multiprocessing.active_children():
        process.kill()


@functools.cache
def _import_path() -> list[str]:
    """Where a true start looks for modules, without the first folder; pytest adds others."""
    program = "import json, sys; print(json.dumps(sys.path[1:]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _become(
    words: Sequence[str], cwd: str, environment: Mapping[str, str], output: tuple[str, str], import_path: Sequence[str]
) -> None:
    """Do in this process what ``python WORDS`` does in a new one; the rest of its life."""
    os.setsid()
    for number, path in enumerate(output, start=1):
        file = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    added = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*added, *(path for path in import_path if path not in added)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            sys.path.insert(0, "")
            exec(compile(words[1], "<string>", "exec"), sys.modules["__main__"].__dict__)
        elif words[0] == "-m":
            sys.argv = list(words[1:])
            sys.path.insert(0, cwd)
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words)
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    except Exception:
        traceback.print_exc()
        sys.exit(1)


class Command:
    """A process that runs ``python WORDS``, with the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, words: Sequence[object], cwd: os.PathLike | str, env: Mapping[str, str] | None = None) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="command_")
        self.files = tuple(Path(self.folder.name, name) for name in ("stdout", "stderr"))
        for file in self.files:
            file.touch()
        environment = dict(os.environ if env is None else env)
        output = tuple(map(str, self.files))
        arguments = ([str(word) for word in words], str(cwd), environment, output, _import_path())
        self.process = CONTEXT.Process(target=_become, args=arguments)
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to stdout and stderr, at its end."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(str(self.process), timeout or 0)
        out, err = (file.read_text(encoding="utf-8", errors="replace") for file in self.files)
        return out, err


def start(*words: object, cwd: os.PathLike | str = ".", env: Mapping[str, str] | None = None) -> Command:
    """Start ``python WORDS``: ``-m MODULE ARGUMENTS``, ``-c PROGRAM ARGUMENTS`` or ``SCRIPT ARGUMENTS``."""
    return Command(words, Path(cwd).resolve(), env)


def start_ranks(count: int, *words: object, cwd: os.PathLike | str = ".", **environment: str) -> list[Command]:
    """Start ``python WORDS`` in ``count`` processes that find each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    shared |= {"LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    return [start(*words, cwd=cwd, env={**shared, "RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(count)]


def run(
    *words: object, cwd: os.PathLike | str = ".", env: Mapping[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run ``python WORDS`` to its end."""
    command = start(*words, cwd=cwd, env=env)
    out, err = command.communicate(timeout)
    return subprocess.CompletedProcess(list(map(str, words)), command.returncode or 0, out, err)


def run_script(path: os.PathLike | str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in this process; what it printed, and the exit code that a process would have had."""
    words, before, status = [str(path), *map(str, arguments)], (sys.argv, sys.path[:]), 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        sys.argv = words
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as stop:
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except Exception:
            traceback.print_exc()
            status = 1
        finally:
            sys.argv, sys.path[:] = before
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def wait_for(path: os.PathLike | str, command: Command, timeout: float = 600) -> None:
    """Wait until a running command has written a file."""
    deadline = time.monotonic() + timeout
    while not Path(path).exists():
        assert command.poll() is None and time.monotonic() < deadline, command.communicate(timeout)
        time.sleep(0.02)
