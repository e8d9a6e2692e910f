"""Losses, learning rates and scores of a training by epoch."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from ..processes import is_connected, is_main_process

__all__ = ["History", "loss_of"]

logger = logging.getLogger(__name__)


def loss_of(engine: Engine) -> torch.Tensor:
    """The loss of a trainer's last iteration, a scalar.

    Args:
        engine: its ``state.output`` has "loss", or is a list of items that have it where batches are decollated.
    """
    output: Any = engine.state.output
    loss = (output[0] if isinstance(output, list) else output)["loss"]
    return torch.as_tensor(loss).detach().as_subclass(torch.Tensor)


class History:
    """The curves of a training as lists of ``[epoch, value]``; a value that is not finite is None, JSON's null.

    Attributes:
        curves: ``{"loss": [...], "lr": [...], "terms": {name: [...]}, "metrics": {name: [...]}}``; the loss is the mean
            over the epoch and over all processes, the terms are the trainer's own metrics.
        is_open: whether an epoch is under way that is not in the curves yet.

    Example:
        >>> history = History()
        >>> history.add_epoch(1, loss=0.5, lr=0.1, terms={"dice": 0.25})
        >>> history.add_scores(1, {"val_dice": float("nan")})
        >>> history.curves["terms"], history.curves["metrics"], history.has_scores(1)
        ({'dice': [[1, 0.25]]}, {'val_dice': [[1, None]]}, True)
    """

    def __init__(self) -> None:
        self.curves: dict[str, Any] = {"loss": [], "lr": [], "terms": {}, "metrics": {}}
        self.is_open = False
        self._losses: list[float] = []
        self._lr = 0.0

    def attach(self, engine: Engine) -> None:
        """Keep the losses of a trainer, and the learning rate of each epoch's start, until :meth:`close_epoch`."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep_loss)

    def _begin_epoch(self, engine: Any) -> None:
        self._losses.clear()
        self._lr = float(engine.optimizer.param_groups[0]["lr"])
        self.is_open = True

    def _keep_loss(self, engine: Engine) -> None:
        self._losses.append(loss_of(engine).item())

    def is_complete(self, engine: Engine) -> bool:
        """Whether all iterations of the epoch under way are done."""
        return self.is_open and len(self._losses) == engine.state.epoch_length

    def close_epoch(self, engine: Any) -> None:
        """Add the epoch under way to the curves. All processes call this together."""
        epoch = engine.state.epoch
        loss = float(np.mean(self._losses))
        if is_connected():  # equally many in each process
            total = torch.tensor(loss, device=loss_of(engine).device)
            dist.all_reduce(total)
            loss = total.item() / dist.get_world_size()
        if is_main_process():
            logger.info("epoch %d of %s: loss %.4f", epoch, engine.state.max_epochs, loss)
        self.add_epoch(epoch, loss, self._lr, engine.state.metrics)
        self.is_open = False

    def add_epoch(self, epoch: int, loss: float, lr: float, terms: Mapping[str, Any]) -> None:
        """Add what an epoch of training has measured."""
        self.curves["loss"].append(_point(epoch, loss))
        self.curves["lr"].append(_point(epoch, lr))
        self._add("terms", epoch, terms)

    def add_scores(self, epoch: int, scores: Mapping[str, Any]) -> None:
        """Add what the validation after an epoch has measured."""
        self._add("metrics", epoch, scores)

    def has_scores(self, epoch: int) -> bool:
        """Whether the epoch was validated."""
        return any(points[-1][0] == epoch for points in self.curves["metrics"].values())

    def to_json(self) -> str:
        """The curves as JSON."""
        return json.dumps(self.curves, indent=1, allow_nan=False)

    def _add(self, kind: str, epoch: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self.curves[kind].setdefault(name, []).append(_point(epoch, value))


def _point(epoch: int, value: Any) -> list[float | None]:
    return [epoch, float(value) if isfinite(float(value)) else None]
