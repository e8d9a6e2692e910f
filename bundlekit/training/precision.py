"""A network on its device: memory format, mixed precision on GPU and CPU, batch norm over several GPUs."""

from __future__ import annotations

import torch
from torch import nn

from ..inputs.options import is_on, is_switch
from .cpu_autocast import CpuAutocast

__all__ = ["Precision"]


class Precision:
    """Where a network computes and in which precision.

    MONAI's engines have mixed precision for CUDA only; here a network computes in bfloat16 on a CPU, too. Weights and
    state dict stay float32, and the output, a tensor or a tuple of tensors, is cast back to float32.

    Args:
        device: device of the network.
        amp: whether it computes in mixed precision; a switch.
        channels_last: whether weights and activations are stored channels last.
        sync_batch_norm: whether batch norm takes its statistics over the batches of all processes, which torch can do
            on GPUs only. The names of the weights stay as they are.

    Raises:
        ValueError: where ``amp`` is no switch.

    Attributes:
        gpu_amp: what MONAI's engines take as ``amp``.

    Example:
        >>> precision = Precision("cpu", amp=True)
        >>> network = precision.prepare(nn.Conv2d(1, 1, 3))
        >>> network(torch.zeros(1, 1, 4, 4)).dtype, list(network.state_dict()), precision.gpu_amp
        (torch.float32, ['weight', 'bias'], False)
    """

    def __init__(
        self,
        device: str | torch.device,
        amp: bool | str,
        channels_last: bool = False,
        sync_batch_norm: bool = False,
    ) -> None:
        self.device = torch.device(device)
        if not is_switch(amp):
            raise ValueError(f"amp is {amp!r}; expected true or false")
        self.amp = is_on(amp)
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.sync_batch_norm = sync_batch_norm

    @property
    def gpu_amp(self) -> bool:
        return self.amp and self.device.type == "cuda"

    def prepare(self, network: nn.Module) -> nn.Module:
        """The network on its device, ready to be trained or evaluated."""
        network = network.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        if self.sync_batch_norm and self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return CpuAutocast(network) if self.amp and self.device.type == "cpu" else network
