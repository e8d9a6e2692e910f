"""The search: shared by processes, taken up after a kill, pruned, and what a trial and the best overlay hold."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from bundlekit.phantoms import make_dataset
from tests import commands

optuna = pytest.importorskip("optuna")
tune_trial = pytest.importorskip("studies.tune_trial")

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "studies/tune.py"
CONFIG = ROOT / "bundles/nuclei_microscopy_segmentation/configs"
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
State = optuna.trial.TrialState
DONE, PRUNED, RUNNING = State.COMPLETE, State.PRUNED, State.RUNNING
pytestmark = [
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
    pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed:UserWarning"),  # trials asked for one by one
]


def arguments(output: Path, **changed) -> argparse.Namespace:
    given = {"storage": None, "study": "nuclei", "max_epochs": 4, "val_interval": 1, "options": {}}
    return argparse.Namespace(**{"output": output, "overlay": output / "fit_tuned.json", **given, **changed})


def open_study(output: Path, **changed) -> optuna.Study:
    return tune.open_study(arguments(output, **changed), [[1, 2], [3]])


def add_trial(study: optuna.Study, value: float, **changed) -> None:
    """A trial that is complete, with other parameters than the last one, so that these have an importance."""
    space = {
        "learning_rate": optuna.distributions.FloatDistribution(*tune.LEARNING_RATES, log=True),
        "batch_size": optuna.distributions.CategoricalDistribution(tune.BATCH_SIZES),
        "batch_norm": optuna.distributions.CategoricalDistribution([True, False]),
        "schedule": optuna.distributions.CategoricalDistribution(list(tune.SCHEDULES)),
        "loss": optuna.distributions.CategoricalDistribution(list(tune.LOSSES)),
    }
    study.add_trial(optuna.create_trial(value=value, params={**PARAMETERS, **changed}, distributions=space))


def trials_in(study: optuna.Study, *states: State) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in study.trials if trial.state in states]


# ---- a trial


@pytest.mark.parametrize("schedule, loss", [*itertools.product(tune.SCHEDULES, tune.LOSSES)])
def test_a_trial_is_an_overlay_that_the_parser_takes(schedule, loss):
    overlay = tune.suggest(optuna.trial.FixedTrial({**PARAMETERS, "schedule": schedule, "loss": loss}))
    assert len(json.dumps(overlay, indent=4).splitlines()) < 30  # the most that an overlay may have, with its text
    assert overlay["lr_scheduler"] == tune.load(tune.SCHEDULES[schedule] or "train")["lr_scheduler"]
    assert overlay["loss"] == tune.load(tune.LOSSES[loss] or "train")["loss"]
    parser = ConfigParser(tune.load("train"))
    parser.update({**overlay, "device": "cpu", "amp": False})
    names = ("network_def", "optimizer", "lr_scheduler", "loss")
    network, optimizer, scheduler, _ = (parser.get_parsed_content(name) for name in names)
    assert not network.batch_norm and scheduler.optimizer is optimizer
    largest = scheduler.max_lrs if schedule == "cyclic" else scheduler.base_lrs
    assert largest == [0.02]
    assert parser["train::dataloader::batch_size"] == "@batch_size" and parser["batch_size"] == 8


def run_engines(trial: optuna.Trial, scores: list[float]) -> tune_trial.Reporter:
    """Ignite's engines as in a training, whose validation after each epoch finds the next of these scores."""
    trainer, evaluator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    evaluator.state.key_metric_name = "f1"
    reporter = tune_trial.Reporter(trial, trainer)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine):
        evaluator.run([0])

    @evaluator.on(Events.EPOCH_COMPLETED)
    def measure(engine):
        engine.state.metrics["f1"] = torch.tensor(scores[trainer.state.epoch - 1])

    evaluator.add_event_handler(Events.COMPLETED, reporter)
    trainer.run([0], max_epochs=len(scores))
    return reporter


@pytest.mark.parametrize(
    "scores, reached, best",
    [
        ([0.1, 0.2, 0.3, 0.9], 2, 0.2),  # behind 0.5, the others' median after epoch 2: stopped
        ([0.1, 0.6, 0.5, 0.5], 4, 0.6),  # what is behind after the first epoch gets a second one
        ([0.1, 0.5, 0.55, 0.55], 4, 0.55),  # behind in the last epoch, which nothing can save
        ([0.6, float("nan"), 0.7, 0.8], 4, 0.8),
        ([float("nan")] * 4, 2, 0),  # a training that diverged
    ],
)
def test_a_training_that_falls_behind_is_pruned(tmp_path, scores, reached, best):
    study = open_study(tmp_path)
    for middle in (0.4, 0.5, 0.5, 0.6):
        done = study.ask()
        assert run_engines(done, [0.3, middle, middle, middle + 0.1]).best == pytest.approx(middle + 0.1)
        study.tell(done, middle)
    trial = study.ask()
    reporter = run_engines(trial, scores)
    reported = study.trials[trial.number].intermediate_values
    assert reported == pytest.approx(dict(enumerate(scores[:reached], 1)), nan_ok=True)
    assert reporter.pruned == (reached < 4) and reporter.best == pytest.approx(best)


# ---- several processes, kills


@pytest.mark.slow
def test_two_workers_share_the_trials(tmp_path):
    def work(_) -> int:
        study, own = open_study(tmp_path), []

        def objective(trial: optuna.Trial) -> float:
            own.append(trial.number)
            time.sleep(0.05)
            return trial.suggest_float("x", 0, 1)

        tune.search(study, objective, 12)
        return len(own)

    with ThreadPoolExecutor(2) as pool:  # each makes the tables, the study and its trials for itself
        counts = list(pool.map(work, range(2)))
    trials = open_study(tmp_path).trials
    assert 12 <= len(trials) <= 13  # both may start a trial in the same instant, when one is left
    assert min(counts) > 2 and sum(counts) == len(trials) == len(trials_in(open_study(tmp_path), DONE))


def test_the_trial_of_a_process_that_died_is_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "HEARTBEAT_S", 1)
    study = open_study(tmp_path)
    dead = study.ask()
    x = dead.suggest_float("x", 0, 1)
    study._storage.record_heartbeat(dead._trial_id)  # its last sign of life
    tune.search(study, lambda trial: trial.suggest_float("x", 0, 1), 1)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert study.trials[1].params == {"x": x} and study.trials[1].value == x


def test_a_trial_that_another_process_runs_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "HEARTBEAT_S", 0.1)
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db")
    other = study.ask()  # without signs of life that could end, so it never counts as dead
    tune.search(study, lambda trial: 0.5, 2)
    assert [trial.state for trial in study.trials] == [RUNNING, DONE]
    study.tell(other, 0.5)


# ---- what it comes to


def test_the_last_writer_has_seen_all_trials(tmp_path, monkeypatch):
    study, late = open_study(tmp_path), [0.7]
    add_trial(study, 0.5)

    def plot_while_another_process_ends_a_trial(study, output, plot=tune.plot):
        plot(study, output)
        if late:
            add_trial(study, late.pop(), learning_rate=0.123456, batch_size=4)

    monkeypatch.setattr(tune, "plot", plot_while_another_process_ends_a_trial)
    assert tune.conclude(study, arguments(tmp_path)) == 2
    overlay = json.loads((tmp_path / "fit_tuned.json").read_text())
    assert overlay["learning_rate"] == 0.123 and overlay["batch_size"] == 4
    assert "Best of 2 trials" in overlay["_desc_"] and "0.7000 within 4 epochs" in overlay["_desc_"]
    assert "configs/net_no_batch_norm.json" in overlay["_desc_"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "study.db",
        "fit_tuned.json",
        "history.png",
        "importance.png",
    }


def test_a_study_without_complete_trials_has_no_best(tmp_path):
    study = open_study(tmp_path)
    study.ask()
    with pytest.raises(tune.InputError, match="study nuclei: has no complete trial; expected at least one"):
        tune.conclude(study, arguments(tmp_path))
    assert not (tmp_path / "fit_tuned.json").exists()


# ---- errors


def test_a_study_with_other_settings_is_refused(tmp_path):
    add_trial(open_study(tmp_path), 0.5)
    assert len(open_study(tmp_path).trials) == 1
    with pytest.raises(tune.InputError) as error:
        open_study(tmp_path, max_epochs=7, options={"amp": True})
    assert "study nuclei: has {'max_epochs': 4, 'options': {}}; expected {'max_epochs': 7, " in str(error.value)
    assert "pass the same values, or another --study" in str(error.value)
    assert open_study(tmp_path, max_epochs=7, study="other").trials == []


@pytest.mark.parametrize(
    "url, reason",
    [
        ("sqlite:////nowhere/study.db", "unable to open database file"),
        ("nonsense", "Could not parse SQLAlchemy URL"),
        ("oracle+nothing://me:secret@host/db", "Can't load plugin"),
    ],
)
def test_a_storage_that_cannot_be_opened(tmp_path, monkeypatch, url, reason):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(tune.InputError, match=f"cannot be opened .*{reason}.*; start its server") as error:
        open_study(tmp_path, storage=url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "words, found",
    [
        (["--num_trials", "0"], "argument --num_trials: invalid positive_integer value: '0'"),
        (["--options", "amp=true"], "is not JSON such as"),
        (["--options", '{"bach_size": 4}'], "train.json has no ['bach_size']"),
        (["--options", '{"batch_size": 4}'], "['batch_size'] are chosen by the search"),
        ([], "nowhere: is not a folder; expected a folder with"),
    ],
)
def test_words_that_it_cannot_use(tmp_path, monkeypatch, capsys, words, found):
    command = ["tune.py", "--dataset_dir", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out"), *words]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as error:
        tune.main()
    assert error.value.code != 0 and found in capsys.readouterr().err
    assert not (tmp_path / "out/study.db").exists()


# ---- the whole


def start(data: Path, output: Path, *options: str) -> commands.Command:
    overlay = output / "fit_tuned.json"
    words = ["--dataset_dir", data, "--output", output, "--overlay", overlay, "--options", json.dumps(TINY), *options]
    return commands.start(PATH, *words)


def finish(process: commands.Command) -> str:
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 0, out[-1000:] + err[-3000:]
    return out


def load_study(output: Path) -> optuna.Study:
    return optuna.load_study(study_name="nuclei", storage=f"sqlite:///{output / 'study.db'}")


def kill_within_its_second_trial(process: commands.Command, output: Path) -> None:
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline and not list(output.glob("trial_0001/history.json")):
        assert process.poll() is None, finish(process)
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_two_processes_share_a_study_that_goes_on_after_a_kill(tmp_path):
    data, output = tmp_path / "data", tmp_path / "out"
    make_dataset("nuclei_microscopy_segmentation", data, training=4, validation=1, test=0, size=64)
    options = ("--max_epochs", "3", "--val_interval", "1")
    kill_within_its_second_trial(start(data, output, "--num_trials", "50", *options), output)
    kept, [dead] = (trials_in(load_study(output), *states) for states in ((DONE, PRUNED), (RUNNING,)))
    assert len(kept) == 1 and dead.number == 1

    both = [start(data, output, "--num_trials", "6", *options) for _ in range(2)]
    assert all("fit_tuned.json: pixel F1" in finish(process) for process in both)
    trials, done = load_study(output).trials, trials_in(load_study(output), DONE, PRUNED)
    assert 6 <= len(done) <= 7  # both may start a trial in the same instant, when one is left
    assert trials[0].value == kept[0].value and trials[1].state.name == "FAIL"
    assert any(trial.params == dead.params for trial in done) and len(trials) == len(done) + 1

    best = load_study(output).best_trial
    overlay = json.loads((output / "fit_tuned.json").read_text())
    assert overlay["learning_rate"] == pytest.approx(best.params["learning_rate"], rel=1e-2)
    assert overlay["network_def::batch_norm"] == best.params["batch_norm"]
    assert f"Best of {len(done)} trials" in overlay["_desc_"] and f"{best.value:.4f}" in overlay["_desc_"]
    for trial in done:
        history = json.loads((output / f"trial_{trial.number:04d}/history.json").read_text())
        assert trial.intermediate_values == pytest.approx(dict(history["metrics"]["val_pixel_f1"]))

    files = [CONFIG / "train.json", output / "fit_tuned.json"]
    words = {**TINY, "dataset_dir": data, "output_dir": output / "tuned", "ckpt_path": output / "tuned/model.pt"}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(list(map(str, files)))]
    command += [word for key, value in words.items() for word in (f"--{key}", str(value))]
    subprocess.run([*command, "--max_epochs", "2"], cwd=CONFIG.parent, check=True)
    lr = json.loads((output / "tuned/history.json").read_text())["lr"]
    assert len(lr) == 2 and max(rate for _, rate in lr) <= overlay["learning_rate"]
