"""Ignite handler that sets the random state of a training from the seed and the epoch."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd

__all__ = ["EpochSeed"]


class EpochSeed:
    """Seed every source of random numbers at the start of each epoch from (seed, epoch, rank).

    The random state is then a function of the epoch's number, so that a training that is resumed at an epoch draws the
    same augmentations, order and dropout as one that was never stopped.

    Args:
        seed: the run's seed.
        dataset: the training dataset; the random transforms in its ``transform`` are seeded too.
    """

    def __init__(self, seed: int, dataset: Any) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        rank = dist.get_rank() if dist.is_initialized() else 0
        seed = int(np.random.SeedSequence((self.seed, engine.state.epoch, rank)).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        set_rnd(self.dataset.transform, seed)
