"""Every bundle's multi_gpu_train.json with two processes, on CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import convert_to_tensor

from bundlekit.phantoms import make_dataset
from tests import commands

PROCESS = Path(__file__).with_name("training_process.py")
BASES = ("train", "fit_demo")
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def fork(both: bool, folder: Path) -> None:
    """One process, or two as torchrun starts them."""
    words = (PROCESS, "settings.json")
    processes = commands.start_ranks(2, *words, cwd=folder) if both else [commands.start(*words, cwd=folder)]
    for process in processes:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out[-2000:] + err[-4000:]


def torchrun(both: bool, folder: Path) -> None:
    """Two true starts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(PROCESS.parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, *LAUNCH, str(PROCESS), "settings.json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert both and done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def start(
    bundle: Path, folder: Path, names: tuple[str, ...], options: dict[str, Any], launch=fork, **settings: Any
) -> None:
    """One process, or two where multi_gpu_train is among the names, to their end."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {"bundle_root": str(bundle), "output_dir": str(folder / "run"), "ckpt_path": str(folder / "run/model.pt")}
    configs = [str(bundle / f"configs/{name}.json") for name in names]
    options = {**places, **({} if "multi_gpu_train" in names else {"device": "cpu"}), **options}
    (folder / "settings.json").write_text(json.dumps({"configs": configs, "options": options, **settings}))
    launch("multi_gpu_train" in names, folder)


def save_items(bundle: Path, folder: Path, options: dict[str, Any], count: int) -> dict[str, Any]:
    """The first patches of a training, transformed once, so that all runs see the same; options that put them in."""
    places = {"bundle_root": str(bundle), "dataset_dir": str(folder / "data"), "output_dir": str(folder / "run")}
    files = [str(bundle / f"configs/{name}.json") for name in BASES]
    parser = ConfigParser(ConfigParser.load_config_files(files))
    parser.update({**places, "device": "cpu", **options})
    items: list[dict[str, Any]] = []
    for item in parser.get_parsed_content("train::dataset"):
        items += item if isinstance(item, list) else [item]
    kept = [
        {key: convert_to_tensor(item[key], track_meta=False).clone() for key in ("image", "label")}
        for item in items[:count]
    ]
    assert len(kept) == count
    torch.save(kept, folder / "items.pt")
    data = f"$torch.load('{folder / 'items.pt'}')"
    changed: dict[str, Any] = {"train::dataset": {"_target_": "Dataset", "data": data}}
    if "batch" in parser["loss"]:
        changed["loss::batch"] = False
    return {**options, "dataset_dir": str(folder / "data"), **changed}


@pytest.mark.slow
def test_first_gradients_are_those_of_one_process(bundle, small, tmp_path):
    """Where each image counts by itself: batch norm and dropout off, Dice by image."""
    make_dataset(bundle.name, tmp_path / "data", training=4, validation=2, test=0, size=small.size)
    options = save_items(bundle, tmp_path, small.train, count=4)
    alone = {"train::dataloader::sampler": None, "train::dataloader::shuffle": False}
    gradients = {}
    for name, names, own in (
        ("serial", BASES, {**alone, "batch_size": 4}),
        ("both", (*BASES, "multi_gpu_train"), {"batch_size": 2}),
        ("half", BASES, {**alone, "batch_size": 2}),
    ):
        file = tmp_path / f"{name}.pt"
        start(bundle, tmp_path / name, names, {**options, **own}, gradients=str(file))
        gradients[name] = torch.load(file, weights_only=True)
    serial, both, half = gradients["serial"], gradients["both"], gradients["half"]
    assert serial.keys() == both.keys() and len(serial) > 10
    scale = max(float(value.abs().max()) for value in serial.values())
    assert scale > 0
    for name, value in serial.items():
        torch.testing.assert_close(both[name], value, rtol=1e-3, atol=1e-5 * scale, msg=name)
    # a gradient of only one process's images would be noticed
    assert max(float((half[name] - value).abs().max()) for name, value in serial.items()) > 1e-3 * scale


def evaluate(bundle: Path, folder: Path, options: dict[str, Any]) -> dict[str, float]:
    """Scores of folder/run/model.pt on the validation images, by one process."""
    workflow = ConfigWorkflow(
        config_file=[str(bundle / f"configs/{name}.json") for name in (*BASES, "evaluate")],
        logging_file=False,
        **{"bundle_root": str(bundle), "device": "cpu", "section": "validation"},
        **{**options, "output_dir": str(folder / "eval"), "ckpt_path": str(folder / "run/model.pt")},
    )
    workflow.initialize()
    workflow.run()
    return json.loads((folder / "eval/metrics.json").read_text())["metrics"]


def assert_saved_once(writes: Path) -> None:
    """In a training of two epochs with a validation each, before and after which the state is saved."""
    assert [path.name for path in writes.iterdir()] == ["0.txt"]  # the second process writes nothing
    counts = Counter((writes / "0.txt").read_text().split())
    assert counts["state.pt"] == 4 and counts["history.json"] == 2 and 1 <= counts["model.pt"] <= 2


def test_one_bundle_in_two_processes(tmp_path):
    """What the slow tests ask of every bundle, in brief."""
    bundle, writes = PROCESS.parents[2] / "bundles/nuclei_microscopy_segmentation", tmp_path / "writes"
    make_dataset(bundle.name, tmp_path / "data", training=4, validation=3, test=0, size=64)
    writes.mkdir()
    options = {"dataset_dir": str(tmp_path / "data"), "max_epochs": 2, "val_interval": 1}
    start(bundle, tmp_path, (*BASES, "multi_gpu_train"), options, writes=str(writes), launch=torchrun)
    assert_saved_once(writes)
    state = torch.load(tmp_path / "run/state.pt", weights_only=True)
    scores = evaluate(bundle, tmp_path, options)
    assert scores["val_pixel_f1"] == pytest.approx(
        max(value for _, value in state["history"]["metrics"]["val_pixel_f1"])
    )


@pytest.mark.slow
def test_two_processes_train_one_network_save_once_and_resume(bundle, small, tmp_path):
    make_dataset(bundle.name, tmp_path / "data", training=4, validation=3, test=0, size=small.size)
    options = {"dataset_dir": str(tmp_path / "data"), **small.train, "max_epochs": 2, "val_interval": 1}
    names = (*BASES, "multi_gpu_train")
    whole, halves, writes = tmp_path / "whole", tmp_path / "halves", tmp_path / "writes"
    writes.mkdir()
    start(bundle, whole, names, options, writes=str(writes))
    start(bundle, halves, names, options, stop_at_epoch=2)
    start(bundle, halves, names, {**options, "resume": True})

    assert_saved_once(writes)
    states = [torch.load(folder / "run/state.pt", weights_only=True) for folder in (whole, halves)]
    # four images, two a process
    per_image = json.loads((bundle / "configs/train.json").read_text())["batch_size"]
    assert states[0]["epoch"] == 2 and states[0]["iteration"] == 2 * ceil(2 / per_image)
    for name, value in states[0]["network"].items():
        assert not name.startswith("module.") and torch.equal(value, states[1]["network"][name]), name
    assert states[0]["history"] == states[1]["history"]

    history = states[0]["history"]["metrics"]
    best = torch.load(whole / "run/model.pt", weights_only=True)
    last = all(torch.equal(best[name], value) for name, value in states[0]["network"].items())
    scores = evaluate(bundle, whole, {key: value for key, value in options.items() if key != "val_interval"})
    for name, values in history.items():
        assert scores[name] == pytest.approx(values[-1 if last else 0][1], rel=1e-5, abs=1e-6, nan_ok=True), name
