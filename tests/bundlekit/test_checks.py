"""A run's checks as a config makes them: what is kept, what is said on stderr, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from bundlekit.checks import RunChecks

RULES = {"spatial_dims": 2, "channels": 1, "label_values": [0, 1]}


def make_dataset(folder: Path, *bad: str, good: int = 2) -> Path:
    """A list "training" with ``good`` pairs and, for each name in ``bad``, a pair whose image is cut in half."""
    names = [f"good{i}.png" for i in range(good)] + list(bad)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
        for name in names:
            Image.fromarray(np.eye(32, dtype=np.uint8)).save(folder / kind / name)
    for name in bad:
        path = folder / "images" / name
        path.write_bytes(path.read_bytes()[:40])
    items = [{"image": f"images/{name}", "label": f"labels/{name}"} for name in names]
    (folder / "dataset.json").write_text(json.dumps({"training": items}))
    return folder


def stop(call, capsys) -> list[str]:
    """The lines on stderr of a call that ends the process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        call()
    assert caught.value.code == 1
    return capsys.readouterr().err.splitlines()


def test_all_good_says_nothing(tmp_path, capsys):
    checks = RunChecks(**RULES)
    items = checks.section(make_dataset(tmp_path / "data"), "training")
    assert items == [{key: f"{tmp_path}/data/{key}s/good{i}.png" for key in ("image", "label")} for i in range(2)]
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "model.pt")
    checks.start([items], tmp_path / "model.pt", torch.nn.Linear(2, 3), tmp_path / "out")
    checks.finish()
    assert (tmp_path / "out").is_dir()
    assert capsys.readouterr().err == ""


def test_bad_files_are_left_out_and_named_twice(tmp_path, capsys):
    checks = RunChecks(**RULES)
    items = checks.section(make_dataset(tmp_path, "bad.png"), "training")
    assert [Path(item["image"]).name for item in items] == ["good0.png", "good1.png"]
    assert checks.section(tmp_path, "training") == items
    checks.start([items])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"left out: {tmp_path}/images/bad.png: cannot be read as an image (truncated or not an image"
    )
    assert stop(checks.finish, capsys) == [line]


def test_labels_are_checked_for_training_only(tmp_path, capsys):
    folder = make_dataset(tmp_path)
    label = f"{tmp_path}/labels/good1.png"
    Image.fromarray(255 * np.eye(32, dtype=np.uint8)).save(label)
    checks = RunChecks(**RULES)
    assert [Path(item["image"]).name for item in checks.images(folder)] == ["good0.png", "good1.png"]
    assert [Path(item["image"]).name for item in checks.section(folder, "training")] == ["good0.png"]
    [line] = stop(checks.finish, capsys)
    assert line.startswith(
        f"left out: {label}: holds other labels: 255 (32x); 32 of 1024 values, first at index (0, 0); "
    )


def test_nothing_usable_is_an_error(tmp_path, capsys):
    checks = RunChecks(**RULES)
    items = checks.section(make_dataset(tmp_path, "a.png", "b.png", good=0), "training")
    assert items == []
    first, second, error = stop(lambda: checks.start([items]), capsys)
    assert first.startswith(f"left out: {tmp_path}/images/a.png: ")
    assert second.startswith(f"left out: {tmp_path}/images/b.png: ")
    assert error == (
        f"error: {tmp_path}/dataset.json, list 'training': none of 2 can be used; expected at least one; "
        "correct the files that were left out"
    )


def test_all_errors_come_at_once_and_each_one_once(tmp_path, capsys):
    checks = RunChecks(**RULES)
    lists = [checks.section(tmp_path / "gone", name) for name in ("training", "validation")]
    (tmp_path / "file").touch()
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "model.pt")
    network = torch.nn.Linear(2, 4)
    lines = stop(lambda: checks.start(lists, tmp_path / "model.pt", network, tmp_path / "file" / "out"), capsys)
    assert [line.split("; ")[0] for line in lines] == [
        f"error: {tmp_path}/gone: is not a folder",
        f"error: {tmp_path}/file/out: cannot be created or written (Not a directory)",
        f"error: {tmp_path}/model.pt: tensors do not match: 2 of other shape "
        "(first weight: (3, 2) in the file, (4, 2) in the network)",
    ]


def test_lists_from_elsewhere(tmp_path, capsys):
    checks = RunChecks(**RULES)
    checks.start([[{"image": "anything"}]])
    checks.finish()
    assert capsys.readouterr().err == ""
    assert stop(lambda: checks.start([[{"image": "anything"}], []]), capsys) == [
        "error: data list 2 of 2: is empty; expected at least one entry; "
        "correct --dataset_dir or the list that was passed"
    ]


def test_the_folder_of_new_weights_is_tried_before_the_training(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    checks = RunChecks(**RULES)
    [error] = stop(lambda: checks.start([["item"]], save_path=tmp_path / "file/model.pt"), capsys)
    assert error.startswith(f"error: {tmp_path}/file: ") and error.endswith("pass another --ckpt_path")
    checks.start([["item"]], save_path=tmp_path / "new/model.pt")
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize("save_path", ["models", "", 5])
def test_new_weights_in_place_of_a_folder(tmp_path, monkeypatch, capsys, save_path):
    monkeypatch.chdir(tmp_path)
    for name in ("models", "5"):
        (tmp_path / name).mkdir()
    assert stop(lambda: RunChecks(**RULES).start([["item"]], save_path=save_path), capsys) == [
        f"error: {save_path}: is a folder; expected a file for the weights; pass a file with --ckpt_path"
    ]


def test_a_run_to_continue(tmp_path, capsys):
    checks = RunChecks(**RULES)
    for path, reason in ((tmp_path / "state.pt", "No such file or directory"), (tmp_path, "Is a directory")):
        assert stop(lambda path=path: checks.start([["item"]], resume_path=path), capsys) == [
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
def test_a_device_that_torch_cannot_use(capsys, device, reason):
    [line] = stop(lambda: RunChecks(**RULES).start([["item"]], device=device), capsys)
    assert line.startswith(f"error: device {device}: cannot be used by torch on this machine ({reason}")
    assert line.endswith("; expected a device that it has, such as cpu; pass --device cpu")


@pytest.mark.parametrize("max_epochs", [0, -1, 1.5, 2.0, True, "10", [1]])
def test_a_number_of_epochs_that_is_none(capsys, max_epochs):
    assert stop(lambda: RunChecks(**RULES).start([["item"]], max_epochs=max_epochs), capsys) == [
        f"error: max_epochs: is {max_epochs!r}; expected a whole number from 1 up; pass one with --max_epochs"
    ]


def test_a_device_and_a_number_of_epochs_that_are_right(capsys):
    for device, max_epochs in (("cpu", 1), (torch.device("cpu"), np.int64(180))):
        RunChecks(**RULES).start([["item"]], device=device, max_epochs=max_epochs)
    assert capsys.readouterr().err == ""


def test_paths_that_are_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paths = {"ckpt_path": 5, "output_dir": 77, "save_path": 6, "resume_path": 7}
    lines = stop(lambda: RunChecks(**RULES).start([["item"]], **paths), capsys)
    reason = "cannot be opened (No such file or directory)"
    assert [line.split("; ")[0] for line in lines] == [f"error: 5: {reason}", f"error: 7: {reason}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["77"]


def test_segmentations_go_to_another_folder_than_the_images(tmp_path, capsys):
    checks = RunChecks(**RULES)
    folder = make_dataset(tmp_path) / "images"
    items, pairs = checks.images(folder), checks.section(tmp_path, "training")
    assert stop(lambda: checks.start([pairs, items], output_dir=folder), capsys) == [
        f"error: {folder}: is both input and output folder (it holds {folder}/good0.png); expected another folder; "
        "pass another --output_dir"
    ]
    checks.start([pairs], output_dir=folder)
    checks.start([items], output_dir=folder / "out")


def test_inputs_of_inference(tmp_path, capsys):
    checks = RunChecks(**RULES)
    for name in ("b.png", "a.bmp"):
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "c.png").mkdir()
    (tmp_path / "d.tif").write_text("text")
    items = checks.images(tmp_path)
    assert items == [{"image": f"{tmp_path}/a.bmp"}, {"image": f"{tmp_path}/b.png"}]
    folder, text = stop(checks.finish, capsys)
    assert folder.startswith(f"left out: {tmp_path}/c.png: cannot be opened (Is a directory)")
    assert text.startswith(f"left out: {tmp_path}/d.tif: cannot be read as an image")


def test_inputs_with_one_output_name(tmp_path, capsys):
    for name in ("a.bmp", "a.png"):
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "a.tif").write_text("left out, so that it replaces nothing")
    checks = RunChecks(**RULES)
    items = checks.images(tmp_path)
    *_, error = stop(lambda: checks.start([items]), capsys)
    assert error.startswith(f"error: {tmp_path}/a.png: has the same output name as {tmp_path}/a.bmp; ")
    assert "a.tif" not in error


@pytest.mark.parametrize(("num_images", "bar"), [(50, False), (51, True)])
def test_a_progress_bar_for_long_lists_only(tmp_path, capsys, num_images, bar):
    for i in range(num_images):
        Image.new("L", (2, 2)).save(tmp_path / f"{i}.png")
    assert len(RunChecks(**RULES).images(tmp_path)) == num_images
    assert (f"checking {tmp_path}: 100%" in capsys.readouterr().err) is bar


@pytest.mark.parametrize("dataset_dir", ["", "/nowhere", 2012, None, "nul\0"])
def test_a_config_can_be_read_without_its_data(dataset_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    parser = ConfigParser(
        {
            "dataset_dir": dataset_dir,
            "checks": {"_target_": "bundlekit.checks.RunChecks", **RULES},
            "training": "$@checks.section(@dataset_dir, 'training')",
            "inputs": "$@checks.images(@dataset_dir)",
        }
    )
    assert parser.get_parsed_content("training") == parser.get_parsed_content("inputs") == []
    lines = stop(lambda: parser.get_parsed_content("checks").start([[], []]), capsys)
    assert lines and all(line.startswith("error: ") for line in lines)


CONFIG = {
    "dataset_dir": "data",
    "output_dir": "out",
    "ckpt_path": None,
    "network": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3},
    "checks": {"_target_": "bundlekit.checks.RunChecks", **RULES},
    "data": "$@checks.section(@dataset_dir, 'training')",
    "run": [
        "$@checks.start([@data], @ckpt_path, @network, @output_dir)",
        "$print(len(@data), 'items', file=open('work.txt', 'w'))",
        "$@checks.finish()",
    ],
}


def run_bundle(folder: Path, **overrides: str) -> subprocess.CompletedProcess:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    options = [f"--{key}={value}" for key, value in overrides.items()]
    files = ["--config_file", "config.json", "--meta_file", "metadata.json"]
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *files, *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, tuple[Path, subprocess.CompletedProcess]]:
    """Three runs through MONAI's command line, side by side as each spends seconds on imports."""
    wrong = {"dataset_dir": "gone", "output_dir": "file/out", "ckpt_path": "model.pt"}
    folders = {name: tmp_path_factory.mktemp(name) for name in ("wrong", "mixed", "good")}
    (folders["wrong"] / "file").touch()
    make_dataset(folders["mixed"] / "data", "bad.png")
    make_dataset(folders["good"] / "data")
    with ThreadPoolExecutor() as pool:
        started = {
            name: pool.submit(run_bundle, folder, **(wrong if name == "wrong" else {}))
            for name, folder in folders.items()
        }
        return {name: (folders[name], run.result()) for name, run in started.items()}


def test_the_command_line_stops_before_the_work(runs):
    folder, result = runs["wrong"]
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1
    assert [line.split("; ")[0] for line in lines] == [
        "error: gone: is not a folder",
        "error: file/out: cannot be created or written (Not a directory)",
        "error: model.pt: cannot be opened (No such file or directory)",
    ]
    assert "Traceback" not in result.stdout + result.stderr
    assert not (folder / "work.txt").exists()


@pytest.mark.parametrize(("name", "num_bad"), [("mixed", 1), ("good", 0)])
def test_the_command_line_does_the_work_with_what_is_left(runs, name, num_bad):
    folder, result = runs[name]
    left_out = [line for line in result.stderr.splitlines() if line.startswith("left out: data/images/bad.png: ")]
    assert len(left_out) == 2 * num_bad
    assert result.returncode == num_bad
    assert "Traceback" not in result.stdout + result.stderr
    assert (folder / "work.txt").read_text() == "2 items\n"
