"""Ignite handler that trains an encoder only from a given epoch on."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from torch import nn

__all__ = ["UnfreezeEncoder"]


class UnfreezeEncoder:
    """Freeze the encoder of a network in each epoch before ``epoch``, and in no other.

    It depends only on the epoch's number, so a resumed training is in the same state. The optimiser has to
    hold the encoder's parameters from the beginning, best in a group of its own with a lower learning rate; without a
    gradient it leaves them as they are.

    Args:
        network: has ``set_frozen(bool)``, as ``unet_ode.nets.LocalizerUNet`` does; not wrapped for distributed
            training, which decides at its start what is trained.
        epoch: first epoch that trains the encoder, from 1.

    Raises:
        ValueError: for a network without ``set_frozen``.

    Differs from the paper:
        Hu et al. 2018 keep the encoder frozen to the end.

    Example:
        >>> class Network(nn.Module):
        ...     def set_frozen(self, frozen):
        ...         print("frozen" if frozen else "trained")
        >>> engine = Engine(lambda engine, batch: None)
        >>> UnfreezeEncoder(Network(), epoch=3).attach(engine)
        >>> _ = engine.run([0], max_epochs=3)
        frozen
        frozen
        trained
    """

    def __init__(self, network: nn.Module, epoch: int) -> None:
        if not hasattr(network, "set_frozen"):
            raise ValueError(
                f"the network is of type {type(network).__name__}; expected one with set_frozen(), such as "
                "LocalizerUNet: train in one process, without multi_gpu_train.json"
            )
        self.network: Any = network
        self.epoch = epoch

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.network.set_frozen(engine.state.epoch < self.epoch)
