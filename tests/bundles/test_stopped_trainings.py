"""Trainings that end early: one that diverges, and one in a folder that another training writes to."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from bundlekit.phantoms import make_dataset
from bundlekit.training.lock import LOCK_NAME
from tests import commands

LEARNING_RATE = "1e30"


def train(bundle: Path, base: str, folder: Path, data: Path, **options) -> commands.Command:
    options = {
        "dataset_dir": data,
        "output_dir": folder,
        "device": "cpu",
        "max_epochs": 6,
        "val_interval": 2,
        **options,
    }
    files = [f"configs/{base}.json", "configs/fit_demo.json"]
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return commands.start("-m", "monai.bundle", "run", "--config_file", files, *words, cwd=bundle)


def finish(process: commands.Command) -> list[str]:
    """The lines about what stopped it."""
    _, errors = process.communicate(600)
    assert process.returncode == 1 and "Traceback" not in errors, errors[-4000:]
    return [line for line in errors.splitlines() if line.startswith("error: ")]


def are_finite(state) -> bool:
    if isinstance(state, dict):
        return all(are_finite(value) for value in state.values())
    return not isinstance(state, torch.Tensor) or bool(torch.isfinite(state).all())


@pytest.mark.slow
def test_a_training_that_diverges_stops_and_keeps_only_finite_weights(bundle, small, tmp_path):
    make_dataset(bundle.name, tmp_path / "data", training=4, validation=1, test=0, size=small.size)
    for base in ("train", "pretrain"):
        if not (bundle / f"configs/{base}.json").exists():
            continue
        run = tmp_path / base
        [line] = finish(train(bundle, base, run, tmp_path / "data", learning_rate=LEARNING_RATE, **small.train))
        assert line.startswith("error: epoch ") and ("finite" in line or "exceeds" in line), line
        assert "learning" in line and "rate" in line
        for path in run.glob("*.pt"):
            assert are_finite(torch.load(path, weights_only=True)), path
        for path in run.glob("history.json"):
            assert json.loads(path.read_text(), parse_constant=pytest.fail)["loss"]


@pytest.mark.slow
def test_a_second_training_in_a_folder_is_refused_until_the_first_one_is_killed(tmp_path):
    bundle = Path(__file__).resolve().parents[2] / "bundles/nuclei_microscopy_segmentation"
    make_dataset(bundle.name, tmp_path / "data", training=4, validation=1, test=0, size=64)
    run, shipped = tmp_path / "run", (bundle / "models/model.pt").read_bytes()
    first = train(bundle, "train", run, tmp_path / "data", max_epochs=1000)
    commands.wait_for(run / "state.pt", first)
    for switch in ("resume", "overwrite"):
        [line] = finish(train(bundle, "train", run, tmp_path / "data", **{switch: "true"}))
        assert line.startswith(f"error: {run}: process {first.pid} on "), line
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert json.loads((run / LOCK_NAME).read_text())["pid"] == first.pid
    [line] = finish(train(bundle, "train", run, tmp_path / "data"))
    assert "holds state.pt" in line and "pass --resume true to continue it, --overwrite true to lose it" in line
    last = train(bundle, "train", run, tmp_path / "data", overwrite="true")
    last.communicate(600)
    assert last.returncode == 0 and torch.load(run / "state.pt", weights_only=True)["epoch"] == 6
    assert sorted(path.name for path in run.iterdir()) == ["history.json", "model.pt", "state.pt"]
    assert (bundle / "models/model.pt").read_bytes() == shipped
