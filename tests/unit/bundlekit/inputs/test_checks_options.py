"""A run's options: which of them stop it before the work, and with which words."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from bundlekit.inputs.checks import RunChecks


def test_the_folder_of_new_weights_is_tried_before_the_training(stop, tmp_path):
    (tmp_path / "file").write_text("")
    checks = RunChecks(2, 1)
    [error] = stop(lambda: checks.start([["item"]], save_path=tmp_path / "file/model.pt"))
    assert error.startswith(f"error: {tmp_path}/file: ") and error.endswith("pass another --ckpt_path")
    checks.start([["item"]], save_path=tmp_path / "new/model.pt")
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize("save_path", ["models", "", 5])
def test_new_weights_in_place_of_a_folder(stop, tmp_path, monkeypatch, save_path):
    monkeypatch.chdir(tmp_path)
    for name in ("models", "5"):
        (tmp_path / name).mkdir()
    assert stop(lambda: RunChecks(2, 1).start([["item"]], save_path=save_path)) == [
        f"error: {save_path}: is a folder; expected a file for the weights; pass a file with --ckpt_path"
    ]


def test_a_run_to_continue(stop, tmp_path):
    checks = RunChecks(2, 1)
    for path, reason in ((tmp_path / "state.pt", "No such file or directory"), (tmp_path, "Is a directory")):
        assert stop(lambda path=path: checks.start([["item"]], resume_path=path)) == [
            f"error: {path}: cannot be opened ({reason}); expected a file; "
            "start without --resume true, or pass the old --output_dir"
        ]
    (tmp_path / "state.pt").write_text("state")
    checks.start([["item"]], resume_path=tmp_path / "state.pt")


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
    [line] = stop(lambda: RunChecks(2, 1).start([["item"]], device=device))
    assert line.startswith(f"error: device {device}: cannot be used by torch on this machine ({reason}")
    assert line.endswith("; expected a device that it has, such as cpu; pass --device cpu")


def test_the_device_of_volumes_is_tried_too(stop):
    [line] = stop(lambda: RunChecks(2, 1).start([["item"]], device="cpu", volume_device="cuda:99"))
    assert line.startswith("error: volume_device cuda:99: cannot be used by torch on this machine (")
    assert line.endswith("; expected a device that it has, such as cpu; pass --volume_device cpu")


@pytest.mark.parametrize("max_epochs", [0, -1, 1.5, 2.0, True, "10", [1]])
def test_a_number_of_epochs_that_is_none(stop, max_epochs):
    assert stop(lambda: RunChecks(2, 1).start([["item"]], counts={"max_epochs": max_epochs})) == [
        f"error: max_epochs: is {max_epochs!r}; expected a whole number from 1 up; pass one with --max_epochs"
    ]


def test_a_device_and_a_number_of_epochs_that_are_right(capsys):
    for device, max_epochs in (("cpu", 1), (torch.device("cpu"), np.int64(180))):
        RunChecks(2, 1).start([["item"]], device=device, counts={"max_epochs": max_epochs})
    assert capsys.readouterr().err == ""


def test_paths_that_are_numbers(stop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = {"ckpt_path": 5, "output_dir": 77, "save_path": 6, "resume_path": 7}
    lines = stop(lambda: RunChecks(2, 1).start([["item"]], **paths))
    reason = "cannot be opened (No such file or directory)"
    assert [line.split("; ")[0] for line in lines] == [f"error: 5: {reason}", f"error: 7: {reason}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["77"]


@pytest.mark.parametrize("value", ["abc", -1, 2**32, 0.5, True, None])
def test_a_seed_that_is_none_is_told_at_the_start(stop, value):
    checks = RunChecks(2, 1)
    assert checks.seed(value) == 0
    assert stop(lambda: checks.start([["item"]])) == [
        f"error: seed: is {value!r}; expected a whole number from 0 to 4294967295; pass one with --seed"
    ]


def test_a_seed_is_returned():
    checks = RunChecks(2, 1)
    assert [checks.seed(value) for value in (0, 7, np.int64(2**32 - 1))] == [0, 7, 2**32 - 1]
    checks.start([["item"]])


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "2", None])
def test_an_option_that_is_no_positive_number_is_named(stop, value):
    assert stop(lambda: RunChecks(2, 1).start([["item"]], positive={"zoom": 1.5, "spacing": value})) == [
        f"error: spacing: is {value!r}; expected a number above 0; pass one with --spacing"
    ]


def test_all_options_that_are_wrong_are_named_at_once(stop):
    lines = stop(
        lambda: RunChecks(2, 1).start([["item"]], counts={"a": 0, "b": 1, "c": -1}, multiples={"d": ([9, 8], [8, 8])})
    )
    assert [line.split(":")[1] for line in lines] == [" a", " c", " d"]


def test_positive_options_pass():
    RunChecks(2, 1).start([["item"]], positive={"zoom": 1, "spacing": np.float32(0.5)})


def test_lists_shorter_than_there_are_processes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import torch.distributed as dist\n"
        "from bundlekit.inputs.checks import RunChecks\n"
        "dist.init_process_group('gloo')\n"
        "RunChecks(2, 1).start(data=[[1, 2], [3, 4, 5]])\n"
        "print('enough for two')\n"
        "RunChecks(2, 1).start(data=[[1, 2], [3]])\n"
        "print('enough for one')\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode != 0
    assert "enough for two" in result.stdout and "enough for one" not in result.stdout
    assert (
        "error: data list 2 of 2: has 1 entries; expected 2 at least, one for each process; start fewer processes, or "
        "add images to the list" in result.stderr
    )
