"""A network that computes in bfloat16 on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["CpuAutocast"]


def _without_module(wrapper: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    inner = f"{prefix}module."
    for name in [name for name in state if name.startswith(inner)]:
        state[prefix + name.removeprefix(inner)] = state.pop(name)


def _with_module(wrapper: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}module.{name.removeprefix(prefix)}"] = state.pop(name)


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class CpuAutocast(nn.Module):
    """A network under ``torch.autocast`` for CPUs: weights stay as they are, outputs are cast back to at least float32.

    Its state dict has the names and tensors of the network's, and what it does not have itself is looked up and set in
    the network. Copies, averages of weights and pickles are of the network in it. TorchScript compiles only the
    network.

    Args:
        module: the network; returns a tensor or a tuple of tensors.

    Example:
        >>> network = CpuAutocast(nn.Linear(2, 1))
        >>> network(torch.zeros(1, 2)).dtype, list(network.state_dict()), network.in_features
        (torch.float32, ['weight', 'bias'], 2)
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.train(module.training)
        self.register_state_dict_post_hook(_without_module)
        self.register_load_state_dict_pre_hook(_with_module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = self.module(*args, **kwargs)
        return tuple(map(_at_least_float32, output)) if isinstance(output, tuple) else _at_least_float32(output)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        network = self.__dict__.get("_modules", {}).get("module")
        own = name == "module" or name in self.__dict__ or hasattr(type(self), name)
        if network is not None and not own and hasattr(network, name):
            setattr(network, name, value)
        else:
            super().__setattr__(name, value)

    def __prepare_scriptable__(self) -> nn.Module:
        return self.module
