"""A run's checks in a config that MONAI's command line runs: what is done, what is said, and the exit code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests import commands

pytestmark = pytest.mark.xdist_group("checks on the command line")  # one worker makes what the tests share

CONFIG = {
    "dataset_dir": "data",
    "output_dir": "out",
    "ckpt_path": None,
    "network": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3},
    "checks": {
        "_target_": "bundlekit.inputs.checks.RunChecks",
        "spatial_dims": 2,
        "channels": 1,
        "label_values": [0, 1],
        "ckpt_path": "@ckpt_path",
        "output_dir": "@output_dir",
    },
    "data": "$@checks.section(@dataset_dir, 'training')",
    "run": [
        "$@checks.start(@data, network=@network)",
        "$print(len(@data), 'items', file=open('work.txt', 'w'))",
        "$@checks.finish()",
    ],
}


def run_bundle(folder: Path, **overrides: str) -> subprocess.CompletedProcess:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    options = [f"--{key}={value}" for key, value in overrides.items()]
    files = ["--config_file", "config.json", "--meta_file", "metadata.json"]
    return commands.run("-m", "monai.bundle", "run", *files, *options, cwd=folder)


@pytest.fixture(scope="module")
def runs(make_pairs, tmp_path_factory) -> dict[str, tuple[Path, subprocess.CompletedProcess]]:
    """Three runs through MONAI's command line."""
    wrong = {"dataset_dir": "gone", "output_dir": "file/out", "ckpt_path": "model.pt"}
    folders = {name: tmp_path_factory.mktemp(name) for name in ("wrong", "mixed", "good")}
    (folders["wrong"] / "file").touch()
    make_pairs(folders["mixed"] / "data", "bad.png")
    make_pairs(folders["good"] / "data")
    return {
        name: (folder, run_bundle(folder, **(wrong if name == "wrong" else {}))) for name, folder in folders.items()
    }


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
