"""Saves the state of a training atomically, resumes it exactly, and keeps the best weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import nn

from ..errors import InputError, describe
from ..files import write_atomically
from ..processes import from_main_process, gather, is_main_process, print_line, stop_run, was_restarted
from .finite import FiniteValues
from .folder import HISTORY_NAME, release_at_failure
from .history import History
from .own_weights import require_own_weights, sha256_of, write_weights
from .recipe import describe_training, require_same

__all__ = ["TrainingState", "logger"]

logger = logging.getLogger(__name__)


class TrainingState:
    """Write the training's whole state after each epoch, the best weights when they improve, and the history.

    Attach it after all handlers that change what it saves (learning rate, validation): it goes last in the list.
    ``state_path`` holds everything that a resumed run needs. It is also written before a validation, which a resumed
    run then does again. ``ckpt_path`` is a flat state_dict of the network for inference; ``history.json`` next to the
    state has loss, learning rate, validation metrics and, as "terms", the trainer's own metrics per epoch. The last
    epoch is validated whatever the interval. Each file is replaced as a whole, so a kill at any time leaves the
    previous one. The run ends at the first loss or weight that is not finite, see :class:`.finite.FiniteValues`. Where
    it ends by an exception, the folder's locks are released, as the process may live on.

    Args:
        state_path: file of the training's state.
        ckpt_path: file of the best weights; the last epoch's where there is no validation. A score that is not finite
            is never the best.
        network: the network that is trained; may be wrapped for distributed training.
        objects: what else has a state to keep, e.g. ``{"optimizer": ..., "lr_scheduler": ...}``.
        evaluator: the validation engine, run at ends of epochs; its ``state.key_metric_name`` says what is best.
        resume: continue from ``state_path`` where there is such a file.
        settings: options that a resumed run must have in common with the stopped one, by name, e.g. ``{"seed": 0}``.
            Network, loss, optimiser, schedule, transforms and data are compared as well.
        key_metric_negative_sign: whether smaller is better, as of a distance; otherwise larger is.

    Raises:
        SystemExit: when ``resume`` is set and ``state_path`` cannot be read or is another training's, or the best
            weights are gone or another file.
    """

    def __init__(
        self,
        state_path: str,
        ckpt_path: str,
        network: nn.Module,
        objects: Mapping[str, Any],
        evaluator: SupervisedEvaluator | None = None,
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
        key_metric_negative_sign: bool = False,
    ) -> None:
        self.state_path = Path(state_path)
        self.ckpt_path = Path(ckpt_path)
        self.network: nn.Module = getattr(network, "module", network)
        self.objects = dict(objects)
        self.evaluator = evaluator
        self.resume = resume
        self.settings = dict(settings or {})
        self.sign = -1 if key_metric_negative_sign else 1
        self.best: float | None = None
        self.saved: dict[str, int] = {}
        """Epochs of the state and of the weights that are on the disk."""
        self.weights_sha256: str | None = None
        """Of the file that the next best weights may replace."""
        self.history = History()
        self._trainer: Any = None
        self._is_pending = False  # the last epoch has not been validated yet, nor its weights saved
        self._scores: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        self._trainer = engine
        release_at_failure(engine, self.state_path.parent, self.ckpt_path)
        FiniteValues(self.network, self._describe_saved).attach(engine)
        engine.add_event_handler(Events.STARTED, self._start)
        self.history.attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        engine.add_event_handler(Events.COMPLETED, self._log_end)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.STARTED, self._save_unvalidated)
            self.evaluator.add_event_handler(Events.COMPLETED, self._end_validation)

    def _describe_saved(self) -> str:
        paths = {"state": self.state_path, "weights": self.ckpt_path}
        saved = [f"{paths[name]} is of epoch {epoch}" for name, epoch in self.saved.items()]
        return ", ".join(saved) or "nothing has been saved"

    @cached_property
    def _recipe(self) -> list[dict[str, Any]]:
        """Options and parts of the training as they are before it begins."""
        return [self.settings, describe_training(self._trainer, self.evaluator, self.network, self.objects, self.sign)]

    def _start(self, engine: SupervisedTrainer) -> None:
        assert self._recipe  # before the training changes its parts
        self._include_scaler(engine)
        if is_main_process():
            for path in (self.state_path, self.state_path.with_name(HISTORY_NAME), self.ckpt_path):
                for leftover in self.state_path.parent.glob(f".{path.name}.*"):
                    leftover.unlink(missing_ok=True)  # a write that a kill interrupted
        if (self.resume or was_restarted()) and from_main_process(self.state_path.exists):
            self._go_on(engine)
        elif is_main_process():
            self.weights_sha256 = sha256_of(self.ckpt_path)

    def _include_scaler(self, engine: SupervisedTrainer) -> None:
        scaler = getattr(engine, "scaler", None)  # a trainer makes it after it has attached its handlers
        if scaler is not None:
            self.objects["scaler"] = scaler

    def _go_on(self, engine: SupervisedTrainer) -> None:
        was, now = self.restore(engine)["max_epochs"], engine.state.max_epochs
        epoch = engine.state.epoch
        assert now is not None
        if epoch > now:
            remedy = f"pass --max_epochs {epoch} or more"
            stop_run(str(InputError(self.state_path, f"is of epoch {epoch}", f"one up to --max_epochs {now}", remedy)))
        if now != was and is_main_process():
            print_line(f"note: {self.state_path}: goes on to epoch {now}, not {was}; the learning rate is the same")
        if self._is_pending or (epoch == now and self.evaluator is not None and not self.history.has_scores(epoch)):
            if self.evaluator is not None:
                self.evaluator.run(epoch)
            self._save(engine)

    def restore(self, engine: SupervisedTrainer) -> dict[str, Any]:
        """Put network, objects, history and the engine's counters back to what ``state_path`` holds, and return that.

        Raises:
            SystemExit: when it cannot be read or is another training's, or when the best weights are gone
                or another file.
        """
        self._include_scaler(engine)
        state: dict[str, Any] = {}
        problem = next((text for text in gather(self._take_up(state)) if text), None)
        if problem is not None:
            stop_run(problem)
        self.best, self.saved, self.history.curves = state["best"], state["saved"], state["history"]
        self._is_pending, self.weights_sha256 = state["is_pending"], state["weights_sha256"]
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["iteration"]
        logger.info("resumed from %s after epoch %d", self.state_path, state["epoch"])
        return state

    def _take_up(self, state: dict[str, Any]) -> str | None:
        """Fill ``state`` and what is trained from the file; what is wrong with it where that fails."""
        try:
            state |= torch.load(self.state_path, map_location="cpu", weights_only=True)
            if is_main_process():
                require_own_weights(state, self.ckpt_path)
                require_same(state, self._recipe, self._trainer.state.max_epochs, self.state_path)
            self.network.load_state_dict(state["network"])
            for name, value in self.objects.items():
                if name != "scaler" or name in state["objects"]:  # only trainings on a GPU have one
                    value.load_state_dict(state["objects"][name])
        except InputError as error:
            return str(error)
        except Exception as error:  # zip, pickle and torch each have their own
            found = f"cannot be resumed from ({describe(error)})"
            expected = "the state that a training with the same configuration wrote"
            remedy = "pass the old --output_dir, or --overwrite true without --resume to start again"
            return str(InputError(self.state_path, found, expected, remedy))
        return None

    def _save_unvalidated(self, _: Engine) -> None:
        """Save the epoch that has just ended before its validation, which may take long."""
        if self.history.is_complete(self._trainer):
            self.history.close_epoch(self._trainer)
            self._is_pending = True
            self._write_state(self._trainer)

    def _end_validation(self, evaluator: SupervisedEvaluator) -> None:
        self._scores = {name: float(value) for name, value in evaluator.state.metrics.items()}
        name, epoch = evaluator.state.key_metric_name, self._trainer.state.epoch
        if not isfinite(self._scores[name]) and is_main_process():
            print_line(f"note: epoch {epoch}: {name} is {self._scores[name]}, which is never the best")

    def _end_epoch(self, engine: SupervisedTrainer) -> None:
        if self.evaluator is None:
            self._save_unvalidated(engine)
        elif not self._scores and engine.state.epoch == engine.state.max_epochs:
            self.evaluator.run(engine.state.epoch)
        if self.history.is_open:
            self.history.close_epoch(engine)
        self._save(engine)

    def _is_best(self) -> bool:
        if self.evaluator is None:
            return True
        if not self._scores:
            return False
        score = self.sign * self._scores[self.evaluator.state.key_metric_name]
        if not isfinite(score):
            return self.best is None  # the latest weights, until there is a score
        if self.best is not None and score <= self.best:
            return False
        self.best = score
        return True

    def _save(self, engine: SupervisedTrainer) -> None:
        """Save what an epoch has brought, with its validation if there was one."""
        self.history.add_scores(engine.state.epoch, self._scores)
        if self._is_best():
            self.saved["weights"] = engine.state.epoch
            if is_main_process():
                self.weights_sha256 = write_weights(self.network, self.ckpt_path)
        self._scores = {}
        self._is_pending = False
        self._write_state(engine)
        if is_main_process():
            history = self.history.to_json()
            write_atomically(self.state_path.with_name(HISTORY_NAME), lambda part: part.write_text(history))

    def _write_state(self, engine: SupervisedTrainer) -> None:
        self.saved["state"] = engine.state.epoch
        if not is_main_process():
            return
        state = {
            "network": self.network.state_dict(),
            "objects": {name: value.state_dict() for name, value in self.objects.items()},
            "recipe": self._recipe,
            "max_epochs": engine.state.max_epochs,
            "best": self.best,
            "saved": self.saved,
            "weights_sha256": self.weights_sha256,
            "history": self.history.curves,
            "is_pending": self._is_pending,
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
        }
        write_atomically(self.state_path, lambda part: torch.save(state, part))

    def _log_end(self, engine: SupervisedTrainer) -> None:
        if is_main_process():
            logger.info("%d epochs are done; %s", engine.state.epoch, self._describe_saved())
