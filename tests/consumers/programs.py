"""Programs that use bundles, run in environments of their own: a Python's calls, and a MONAI Label server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_S, STOP_S, REQUEST_S, TRAINING_S = 300, 30, 600, 1800
IGNORED = shutil.ignore_patterns("data", "eval", "__pycache__")


def require(name: str) -> Path:
    """The Python of the environment .venv-NAME, or a skip."""
    if not (ROOT / f".venv-{name}/.ready").exists():
        pytest.skip(f"there is no environment .venv-{name}: run make test-{name}")
    return ROOT / f".venv-{name}/bin/python"


def clean_environment(**more: str) -> dict[str, str]:
    """That of the tests, without what would let another Python find this one's packages."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


def call(python: Path, *words: object, cwd: Path, **more: str) -> str:
    """Run Python to its end; what it printed."""
    command = [str(python), *map(str, words)]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=REQUEST_S,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}"
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LabelServer:
    """MONAI Label with copies of bundles, and the requests that its clients send."""

    def __init__(self, python: Path, folder: Path, bundles: list[Path]) -> None:
        self.python, self.port, self.log = python, free_port(), folder / "server.log"
        self.models = folder / "apps/monaibundle/model"
        self.studies = folder / "studies"
        self.studies.mkdir()
        options = ["apps", "--download", "--name", "monaibundle", "--output", "apps"]
        call(python, "-m", "monailabel.main", *options, cwd=folder, PYTHONPATH="")
        for bundle in bundles:
            shutil.copytree(bundle, self.models / bundle.name, ignore=IGNORED)
        words = ["start_server", "--app", "apps/monaibundle", "--studies", self.studies, "--host", "127.0.0.1"]
        words += ["--port", self.port, "--conf", "models", ",".join(bundle.name for bundle in bundles)]
        words += ["--conf", "zoo_source", "local", "--conf", "sam2", "false"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(python), "-m", "monailabel.main", *map(str, words)],
                cwd=folder,
                env=clean_environment(PYTHONPATH=""),  # which it extends for its trainings, and fails without
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, for a training that is left running
            )

    def describe(self) -> str:
        return f"{self.log}:\n{self.log.read_text(errors='replace')[-6000:]}"

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_S
        while True:
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}. {self.describe()}"
            assert time.monotonic() < deadline, f"the server does not answer after {START_S} s. {self.describe()}"
            with contextlib.suppress(OSError):
                self.request("GET", "/info/")
                return
            time.sleep(0.5)

    def stop(self) -> None:
        """End it, and a training that it left running."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def request(self, method: str, path: str, body: bytes = b"", content: str = "application/json") -> bytes:
        """The body of the answer, which has to be 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_S)
        try:
            connection.request(method, path, body, {"Content-Type": content})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, f"{method} {path}: {answer.status} {data[:500]!r}. {self.describe()}"
        return data

    def post_form(self, method: str, path: str, query: dict[str, str], **parts: Any) -> bytes:
        """Send ``multipart/form-data``: a part is a file's path, or a value to be written as JSON."""
        boundary = uuid.uuid4().hex
        body = b""
        for name, value in parts.items():
            file = f'; filename="{value.name}"' if isinstance(value, Path) else ""
            content = value.read_bytes() if isinstance(value, Path) else json.dumps(value).encode()
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
            body += head.encode() + content + b"\r\n"
        body += f"--{boundary}--\r\n".encode()
        path = f"{path}?{urllib.parse.urlencode(query)}"
        return self.request(method, path, body, f"multipart/form-data; boundary={boundary}")

    def info(self) -> dict[str, Any]:
        return json.loads(self.request("GET", "/info/"))

    def upload(self, image_id: str, image: Path, label: Path | None = None) -> None:
        self.post_form("PUT", "/datastore/image", {"image": image_id}, params={}, file=image)
        if label is not None:
            self.post_form("PUT", "/datastore/label", {"image": image_id, "tag": "final"}, params={}, label=label)

    def infer(self, model: str, image_id: str, ending: str, output: Path, dtype: str = "uint8") -> Path:
        """Segment an uploaded image; the path of the label map, ``output`` with ``ending`` behind it."""
        params = {"device": "cpu", "result_extension": ending, "result_dtype": dtype}
        data = self.post_form("POST", f"/infer/{model}", {"image": image_id, "output": "image"}, params=params)
        path = output.with_name(output.name + ending)
        path.write_bytes(data)
        return path

    def train(self, model: str, **params: Any) -> None:
        """Train to the end, as the clients do it: start, then ask for the state."""
        wanted = {"device": "cpu", "multi_gpu": False, **params}
        self.request("POST", f"/train/{model}", json.dumps(wanted).encode())
        deadline = time.monotonic() + TRAINING_S
        while (task := json.loads(self.request("GET", "/train/")))["status"] in ("SUBMITTED", "RUNNING"):
            assert time.monotonic() < deadline, f"{model} still trains after {TRAINING_S} s. {self.describe()}"
            time.sleep(0.5)
        assert task["status"] == "DONE", f"training of {model}: {task['status']}. {self.describe()}"


@contextlib.contextmanager
def run_label_server(folder: Path, bundles: list[Path]) -> Iterator[LabelServer]:
    server = LabelServer(require("label"), folder, bundles)
    try:
        server.wait()
        yield server
    finally:
        server.stop()
