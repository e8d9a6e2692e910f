"""Search the training of the nuclei bundle with Optuna: learning rate, schedule, batch size, loss, batch norm.

    python tools/tune.py --dataset_dir DATA --output runs/tune --num_trials 30 --max_epochs 10

The study lies in OUTPUT/study.db (SQLite) or wherever --storage says, any URL that Optuna takes. Any number of
processes or machines that name the same storage and --study work on one study, until it has --num_trials finished
trials. The command may be killed and started anew: what is finished stays, and a trial whose process has died is taken
up again by the next. Trials that fall behind the median of the others at the same epoch are pruned. Each process that
ends writes OVERLAY (the best trial as an overlay of train.json, by default the bundle's configs/fit_tuned.json), and
history.png and importance.png to OUTPUT. What is maximised is the best pixel F1 on the validation images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import optuna
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from optuna.storages import RDBStorage, RetryFailedTrialCallback
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from bundlekit.training import write_atomically

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "bundles/nuclei_microscopy_segmentation/configs"
SCHEDULES = {"cosine": None, "warm_restart": "fit_warm_restart", "cyclic": "fit_cyclic"}
LOSSES = {"cross_entropy": None, "dice": "loss_dice"}
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
HEARTBEAT_S = 30
SCORE = "pixel F1, validation"


def load(name: str) -> dict[str, Any]:
    return ConfigParser.load_config_file(CONFIGS / f"{name}.json")


def suggest(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """A trial as keys of train.json: those of the overlays that it picks, and numbers."""
    overlay: dict[str, Any] = {
        "learning_rate": trial.suggest_float("learning_rate", 0.005, 0.8, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [4, 8, 16]),
        "network_def::batch_norm": trial.suggest_categorical("batch_norm", [True, False]),
    }
    schedule = SCHEDULES[trial.suggest_categorical("schedule", list(SCHEDULES))]
    loss = LOSSES[trial.suggest_categorical("loss", list(LOSSES))]
    for name, key in ((schedule, "lr_scheduler"), (loss, "loss")):
        overlay[key] = load(name or "train")[key]
    return overlay


class Reporter:
    """Tells the trial each validation's score, and ends a training that has fallen behind."""

    def __init__(self, trial: optuna.Trial, trainer: Engine) -> None:
        self.trial, self.trainer = trial, trainer
        self.best = 0.0

    def __call__(self, evaluator: Engine) -> None:
        score = float(evaluator.state.metrics[evaluator.state.key_metric_name])
        self.best = max(self.best, score)
        self.trial.report(score, self.trainer.state.epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def train(trial: optuna.Trial, args: argparse.Namespace) -> float:
    """The best validation score of one training."""
    folder = args.output.resolve() / f"trial_{trial.number:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    parser = ConfigParser(load("train"))
    places = {"dataset_dir": args.dataset_dir, "output_dir": str(folder), "ckpt_path": str(folder / "model.pt")}
    epochs = {"max_epochs": args.max_epochs, "val_interval": args.val_interval}
    parser.update({**suggest(trial), "bundle_root": str(CONFIGS.parent), **places, **epochs, **args.options})
    parser.get_parsed_content("initialize")
    data = [parser.get_parsed_content(f"{part}::dataset::data") for part in ("train", "validate")]
    parser.get_parsed_content("checks").start(data=data)
    trainer = parser.get_parsed_content("train::trainer")
    reporter = Reporter(trial, trainer)
    parser.get_parsed_content("validate::evaluator").add_event_handler(Events.COMPLETED, reporter)
    trainer.run()
    return reporter.best


def open_study(args: argparse.Namespace) -> optuna.Study:
    """The study of that name, made where there is none."""
    args.output.mkdir(parents=True, exist_ok=True)
    storage = RDBStorage(
        args.storage or f"sqlite:///{args.output.resolve() / 'study.db'}",
        engine_kwargs={"connect_args": {"timeout": 60}} if args.storage is None else None,
        heartbeat_interval=HEARTBEAT_S,
        grace_period=2 * HEARTBEAT_S,
        failed_trial_callback=RetryFailedTrialCallback(max_retry=2),
    )
    return optuna.create_study(
        storage=storage,
        study_name=args.study,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(multivariate=True, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=args.val_interval),
    )


def save_figure(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda name: figure.savefig(name, format="png", dpi=120))


def plot(study: optuna.Study, output: Path) -> None:
    """The scores in the order of the trials, and which parameter they depend on."""
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    scores = [trial.value for trial in done]
    axes.plot([trial.number for trial in done], scores, "o", label="complete")
    axes.step([trial.number for trial in done], [max(scores[: i + 1]) for i in range(len(scores))], label="best so far")
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED and trial.intermediate_values]
    last = [trial.intermediate_values[max(trial.intermediate_values)] for trial in pruned]
    axes.plot([trial.number for trial in pruned], last, "x", label="pruned")
    axes.set(xlabel="trial", ylabel=SCORE, title=study.study_name)
    axes.legend()
    save_figure(figure, output / "history.png")
    if len({trial.value for trial in done}) < 2:
        return  # nothing to compare
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    importances = optuna.importance.get_param_importances(study, evaluator=evaluator)
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(importances)[::-1], list(importances.values())[::-1])
    axes.set(xlabel=f"importance for the {SCORE} (PED-ANOVA)")
    save_figure(figure, output / "importance.png")


def write_overlay(study: optuna.Study, path: Path, args: argparse.Namespace) -> None:
    """The best trial, as an overlay of train.json."""
    best = study.best_trial
    trials = sum(trial.state in FINISHED for trial in study.trials)
    text = f"Best of {trials} trials of tools/tune.py ({SCORE} {best.value:.4f} after {args.max_epochs} epochs)."
    if not best.params["batch_norm"]:
        text += " Inference and evaluation need configs/net_no_batch_norm.json, before this file."
    overlay = {"_desc_": text, **suggest(optuna.trial.FixedTrial(best.params))}
    write_atomically(path, lambda name: Path(name).write_text(json.dumps(overlay, indent=4) + "\n", encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True, help="folder with images/, labels/ and dataset.json")
    parser.add_argument("--output", type=Path, default=ROOT / "runs/tune", help="folder of study, trainings, plots")
    parser.add_argument("--storage", help="Optuna's storage URL (default: OUTPUT/study.db, SQLite)")
    parser.add_argument("--study", default="nuclei", help="name of the study within the storage")
    parser.add_argument("--num_trials", type=int, default=30, help="finished trials of the study, all processes")
    parser.add_argument("--max_epochs", type=int, default=10)
    parser.add_argument("--val_interval", type=int, default=2, help="epochs from one score to the next")
    parser.add_argument("--overlay", type=Path, default=CONFIGS / "fit_tuned.json", help="file to write")
    parser.add_argument("--options", type=json.loads, default={}, help='further keys of train.json, {"amp": true}')
    args = parser.parse_args()
    args.dataset_dir = str(Path(args.dataset_dir).resolve())
    study = open_study(args)
    finished = sum(trial.state in FINISHED for trial in study.trials)
    if finished < args.num_trials:
        enough = MaxTrialsCallback(args.num_trials, states=FINISHED)
        study.optimize(lambda trial: train(trial, args), callbacks=[enough], gc_after_trial=True)
    write_overlay(study, args.overlay, args)
    plot(study, args.output)
    print(f"{args.overlay}: {SCORE} {study.best_value:.4f}, {study.best_params}")


if __name__ == "__main__":
    main()
