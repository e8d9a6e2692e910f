"""Saves the state of a training atomically, resumes it exactly, and keeps the best weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import nn

from ..files import write_atomically

__all__ = ["TrainingState", "logger"]

logger = logging.getLogger(__name__)


class TrainingState:
    """Write the training's whole state after each epoch, the best weights when they improve, and the history.

    Attach it after all handlers that change what it saves (learning rate, validation): it goes last in the list.
    ``state_path`` holds everything that a resumed run needs; ``ckpt_path`` is a flat state_dict of the network for
    inference; ``history.json`` next to the state has loss, learning rate, validation metrics and, as "terms", the
    trainer's own metrics per epoch. The last epoch is validated whatever the interval. Each file is replaced as a
    whole, so a kill at any time leaves the previous one.

    Args:
        state_path: file of the training's state.
        ckpt_path: file of the best weights; the last epoch's where there is no validation.
        network: the network that is trained; may be wrapped for distributed training.
        objects: what else has a state to keep, e.g. ``{"optimizer": ..., "lr_scheduler": ...}``.
        evaluator: the validation engine; its ``state.key_metric_name`` says what is best.
        resume: continue from ``state_path``.
        settings: what a resumed run must have in common with the stopped one, by name, e.g. ``{"max_epochs": 300}``.
        key_metric_negative_sign: whether smaller is better, as of a distance; otherwise larger is.

    Raises:
        SystemExit: when ``resume`` is set and ``state_path`` is missing, does not fit or had other settings.
    """

    def __init__(
        self,
        state_path: str,
        ckpt_path: str,
        network: nn.Module,
        objects: Mapping[str, Any],
        evaluator: SupervisedEvaluator | None = None,
        resume: bool = False,
        settings: Mapping[str, int] | None = None,
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
        self.history: dict[str, Any] = {"loss": [], "lr": [], "terms": {}, "metrics": {}}
        self._losses: list[float] = []
        self._lr = 0.0
        self._scores: dict[str, float] = {}
        self._key_score = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._validation_done)

    def _start(self, engine: SupervisedTrainer) -> None:
        self._include_scaler(engine)
        for leftover in self.state_path.parent.glob(f".{self.state_path.name}.*"):
            leftover.unlink()  # a write that a kill interrupted
        if self.resume:
            self.restore(engine)

    def _include_scaler(self, engine: SupervisedTrainer) -> None:
        scaler = getattr(engine, "scaler", None)  # a trainer makes it after it has attached its handlers
        if scaler is not None:
            self.objects["scaler"] = scaler

    def restore(self, engine: SupervisedTrainer) -> None:
        """Put network, objects, history and the engine's counters back to what ``state_path`` holds.

        Raises:
            SystemExit: when it is missing, does not fit or had other settings.
        """
        self._include_scaler(engine)
        try:
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
            other = {name: was for name, was in state["settings"].items() if self.settings.get(name) != was}
            if other:
                raise ValueError(
                    f"it was trained with {other}, this run has { {name: self.settings.get(name) for name in other} }"
                )
            self.network.load_state_dict(state["network"])
            for name, value in self.objects.items():
                value.load_state_dict(state["objects"][name])
        except Exception as error:
            raise SystemExit(
                f"{self.state_path}: cannot be resumed from ({str(error).splitlines()[0]}); expected the state that a "
                "training with the same configuration wrote: start without --resume true, or pass the old --output_dir"
            ) from None
        self.best, self.history = state["best"], state["history"]
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["iteration"]
        logger.info("resumed from %s after epoch %d", self.state_path, state["epoch"])

    def _begin_epoch(self, engine: SupervisedTrainer) -> None:
        self._losses.clear()
        self._lr = float(engine.optimizer.param_groups[0]["lr"])

    def _keep_loss(self, engine: SupervisedTrainer) -> None:
        output: Any = engine.state.output  # a list of items where the engine decollates batches
        loss = (output[0] if isinstance(output, list) else output)["loss"]
        self._losses.append(torch.as_tensor(loss).item())

    def _validation_done(self, evaluator: SupervisedEvaluator) -> None:
        self._scores = {name: float(value) for name, value in evaluator.state.metrics.items()}
        self._key_score = self.sign * self._scores[evaluator.state.key_metric_name]

    def _keep_history(self, engine: SupervisedTrainer) -> None:
        epoch = engine.state.epoch
        loss = float(np.mean(self._losses))
        if dist.is_initialized():  # equally many in each process
            total = torch.tensor(loss, device=next(self.network.parameters()).device)
            dist.all_reduce(total)
            loss = total.item() / dist.get_world_size()
        if not dist.is_initialized() or dist.get_rank() == 0:
            logger.info("epoch %d of %s: loss %.4f", epoch, engine.state.max_epochs, loss)
        self.history["loss"].append([epoch, loss])
        self.history["lr"].append([epoch, self._lr])
        for kind, values in (("terms", engine.state.metrics), ("metrics", self._scores)):
            for name, value in values.items():
                self.history[kind].setdefault(name, []).append([epoch, float(value)])

    def _is_best(self) -> bool:
        if self.evaluator is None:
            return True
        if not self._scores or (self.best is not None and self._key_score <= self.best):
            return False
        self.best = self._key_score
        return True

    def _save(self, engine: SupervisedTrainer) -> None:
        if self.evaluator is not None and not self._scores and engine.state.epoch == engine.state.max_epochs:
            self.evaluator.run(engine.state.epoch)
        self._keep_history(engine)
        is_best = self._is_best()
        self._scores = {}
        if dist.is_initialized() and dist.get_rank() > 0:
            return
        weights = self.network.state_dict()
        if is_best:
            best = {name: value.cpu() for name, value in weights.items()}  # to be read without a GPU, too
            write_atomically(self.ckpt_path, lambda part: torch.save(best, part))
        state = {
            "network": weights,
            "objects": {name: value.state_dict() for name, value in self.objects.items()},
            "settings": self.settings,
            "best": self.best,
            "history": self.history,
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
        }
        write_atomically(self.state_path, lambda part: torch.save(state, part))
        history = json.dumps(self.history, indent=1)
        write_atomically(self.state_path.with_name("history.json"), lambda part: part.write_text(history))
