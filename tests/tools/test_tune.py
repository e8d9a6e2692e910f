"""The search: two processes on one study, taken up after a kill, and what a trial and the best overlay hold."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from bundlekit.phantoms import make_dataset

optuna = pytest.importorskip("optuna")

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "tools/tune.py"
SPEC = importlib.util.spec_from_file_location("tune", PATH)
tune = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tune)
TINY = {"network_def::width": 1 / 16, "patch_size": [64, 64], "crop_size": [64, 64], "device": "cpu", "amp": False}
PARAMETERS = {
    "learning_rate": 0.02,
    "batch_size": 8,
    "batch_norm": False,
    "schedule": "cyclic",
    "loss": "dice",
}


def start(data: Path, output: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, str(PATH), "--dataset_dir", str(data), "--output", str(output)]
    command += ["--overlay", str(output / "fit_tuned.json"), "--options", json.dumps(TINY), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out[-1000:] + err[-3000:]
    return out


def study(output: Path) -> optuna.Study:
    return optuna.load_study(study_name="nuclei", storage=f"sqlite:///{output / 'study.db'}")


def test_a_trial_is_an_overlay_that_the_parser_takes():
    overlay = tune.suggest(optuna.trial.FixedTrial(PARAMETERS))
    assert overlay["lr_scheduler"] == tune.load("fit_cyclic")["lr_scheduler"]
    assert overlay["loss"] == tune.load("loss_dice")["loss"]
    parser = ConfigParser(tune.load("train"))
    parser.update({**overlay, "device": "cpu", "amp": False})
    network, scheduler = (parser.get_parsed_content(name) for name in ("network_def", "lr_scheduler"))
    assert not network.batch_norm and scheduler.max_lrs == [0.02]
    assert parser["train::dataloader::batch_size"] == "@batch_size" and parser["batch_size"] == 8


def test_a_training_that_falls_behind_is_pruned():
    class Behind(optuna.trial.FixedTrial):
        def should_prune(self) -> bool:
            return True

    trainer = type("Trainer", (), {"state": type("State", (), {"epoch": 2})})
    state = type("State", (), {"metrics": {"f1": 0.4}, "key_metric_name": "f1"})
    evaluator = type("Evaluator", (), {"state": state})
    reporter = tune.Reporter(optuna.trial.FixedTrial({}), trainer)
    reporter(evaluator)
    assert reporter.best == 0.4
    with pytest.raises(optuna.TrialPruned):
        tune.Reporter(Behind({}), trainer)(evaluator)


@pytest.mark.slow
def test_two_processes_share_a_study_that_goes_on_after_a_kill(tmp_path):
    data, output = tmp_path / "data", tmp_path / "out"
    make_dataset("nuclei_microscopy_segmentation", data, training=4, validation=1, test=0, size=64)
    options = ("--max_epochs", "2", "--val_interval", "1")
    first = start(data, output, "--num_trials", "50", *options)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not list(output.glob("trial_0001/history.json")):
        assert first.poll() is None, finish(first)
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    finished = [trial for trial in study(output).trials if trial.state in tune.FINISHED]
    assert 1 <= len(finished) < 50

    wanted = len(finished) + 4
    both = [start(data, output, "--num_trials", str(wanted), *options) for _ in range(2)]
    assert all("fit_tuned.json: pixel F1" in finish(process) for process in both)
    trials = study(output).trials
    done = [trial for trial in trials if trial.state in tune.FINISHED]
    assert wanted <= len(done) <= wanted + 1  # a trial may be under way when the other process ends the last one
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.number for trial in finished} <= {trial.number for trial in done}  # kept from before the kill

    best = study(output).best_trial
    overlay = json.loads((output / "fit_tuned.json").read_text())
    assert overlay["learning_rate"] == best.params["learning_rate"]
    assert overlay["network_def::batch_norm"] == best.params["batch_norm"]
    assert f"{best.value:.4f}" in overlay["_desc_"]
    history = json.loads((output / f"trial_{best.number:04d}/history.json").read_text())
    assert best.value == pytest.approx(max(score for _, score in history["metrics"]["val_pixel_f1"]))
    assert (output / "history.png").stat().st_size > 0
