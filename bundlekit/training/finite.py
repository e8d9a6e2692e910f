"""Stops a training at the first value that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import inf

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from ..errors import InputError
from ..processes import gather, is_connected, raise_again, stop_run
from .history import loss_of

__all__ = ["FiniteValues"]


def _place(trainer: Engine) -> str:
    return f"epoch {trainer.state.epoch}, iteration {trainer.state.iteration}"


def _is_anywhere(flag: torch.Tensor) -> bool:
    """Whether the flag is set in any of the processes that train together."""
    if is_connected():
        flag = flag.to(torch.float32)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag.item())


class FiniteValues:
    """Ends the run, all of its processes together, after an iteration whose loss or weights are not finite.

    Statistics of batch norm count as weights. Where a ``GradScaler`` leaves out a step because of its gradients, loss
    and weights stay finite, and the training goes on. An ``ArithmeticError`` of an iteration, as of a solver
    that fails, ends the process with its own line.

    Args:
        network: the network that is trained, as it is within one process.
        describe_saved: says what has been saved.

    Raises:
        SystemExit: with code 1, after a line on stderr.

    Example:
        >>> trainer = Engine(lambda engine, batch: {"loss": batch})
        >>> FiniteValues(nn.Linear(1, 1), lambda: "nothing was saved").attach(trainer)
        >>> _ = trainer.run([torch.tensor(1.0)])
        >>> trainer.run([torch.tensor(float("nan"))])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bundlekit.processes.StoppedRun: epoch 1, iteration 1: the loss is nan; expected finite numbers; ...
    """

    def __init__(self, network: nn.Module, describe_saved: Callable[[], str]) -> None:
        self.network = network
        self.describe_saved = describe_saved
        self._weights: list[torch.Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Look at each iteration of a trainer."""
        engine.add_event_handler(Events.STARTED, self._list_weights)
        with suppress(ValueError):  # engines of ignite itself have no such event
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._check_loss)  # before gradients are taken
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._check_iteration)
        engine.add_event_handler(Events.EXCEPTION_RAISED, lambda trainer, error: raise_again(error, _place(trainer)))

    def _list_weights(self, engine: Engine) -> None:
        values = self.network.state_dict().values()
        self._weights = [value for value in values if value.is_floating_point() and value.numel()]

    def _check_loss(self, engine: Engine) -> None:
        loss = loss_of(engine)
        if _is_anywhere(~torch.isfinite(loss).all()):
            self._stop_with(None if torch.isfinite(loss).all() else f"the loss is {loss.item()}", engine)

    def _check_iteration(self, engine: Engine) -> None:
        self._check_loss(engine)
        if _is_anywhere(~torch.isfinite(nn.utils.get_total_norm(self._weights, inf))):
            self._stop_with(self._describe_weights(), engine)

    def _describe_weights(self) -> str | None:
        state = {name: value for name, value in self.network.state_dict().items() if value.is_floating_point()}
        bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
        return f"{len(bad)} of {len(state)} weights are not finite, first {bad[0]}" if bad else None

    def _stop_with(self, fault: str | None, trainer: Engine) -> None:
        faults = [text for text in gather(fault) if text]
        if faults:
            remedy = "train with a lower --learning_rate, or look for extreme values in the images"
            remedy += f"; {self.describe_saved()}"
            stop_run(str(InputError(_place(trainer), faults[0], "finite numbers", remedy)))
