"""A folder of many images under torchrun: each is segmented once, and a run that was killed goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests import commands

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/membrane_em_segmentation"
NUM_IMAGES = 200
SIZE_PX = 48
TIMEOUT_S = 600
Process = subprocess.Popen | commands.Command


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(NUM_IMAGES):
        pixels = np.kron(rng.integers(60, 200, (SIZE_PX // 8,) * 2), np.ones((8, 8))) + rng.normal(0, 5, (SIZE_PX,) * 2)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03d}.png")
    (folder / "broken.png").write_bytes((folder / "000.png").read_bytes()[:100])
    return folder


def command(images: Path, output: Path, **overrides: object) -> list[str]:
    options = {"dataset_dir": images, "output_dir": output, "device": "cpu", **overrides}
    return [
        *("-m", "monai.bundle", "run", "--config_file", "configs/inference.json"),
        *(f"--{key}={value}" for key, value in options.items()),
    ]


def start(images: Path, output: Path) -> list[commands.Command]:
    """Two processes, as torchrun starts them."""
    return commands.start_ranks(2, *command(images, output), cwd=BUNDLE)


def torchrun(images: Path, output: Path, *launch: str, **overrides: object) -> subprocess.Popen[str]:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *launch]
    return subprocess.Popen(
        [sys.executable, *words, *command(images, output, **overrides)],
        cwd=BUNDLE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(processes: list[Process], failed: bool) -> tuple[str, list[str]]:
    """Their last line about the images, and the files they have left out at their end."""
    written = [process.communicate(timeout=TIMEOUT_S) for process in processes]
    out, err = (text for text in map("".join, zip(*written, strict=True)))
    assert any(process.returncode != 0 for process in processes) == failed, out[-2000:] + err[-4000:]
    [summary] = [line for line in out.splitlines() if " segmented" in line] or [""]
    return summary, [line for line in err.splitlines() if line.startswith("left out: ")]


def finished(output: Path) -> list[str]:
    """The images that the record says are finished, as often as it says so."""
    names = []
    for path in output.glob(".finished-*.jsonl"):
        for text in path.read_text().split("\n"):
            if text.endswith("}"):
                names.append(Path(json.loads(text)["image"][0]).stem)
    return names


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children()
    return sorted((child for child in found if "RANK" in child.environ()), key=lambda child: child.environ()["RANK"])


def wait_for(condition: Callable[[], bool], process: Process) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate(timeout=TIMEOUT_S)
        time.sleep(0.01)


def masks(output: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in output.glob("*_seg.png")}


def test_one_of_two_processes_is_killed_and_the_run_started_again(images, tmp_path):
    summary, left_out = end([commands.start(*command(images, tmp_path / "serial"), cwd=BUNDLE)], failed=True)
    assert summary == f"{NUM_IMAGES} segmented, 1 left out: {tmp_path}/serial" and len(left_out) == 2
    wanted = masks(tmp_path / "serial")
    assert len(wanted) == NUM_IMAGES

    output = tmp_path / "out"
    ranks = start(images, output)
    wait_for(lambda: min(len(finished(output)), len(list(output.glob(".finished-*.jsonl"))) * 10) >= 20, ranks[0])
    for rank in reversed(ranks):  # the first one is ended by torchrun
        rank.send_signal(signal.SIGKILL)
    end(ranks, failed=True)
    done = finished(output)
    assert 20 <= len(done) < NUM_IMAGES and len(set(done)) == len(done)
    times = {name: (output / f"{name}_seg.png").stat().st_mtime_ns for name in done}
    [half] = [name for name in (f"{i:03d}" for i in range(NUM_IMAGES)) if name not in done][:1]
    for name in (f"{half}_seg.png", f".part.{half}_seg.png"):  # as a kill may leave them, of other writers and of ours
        (output / name).write_bytes((tmp_path / f"serial/{half}_seg.png").read_bytes()[:60])

    summary, left_out = end(start(images, output), failed=True)
    rest = NUM_IMAGES - len(done)
    earlier = f"{len(done)} finished before (--resume false segments them again)"
    assert summary == f"{rest} segmented, {earlier}, 1 left out: {output}"
    assert [line.partition(": cannot")[0] for line in left_out] == [f"left out: {images}/broken.png"] * 2
    assert sorted(finished(output)) == [f"{i:03d}" for i in range(NUM_IMAGES)]  # each one once
    assert all((output / f"{name}_seg.png").stat().st_mtime_ns == time for name, time in times.items())
    found = masks(output)
    assert found.keys() == wanted.keys() and not list(output.glob(".part*"))
    assert all(np.array_equal(found[name], mask) for name, mask in wanted.items())

    for path in images.glob("*.png"):
        (tmp_path / "good").mkdir(exist_ok=True)
        if path.stem != "broken":
            (tmp_path / "good" / path.name).hardlink_to(path)
    summary, left_out = end(start(tmp_path / "good", tmp_path / "whole"), failed=False)
    assert summary == f"{NUM_IMAGES} segmented, 0 left out: {tmp_path}/whole" and left_out == []
    assert len(list((tmp_path / "whole").iterdir())) == NUM_IMAGES  # and no record


@pytest.mark.slow
def test_torchrun_restarts_the_processes_itself_where_it_may(images, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for i in range(60):
        (few / f"{i:03d}.png").hardlink_to(images / f"{i:03d}.png")
    output = tmp_path / "out"
    process = torchrun(few, output, "--max-restarts", "1", resume="false")
    wait_for(lambda: len(finished(output)) >= 5, process)
    workers(process)[1].send_signal(signal.SIGKILL)
    summary, _ = end([process], failed=False)
    added, _, before = summary.partition(" segmented, ")
    assert int(added) + int(before.split()[0]) == 60 and int(before.split()[0]) >= 5
    assert len(list(output.iterdir())) == 60
