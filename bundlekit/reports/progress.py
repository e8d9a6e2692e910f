"""Progress bar and log lines, from the main process only."""

from __future__ import annotations

from typing import Any

import monai.handlers
from ignite.engine import Engine

from ..processes import raise_again, rank_and_world_size

try:
    from ignite.handlers import ProgressBar as _Bar
except ImportError:  # before ignite 0.5, which MONAI Label 0.8 does not yet use
    from ignite.contrib.handlers import ProgressBar as _Bar

__all__ = ["ProgressBar", "StatsHandler"]


class ProgressBar(_Bar):
    """Ignite's progress bar, shown by the main process only.

    Args:
        desc: the word in front of the bar, such as "training" or "images".
        persist: whether the bar stays on the screen when it is full.
        mininterval: seconds between two drawings, at least.
        options: further arguments of ignite's bar and tqdm.

    Example:
        >>> from ignite.engine import Engine
        >>> ProgressBar("images").attach(Engine(lambda engine, batch: None))
    """

    def __init__(self, desc: str = "", persist: bool = True, mininterval: float = 1.0, **options: Any) -> None:
        super().__init__(persist=persist, desc=desc, mininterval=mininterval, **options)

    def attach(self, engine: Engine, *args: Any, **options: Any) -> None:  # type: ignore[override]
        """Show the bar while ``engine`` runs, unless this is not the main process."""
        if rank_and_world_size()[0] == 0:
            super().attach(engine, *args, **options)


class StatsHandler(monai.handlers.StatsHandler):
    """MONAI's handler that logs losses and metrics, in the main process only. It takes the same arguments."""

    def attach(self, engine: Engine) -> None:
        """Log while ``engine`` runs, unless this is not the main process."""
        if rank_and_world_size()[0] == 0:
            super().attach(engine)

    def exception_raised(self, _engine: Engine, e: BaseException) -> None:
        """Raise an error again; Python shows it."""
        raise_again(e, f"epoch {_engine.state.epoch}, iteration {_engine.state.iteration}")
