"""Checks that the field of an ODE block is a function of time and state."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

__all__ = ["require_function"]


def _why_no_function(module: nn.Module) -> str | None:
    if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
        return "takes its statistics over the samples under way"
    if not module.training:
        return None
    if (isinstance(module, _DropoutNd) and module.p > 0) or isinstance(module, nn.RReLU):
        return "draws other random numbers in each evaluation"
    if getattr(module, "track_running_stats", False):
        return "changes its statistics in each evaluation"
    return None


def require_function(func: nn.Module, name: str) -> None:
    """Raise where a field gives something else for the same time and state of a sample.

    Steps, error estimates and gradients compare evaluations of the field, so they would be wrong without a word.

    Args:
        func: the field.
        name: what the error calls the block.

    Raises:
        ValueError: for a layer that takes statistics over the batch, or in training mode draws random numbers or
            changes statistics.

    Example:
        >>> require_function(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Dropout(0.5)), "down1")
        Traceback (most recent call last):
        ValueError: block 'down1': 1 in the field is a Dropout, which draws other random numbers in each evaluation; \
expected a function of time and state: put it outside of the block, or use GroupNorm or InstanceNorm as norm
    """
    for path, module in func.named_modules():
        why = _why_no_function(module)
        if why is not None:
            raise ValueError(
                f"block '{name}': {path or 'the field'} in the field is a {type(module).__name__}, which {why}; "
                "expected a function of time and state: put it outside of the block, or use GroupNorm or InstanceNorm "
                "as norm"
            )
