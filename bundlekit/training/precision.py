"""Networks prepared for mixed precision on a CPU and for batch norm over several GPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["autocast_on_cpu", "sync_batch_norm"]


def autocast_on_cpu(network: nn.Module, device: torch.device, enabled: bool) -> nn.Module:
    """Let ``network`` compute in bfloat16 when it runs on a CPU; MONAI's engines do this only for CUDA.

    The weights and the state dict stay float32 and the output, a tensor or a tuple of them, is cast back to float32.

    Example:
        >>> network = autocast_on_cpu(nn.Conv2d(1, 1, 3), torch.device("cpu"), True)
        >>> network(torch.zeros(1, 1, 4, 4)).dtype, list(network.state_dict())
        (torch.float32, ['weight', 'bias'])
    """
    if enabled and device.type == "cpu":
        forward = torch.autocast("cpu", dtype=torch.bfloat16)(network.forward)

        def forward_in_float(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            return tuple(part.float() for part in output) if isinstance(output, tuple) else output.float()

        network.forward = forward_in_float
    return network


def sync_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Let batch norm take its statistics over the batches of all processes, as torch can on GPUs; on a CPU it stays.

    The names of the weights stay as they are.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        >>> type(sync_batch_norm(network, torch.device("cuda:0"))[1]).__name__
        'SyncBatchNorm'
    """
    return nn.SyncBatchNorm.convert_sync_batchnorm(network) if device.type == "cuda" else network
