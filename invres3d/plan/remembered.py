"""Caches the shapes of results of operations on tensors without data."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["KnownRanges", "RememberedShapes"]

_NEW, _ASK = object(), object()


@functools.cache
def _result(operation: Any) -> Any:
    """What an operation gives: ``_NEW`` tensors, the argument of this name, or None for all else, such as views."""
    schema = operation._schema
    aliased = [argument for argument in schema.arguments if argument.alias_info is not None]
    if not schema.returns or torch.Tag.inplace_view in operation.tags:  # such as set_
        return None
    if not aliased and all(str(value.type) == "Tensor" for value in schema.returns):
        return _NEW
    if len(aliased) == len(schema.returns) == 1 and aliased[0].alias_info.is_write:
        return aliased[0].name
    return None


def _description(value: Any) -> Hashable:
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, (list, tuple)):
        return tuple(_description(part) for part in value)
    return type(value), value


def _storages(values: Any) -> set[int]:
    return {leaf.untyped_storage()._cdata for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)}


class RememberedShapes(TorchDispatchMode):
    """Results of operations on meta or fake tensors, made from the result of the operation with the same shapes before.

    A U-Net repeats itself, in its depth and from network to network, and PyTorch takes longer to work out a shape than
    to make a tensor of it. What it remembers, it remembers for good. With fake tensors it is entered inside of the
    ``FakeTensorMode``.

    Source:
        Not in the paper.

    Example:
        >>> with torch.device("meta"), RememberedShapes():
        ...     sums = [torch.ones(2, 3) + torch.ones(3) for _ in range(2)]
        >>> [tuple(x.shape) for x in sums]
        [(2, 3), (2, 3)]
    """

    _known: dict[Hashable, Any] = {}  # noqa: RUF012  # shared by all blocks

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = _result(func)
        if result is None:
            return func(*args, **kwargs)
        key = func, _description(args), *((name, _description(value)) for name, value in kwargs.items())
        known = self._known.get(key)
        if known is None or known is _ASK:
            made = func(*args, **kwargs)
            # some views, such as aten._unsafe_view, do not say that they are
            is_view = result is _NEW and not _storages(made).isdisjoint(_storages((args, kwargs)))
            self._known[key] = _ASK if is_view else _description(made)
            return made
        if result is _NEW:
            return self._make(known)
        return kwargs[result] if result in kwargs else args[0]

    def _make(self, known: Any) -> Any:
        if known == (type(None), None):
            return None
        if isinstance(known[0], torch.Size):
            shape, stride, dtype, device = known
            return torch.empty_strided(shape, stride, dtype=dtype, device=device)
        return tuple(self._make(part) for part in known)


class KnownRanges(TorchFunctionMode):
    """``torch.arange`` with its numbers: MONAI's Dice loss reads them, and a tensor without content has none."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return np.arange(*args) if func is torch.arange else func(*args, **(kwargs or {}))
