"""An encoder that is frozen at first and trained from some epoch on."""

from __future__ import annotations

from ignite.engine import Engine, Events
from torch import nn

from ..nets import LocalizerUNet

__all__ = ["UnfreezeEncoder"]


class UnfreezeEncoder:
    """Freeze the encoder of a :class:`~unet_ode.nets.LocalizerUNet` in each epoch before ``epoch``, and in no other.

    It looks at the epoch's number alone, so that a training that is resumed is in the same state. The optimiser has to
    hold the encoder's parameters from the beginning, best in a group of its own with a lower learning rate; without a
    gradient it leaves them as they are.

    Args:
        network: the network that is trained, not wrapped for distributed training, which fixes what is trained at once.
        epoch: first epoch that trains the encoder, from 1.

    Raises:
        ValueError: for another network.

    Differs from the paper:
        Hu et al. 2018 keep the encoder frozen to the end.

    Example:
        >>> network = LocalizerUNet(2, 1, 1, channels=(4, 8))
        >>> engine, seen = Engine(lambda engine, batch: seen.append(network.frozen)), []
        >>> UnfreezeEncoder(network, epoch=3).attach(engine)
        >>> _ = engine.run([0], max_epochs=4)
        >>> seen
        [True, True, False, False]
    """

    def __init__(self, network: nn.Module, epoch: int) -> None:
        if not isinstance(network, LocalizerUNet):
            raise ValueError(
                f"the network is of type {type(network).__name__}; expected a LocalizerUNet: unfreeze in one process, "
                "without multi_gpu_train.json"
            )
        self.network = network
        self.epoch = epoch

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.network.set_frozen(engine.state.epoch < self.epoch)
