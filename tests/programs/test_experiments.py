"""Series of runs: finished runs are not repeated, stopped ones continue, records and failures are reported."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from studies.experiments import read_scores, train, write_scores
from tools.commands import call, run_bundle


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle whose training writes a line to OUTPUT/log, and its state."""
    config = {
        "imports": ["$from pathlib import Path"],
        "output_dir": "none",
        "ckpt_path": "none",
        "resume": False,
        "seed": 0,
        "line": "$' '.join([str(@resume), str(@seed), @ckpt_path])",
        "run": [
            "$Path(@output_dir).mkdir(exist_ok=True)",
            "$(Path(@output_dir) / 'state.pt').touch()",
            "$print(@line, file=open(Path(@output_dir) / 'log', 'a'))",
            "$1 / @seed",
        ],
    }
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/train.json").write_text(json.dumps(config))
    (tmp_path / "configs/data_other.json").write_text(json.dumps({"line": "$'other ' + str(@seed)"}))
    return tmp_path


def test_a_training_that_was_stopped_goes_on_and_a_finished_one_is_left(bundle):
    run = bundle / "run"
    with pytest.raises(SystemExit, match="failed with exit code 1; correct"):
        train(bundle, [], run, seed=0)  # divides by 0 after it has written its state
    for _ in range(2):
        train(bundle, [], run, seed=7)
    assert (run / "log").read_text().splitlines() == [f"true 0 {run}/model.pt", f"true 7 {run}/model.pt"]


def test_another_complete_config_is_trained(bundle):
    config = json.loads((bundle / "configs/train.json").read_text())
    (bundle / "configs/pretrain.json").write_text(json.dumps({**config, "line": "$'first ' + str(@seed)"}))
    train(bundle, [], bundle / "run", base="pretrain", seed=4)
    assert (bundle / "run/log").read_text() == "first 4\n"


def test_overlays_go_over_the_config(bundle, capfd):
    run_bundle(bundle, ["train", "data_other"], output_dir=bundle, seed=3)
    assert (bundle / "log").read_text() == "other 3\n"
    shown = (
        "python -m monai.bundle run --config_file \"['configs/train.json', 'configs/data_other.json']\" --output_dir"
    )
    assert f"$ cd {os.path.relpath(bundle)} && {shown}" in capfd.readouterr().out


def test_commands_run_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.commands.subprocess", subprocess)  # a true start
    call(tmp_path, "-c", "open('made', 'w')")
    assert (tmp_path / "made").exists()


def test_a_record_of_other_columns_is_refused(tmp_path):
    write_scores(tmp_path / "scores.csv", [{"network": "fully", "fold": "0"}])
    with pytest.raises(SystemExit, match=r"scores.csv: has columns network, fold; expected fold, dice: pass another"):
        read_scores(tmp_path / "scores.csv", ["fold", "dice"])
