"""One trial of the search: a training of the nuclei bundle with the parameters that Optuna suggests."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from bundlekit.processes import StoppedRun

__all__ = ["Reporter", "load", "read_data", "suggest", "train"]

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "bundles/nuclei_microscopy_segmentation/configs"
LEARNING_RATES = [0.005, 0.8]
BATCH_SIZES = [4, 8, 16]
SCHEDULES = {"cosine": None, "warm_restart": "fit_warm_restart", "cyclic": "fit_cyclic"}
LOSSES = {"cross_entropy": None, "dice": "loss_dice"}
SEARCHED = {"learning_rate", "batch_size", "network_def::batch_norm", "lr_scheduler", "loss"}


def load(name: str) -> dict[str, Any]:
    return ConfigParser.load_config_file(CONFIGS / f"{name}.json")


def suggest(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """A trial as keys of train.json: the keys of the overlays that it picks, and numbers."""
    overlay: dict[str, Any] = {
        "learning_rate": float(f"{trial.suggest_float('learning_rate', *LEARNING_RATES, log=True):.3g}"),
        "batch_size": trial.suggest_categorical("batch_size", BATCH_SIZES),
        "network_def::batch_norm": trial.suggest_categorical("batch_norm", [True, False]),
    }
    schedule = SCHEDULES[trial.suggest_categorical("schedule", list(SCHEDULES))]
    loss = LOSSES[trial.suggest_categorical("loss", list(LOSSES))]
    for name, key in ((schedule, "lr_scheduler"), (loss, "loss")):
        overlay[key] = load(name or "train")[key]
    return overlay


class Reporter:
    """Reports each validation's score to the trial, and stops a training that has fallen behind."""

    def __init__(self, trial: optuna.Trial, trainer: Engine) -> None:
        self.trial, self.trainer = trial, trainer
        self.best = 0.0
        self.pruned = False

    def __call__(self, evaluator: Engine) -> None:
        epoch, last = self.trainer.state.epoch, self.trainer.state.max_epochs
        score = float(evaluator.state.metrics[evaluator.state.key_metric_name])
        self.best = max(self.best, score)
        self.trial.report(score, epoch)
        if epoch < last and self.trial.should_prune():
            self.pruned = True
            self.trainer.terminate()


def train(trial: optuna.Trial, args: argparse.Namespace, data: Sequence[list]) -> float:
    """The best validation score of one training."""
    folder = args.output.resolve() / f"trial_{trial.number:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    parser = ConfigParser(load("train"))
    parser.update({**suggest(trial), **args.options, "max_epochs": args.max_epochs, "val_interval": args.val_interval})
    parser.update({"bundle_root": str(CONFIGS.parent), "output_dir": str(folder), "ckpt_path": f"{folder}/model.pt"})
    parser.update({"train::dataset::data": data[0], "validate::dataset::data": data[1]})
    parser.get_parsed_content("initialize")
    trainer = parser.get_parsed_content("train::trainer")
    reporter = Reporter(trial, trainer)
    parser.get_parsed_content("validate::evaluator").add_event_handler(Events.COMPLETED, reporter)
    try:
        trainer.run()
    except StoppedRun as reason:
        raise optuna.TrialPruned(str(reason)) from None
    (folder / "state.pt").unlink()  # twice the size of the weights, and no trial goes on from it
    if reporter.pruned:
        raise optuna.TrialPruned(f"after epoch {trainer.state.epoch}")
    return reporter.best


def read_data(args: argparse.Namespace) -> list[list]:
    """The usable training and validation images; ends the process where there are none."""
    parser = ConfigParser(load("train"))
    places = {"dataset_dir": args.dataset_dir, "output_dir": args.output, "checks::save_path": None}  # for all trials
    parser.update({"bundle_root": str(CONFIGS.parent), **places, **args.options})
    checks = parser.get_parsed_content("checks")
    data = [checks.section(args.dataset_dir, name) for name in ("training", "validation")]
    checks.start(*data)
    return data
