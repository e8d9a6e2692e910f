"""Objects as plain values that can be stored and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import Enum
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn

from .cpu_autocast import CpuAutocast

__all__ = ["describe"]

_ELSEWHERE = {"device", "sw_device", "training", "rank", "dataset", "data_source", "optimizer"}
"""Attributes that do not change what is computed, or that are described in another place."""
_STATEFUL = (np.random.RandomState, np.random.Generator, torch.Generator)


def describe(value: Any, inside: frozenset[int] = frozenset()) -> Any:
    """A value as numbers, texts, lists and dicts: equal for two objects that were made with the same arguments.

    Of an object these are its class and its public attributes; of arrays and functions, checksums; of a module's
    parameters, their shapes. Devices and the state of generators of random numbers are left out.

    Args:
        value: anything.
        inside: ids of the objects that the value belongs to.

    Example:
        >>> describe(nn.Linear(2, 3))
        {'class': 'Linear', 'in_features': 2, 'out_features': 3, 'weight': '(3, 2)', 'bias': '(3,)'}
        >>> describe(lambda x: x + 1) == describe(lambda x: x + 1), describe(lambda x: x) == describe(lambda x: -x)
        (True, False)
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, CpuAutocast):  # the precision is described in another place
        value = value.module
    name = type(value).__name__
    if id(value) in inside:
        return name
    inside |= {id(value)}
    if isinstance(value, list | tuple):
        return [describe(part, inside) for part in value]
    if isinstance(value, set | frozenset):
        return sorted(str(describe(part, inside)) for part in value)
    if isinstance(value, Mapping):
        return {str(key): describe(part, inside) for key, part in value.items()}
    simple = _describe_simple(value, inside)
    return {"class": name, **_describe_attributes(value, inside)} if simple is None else simple


def _describe_simple(value: Any, inside: frozenset[int]) -> Any:
    """What needs no look at attributes; None for all else."""
    if isinstance(value, Enum):
        return describe(value.value)
    if isinstance(value, np.generic):
        return value.item()
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().as_subclass(torch.Tensor).contiguous()
        return f"{data.dtype} {tuple(data.shape)} {_digest(data.reshape(-1).view(torch.uint8).numpy().tobytes())}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {_digest(value.tobytes())}"
    if isinstance(value, FunctionType):
        return f"{value.__name__} {_digest_code(value.__code__)}"
    if isinstance(value, partial):
        return [describe(part, inside) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, torch.optim.Optimizer):
        groups = [{key: part for key, part in group.items() if key != "params"} for group in value.param_groups]
        return {"class": type(value).__name__, "param_groups": describe(groups, inside)}
    if isinstance(value, type) or not hasattr(value, "__dict__") or hasattr(value, "__self__"):
        text = str(getattr(value, "__qualname__", value))
        return type(value).__name__ if " at 0x" in text else text
    return None


def _describe_attributes(value: Any, inside: frozenset[int]) -> dict[str, Any]:
    described = {
        name: describe(part, inside)
        for name, part in vars(value).items()
        if not name.startswith("_") and name not in _ELSEWHERE and not isinstance(part, _STATEFUL)
    }
    if isinstance(value, nn.Module):
        described |= {name: describe(part, inside) for name, part in value._modules.items()}
        weights = {name: part for name, part in value._parameters.items() if part is not None}
        described |= {name: str(tuple(part.shape)) for name, part in weights.items()}
    return described


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _digest_code(code: CodeType) -> str:
    constants = [_describe_constant(value) for value in code.co_consts]
    return _digest(repr((code.co_code, code.co_names, constants)).encode())


def _describe_constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _digest_code(value)
    return str(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
