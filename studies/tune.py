"""Search the hyperparameters of the nuclei bundle with Optuna: learning rate, schedule, batch size, loss, batch norm.

    python -m studies.tune --dataset_dir DATA --output runs/tune --num_trials 30 --max_epochs 20

The study is stored in OUTPUT/study.db (SQLite, for processes on one machine) or in --storage, the URL of a database
that Optuna supports. All processes with the same storage and --study work on one study, until it has --num_trials
finished trials. The command can be killed and started again: finished trials are kept, and a trial whose process has
not responded for a minute is run again. A trial that is below the median of the others at the same epoch is pruned.
When a process ends, it writes the best trial so far as an overlay of train.json (--overlay, by default the bundle's
configs/fit_tuned.json), and history.png and importance.png to OUTPUT. The objective is the best pixel F1 on the
validation images.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import optuna
import sqlalchemy
from matplotlib.axes import Axes
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances

from bundlekit.errors import InputError
from bundlekit.files import write_atomically
from studies.tune_trial import (
    BATCH_SIZES,
    CONFIGS,
    LEARNING_RATES,
    LOSSES,
    ROOT,
    SCHEDULES,
    SEARCHED,
    load,
    read_data,
    suggest,
    train,
)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
HEARTBEAT_S = 30
SCORE = "pixel F1, validation"


def open_storage(url: str) -> RDBStorage:
    """The data base behind the URL, with Optuna's tables in it.

    Raises:
        InputError: where there is none to be had.
    """
    connect = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None  # seconds for others to write
    for attempt in range(5):
        try:
            return RDBStorage(
                url,
                engine_kwargs=connect,
                heartbeat_interval=HEARTBEAT_S,
                grace_period=2 * HEARTBEAT_S,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=2),
            )
        except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            if attempt == 4 or not isinstance(error, sqlalchemy.exc.DBAPIError):
                break
            time.sleep(1)  # of several processes that make the tables at once all but one fail, this once
    shown = re.sub(r":[^:@/]*@", ":***@", url)
    remedy = "start its server, install its driver, or correct --storage"
    raise InputError(shown, f"cannot be opened ({reason})", "a database URL, such as sqlite:///study.db", remedy)


def open_study(args: argparse.Namespace, data: Sequence[list]) -> optuna.Study:
    """The study of that name, made where there is none.

    Raises:
        InputError: where it is of another search, with which scores cannot be compared.
    """
    url = args.storage or f"sqlite:///{args.output.resolve() / 'study.db'}"
    study = optuna.create_study(
        storage=open_storage(url),
        study_name=args.study,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(multivariate=True, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=args.val_interval + 1),
    )
    settings = {
        "max_epochs": args.max_epochs,
        "val_interval": args.val_interval,
        "options": args.options,
        "images": [len(items) for items in data],
        "choices": [LEARNING_RATES, BATCH_SIZES, list(SCHEDULES), list(LOSSES)],
    }
    if not study.trials:
        study.set_user_attr("settings", settings)
    was = study.user_attrs.get("settings", {})
    other = {name: was.get(name) for name, value in settings.items() if was.get(name) != value}
    if other:
        expected = f"{ {name: settings[name] for name in other} } as in this run"
        raise InputError(f"study {args.study}", f"has {other}", expected, "pass the same values, or another --study")
    return study


def search(study: optuna.Study, objective: Callable[[optuna.Trial], float], num_trials: int) -> None:
    """Run trials until the study has so many that are finished, or that other processes are running.

    The last of them may belong to a process that was killed, so they are waited for until they count as stale. There
    is one trial too many where two processes start one in the same instant.
    """
    waited_s = 0.0
    while True:
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        left, running = num_trials - sum(state in FINISHED for state in states), states.count(TrialState.RUNNING)
        if left <= 0 or waited_s > 2 * HEARTBEAT_S + 5:  # storages keep whole seconds
            return
        if left > running:
            study.optimize(objective, n_trials=1, gc_after_trial=True)
            waited_s = 0.0
        else:
            time.sleep(HEARTBEAT_S / 10)
            waited_s += HEARTBEAT_S / 10
            optuna.storages.fail_stale_trials(study)


def save(axes: Axes, path: Path) -> None:
    figure = axes.figure
    write_atomically(path, lambda part: figure.savefig(part, format="png", dpi=120, bbox_inches="tight"))
    matplotlib.pyplot.close(figure)


def plot(study: optuna.Study, output: Path) -> None:
    """The scores in the order of the trials, and on which parameter they depend."""
    matplotlib.use("Agg")
    axes = plot_optimization_history(study, target_name=SCORE)
    axes.legend(loc="best")  # in place of one outside that takes half of the width
    save(axes, output / "history.png")
    if len({trial.value for trial in study.trials if trial.state == TrialState.COMPLETE}) > 1:
        save(plot_param_importances(study, target_name=SCORE), output / "importance.png")


def write_overlay(study: optuna.Study, path: Path, args: argparse.Namespace) -> None:
    """The best trial, as an overlay of train.json."""
    best = study.best_trial
    trials = sum(trial.state in FINISHED for trial in study.trials)
    text = f"Best of {trials} trials of studies/tune.py ({SCORE} {best.value:.4f} within {args.max_epochs} epochs)."
    if not best.params["batch_norm"]:
        text += " Inference with its weights needs configs/net_no_batch_norm.json."
    overlay = {"_desc_": text, **suggest(optuna.trial.FixedTrial(best.params))}
    write_atomically(path, lambda part: part.write_text(json.dumps(overlay, indent=4) + "\n", encoding="utf-8"))


def conclude(study: optuna.Study, args: argparse.Namespace) -> int:
    """Write what the study has come to; returns the number of its finished trials."""
    written = None
    while written != (finished := sum(trial.state in FINISHED for trial in study.trials)):
        written = finished  # whoever writes last looks once more, so a trial that ended meanwhile is never missed
        if not any(trial.state == TrialState.COMPLETE for trial in study.trials):
            remedy = "run the command again after the processes that run them have ended"
            raise InputError(f"study {args.study}", "has no complete trial", "at least one", remedy)
        write_overlay(study, args.overlay, args)
        plot(study, args.output)
    return finished


def positive_integer(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def options(text: str) -> dict[str, Any]:
    """Keys of train.json that every trial shares."""
    try:
        keys = json.loads(text)
        ids = {re.split("::|#", key)[0] for key in keys}
    except (ValueError, AttributeError) as error:
        raise argparse.ArgumentTypeError(f'{text!r} is not JSON such as {{"amp": true}}') from error
    unknown, searched = sorted(ids - load("train").keys()), sorted(keys.keys() & SEARCHED)
    if unknown or searched:
        raise argparse.ArgumentTypeError(
            f"train.json has no {unknown}" if unknown else f"{searched} are chosen by the search: leave them out"
        )
    return keys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", required=True, help="folder with images/, labels/ and dataset.json")
    parser.add_argument("--output", type=Path, default=ROOT / "runs/tune", help="folder of study, trainings, plots")
    parser.add_argument("--storage", help="Optuna's storage URL (default: OUTPUT/study.db, SQLite)")
    parser.add_argument("--study", default="nuclei", help="name of the study within the storage")
    parser.add_argument(
        "--num_trials", type=positive_integer, default=30, help="finished trials of the study, all processes"
    )
    parser.add_argument("--max_epochs", type=positive_integer, default=20)
    parser.add_argument("--val_interval", type=positive_integer, default=5, help="epochs from one score to the next")
    parser.add_argument("--overlay", type=Path, default=CONFIGS / "fit_tuned.json", help="file to write")
    parser.add_argument("--options", type=options, default={}, help='further keys of train.json, {"amp": true}')
    args = parser.parse_args()
    args.dataset_dir = str(Path(args.dataset_dir).resolve())
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    try:
        data = read_data(args)
        study = open_study(args, data)
        search(study, lambda trial: train(trial, args, data), args.num_trials)
        finished = conclude(study, args)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("stopped; run the same command again to continue after the finished trials") from None
    print(f"{args.overlay}: {SCORE} {study.best_value:.4f}, {study.best_params}, {finished} trials")
    if finished < args.num_trials:
        print(f"other processes run the rest of {args.num_trials} trials and update these files; if none, start again")


if __name__ == "__main__":
    main()
