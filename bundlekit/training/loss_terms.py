"""Ignite handler that averages the terms of a loss over each epoch."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events

__all__ = ["LossTerms"]


class LossTerms:
    """Means over the epoch of a loss's terms, in ``engine.state.metrics`` of the trainer under their names.

    MONAI's ``StatsHandler`` prints them, its ``TensorBoardStatsHandler`` draws them, when attached after this one.

    Args:
        loss: the trainer's loss; its ``terms`` holds the last value of each by name, as in :class:`.sum_loss.SumLoss`
            and ``invres3d.losses.RegularizedLoss``.

    Example:
        >>> from bundlekit.training.sum_loss import SumLoss
        >>> loss = SumLoss(squared=torch.nn.MSELoss())
        >>> trainer = Engine(lambda engine, batch: loss(batch, torch.zeros(1)).item())
        >>> LossTerms(loss).attach(trainer)
        >>> trainer.run([torch.ones(1), torch.zeros(1)]).metrics
        {'squared': 0.5}
    """

    def __init__(self, loss: Any) -> None:
        self.loss = loss
        self._sums: dict[str, torch.Tensor] = {}
        self._num = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._sums, self._num = {}, 0

    def _add(self, engine: Engine) -> None:
        for name, term in self.loss.terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(term)) + term
        self._num += 1

    def _finish(self, engine: Engine) -> None:
        for name, total in self._sums.items():
            engine.state.metrics[name] = total.item() / self._num
