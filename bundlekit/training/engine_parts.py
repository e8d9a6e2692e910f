"""Handlers and metrics of an engine as plain values that can be stored and compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ignite.engine import Engine
from ignite.metrics import Metric
from monai.handlers import EarlyStopHandler, LrScheduleHandler, ParamSchedulerHandler, ValidationHandler

from .descriptions import describe
from .unfreeze_encoder import UnfreezeEncoder

__all__ = ["describe_handlers", "describe_metrics"]

_CHANGE_TRAINING = (EarlyStopHandler, LrScheduleHandler, ParamSchedulerHandler, UnfreezeEncoder, ValidationHandler)
_ONLY_REPORTED = {"name", "print_lr"}


def _attached(engine: Engine) -> Iterator[tuple[Any, tuple]]:
    """Objects whose methods an engine calls, with the arguments of the call."""
    for handlers in engine._event_handlers.values():
        for handler, args, _ in handlers:
            inner = handler if hasattr(handler, "__self__") else getattr(handler, "__wrapped__", handler)  # by a filter
            yield getattr(inner, "__self__", inner), args


def _plain_attributes(handler: Any) -> dict[str, Any]:
    kept = {name: value for name, value in vars(handler).items() if name[0] != "_" and name not in _ONLY_REPORTED}
    plain = bool | int | float | str | None
    return {name: describe(value) for name, value in kept.items() if isinstance(value, plain)}


def describe_handlers(engine: Engine) -> dict[str, Any]:
    """The handlers that change what is trained, by the names of their classes; those that only report are left out.

    Args:
        engine: the trainer, with its handlers attached.

    Example:
        >>> from torch import nn
        >>> network, trainer = nn.Identity(), Engine(lambda engine, batch: None)
        >>> network.set_frozen = print
        >>> UnfreezeEncoder(network, epoch=3).attach(trainer)
        >>> describe_handlers(trainer)
        {'UnfreezeEncoder': {'epoch': 3}}
    """
    handlers = [owner for owner, _ in _attached(engine) if isinstance(owner, _CHANGE_TRAINING)]
    return {type(handler).__name__: _plain_attributes(handler) for handler in handlers}


def describe_metrics(engine: Engine) -> dict[str, Any]:
    """The metrics of an engine by the names of their scores, in the order in which they are attached."""
    return {
        args[-1]: describe(vars(owner).get("metric_fn", owner))
        for owner, args in _attached(engine)
        if isinstance(owner, Metric) and args and isinstance(args[-1], str)
    }
