"""A run's options: which of them stop it before the work, and with which words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundlekit.inputs.checks import RunChecks
from bundlekit.training.lock import LOCK_NAME
from tests.commands import start_ranks


def test_the_folder_of_new_weights_is_tried_before_the_training(stop, tmp_path):
    (tmp_path / "file").write_text("")
    [error] = stop(lambda: RunChecks(2, 1, save_path=tmp_path / "file/model.pt").start(["item"]))
    assert error.startswith(f"error: {tmp_path}/file: ") and error.endswith("pass another --ckpt_path")
    RunChecks(2, 1, save_path=tmp_path / "new/model.pt").start(["item"])
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize("save_path", ["models", "", 5])
def test_new_weights_in_place_of_a_folder(stop, tmp_path, monkeypatch, save_path):
    monkeypatch.chdir(tmp_path)
    for name in ("models", "5"):
        (tmp_path / name).mkdir()
    assert stop(lambda: RunChecks(2, 1, save_path=save_path).start(["item"])) == [
        f"error: {save_path}: is a folder; expected a file for the weights; pass a file with --ckpt_path"
    ]


def test_a_training_takes_its_folder_and_gives_it_back(stop, tmp_path, capsys):
    files = {"output_dir": tmp_path, "save_path": tmp_path / "model.pt"}
    checks = RunChecks(2, 1, **files)
    checks.start(["item"])
    assert capsys.readouterr().err == f"note: the best weights are written to {tmp_path}/model.pt\n"
    assert (tmp_path / LOCK_NAME).exists()
    checks.finish()
    assert not list(tmp_path.iterdir())
    (tmp_path / "state.pt").touch()
    [line] = stop(lambda: RunChecks(2, 1, **files).start(["item"]))
    assert line.startswith(f"error: {tmp_path}: holds state.pt of an earlier training; expected a folder without one;")
    resumed = RunChecks(2, 1, **files, resume="True")
    resumed.start(["item"])
    assert (tmp_path / "state.pt").exists()
    RunChecks(2, 1, **files, overwrite="true").start(["item"])
    assert not (tmp_path / "state.pt").exists()
    resumed.finish()


def test_a_training_that_cannot_work_leaves_its_folder_alone(stop, tmp_path):
    (tmp_path / "state.pt").touch()
    files = {"output_dir": tmp_path, "save_path": tmp_path / "model.pt"}
    options = {"max_epochs": {"value": 0, "integer_from": 1}}
    stop(lambda: RunChecks(2, 1, **files, options=options, overwrite=True).start(["item"]))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_the_options_that_a_resumed_training_must_share():
    options = {
        "max_epochs": {"value": 3, "integer_from": 1},
        "learning_rate": {"value": 0.1, "above": 0},
        "amp": {"value": "True", "switch": True},
        "resume": {"value": "true", "switch": True},
        "num_workers": {"value": 4, "integer_from": 0},
    }
    assert RunChecks(2, 1, options=options).settings == {"learning_rate": 0.1, "amp": True}


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (f"cuda:{torch.cuda.device_count()}", ""),  # one more than there are
        ("cud", "RuntimeError: Expected one of cpu, cuda,"),
        ("", "RuntimeError: Device string must not be empty"),
        ("meta", "NotImplementedError: Cannot copy out of meta tensor"),
        (1.5, "TypeError: "),
    ],
)
def test_a_device_that_torch_cannot_use(stop, device, reason):
    [line] = stop(lambda: RunChecks(2, 1, device=device).start(["item"]))
    assert line.startswith(f"error: device {device}: cannot be used by torch on this machine ({reason}")
    assert line.endswith("; expected an available device, such as cpu; pass --device cpu")


def test_the_device_of_volumes_is_tried_too(stop):
    [line] = stop(lambda: RunChecks(2, 1, device="cpu", volume_device="cuda:99").start(["item"]))
    assert line.startswith("error: volume_device cuda:99: cannot be used by torch on this machine (")
    assert line.endswith("; expected an available device, such as cpu; pass --volume_device cpu")


def test_wrong_options_stop_the_run_together(stop):
    options = {
        "max_epochs": {"value": 0, "integer_from": 1},
        "batch_size": {"value": 1, "integer_from": 1},
        "seed": {"value": "abc", "seed": True},
        "patch_size": {"value": [9, 8], "multiple_of": [8, 8]},
    }
    assert stop(lambda: RunChecks(2, 1, options=options).start(["item"])) == [
        "error: max_epochs: is 0; expected a positive integer; pass another --max_epochs",
        "error: seed: is 'abc'; expected an integer from 0 to 4294967295; pass another --seed",
        'error: patch_size: is [9, 8]; expected 2 positive multiples of 8; pass --patch_size "[16,8]"',
    ]


def test_a_device_and_options_that_are_right(capsys):
    for device, max_epochs in (("cpu", 1), (torch.device("cpu"), np.int64(180))):
        options = {"max_epochs": {"value": max_epochs, "integer_from": 1}}
        RunChecks(2, 1, device=device, options=options).start(["item"])
    assert capsys.readouterr().err == ""


def test_paths_that_are_numbers(stop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checks = RunChecks(2, 1, ckpt_path=5, output_dir=77, save_path=6, resume=True)
    lines = stop(lambda: checks.start(["item"]))
    reason = "cannot be opened (No such file or directory)"
    assert [line.split("; ")[0] for line in lines] == [f"error: 5: {reason}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["77"]


def test_lists_shorter_than_there_are_processes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import torch.distributed as dist\n"
        "from bundlekit.inputs.checks import RunChecks\n"
        "dist.init_process_group('gloo')\n"
        "RunChecks(2, 1).start([1, 2], [3, 4, 5])\n"
        "print('enough for two')\n"
        "RunChecks(2, 1).start([1, 2], [3])\n"
        "print('enough for one')\n"
    )
    ranks = start_ranks(2, program)
    outputs = [rank.communicate(timeout=300) for rank in ranks]
    assert all(rank.returncode != 0 for rank in ranks)
    assert all("enough for two" in out and "enough for one" not in out for out, _ in outputs)
    assert (
        "error: data list 2 of 2: has 1 entries; expected at least 2, one for each process; start fewer processes, or "
        "add images to the list" in outputs[0][1]
    )
