"""Engine with the package memcnn, whose wrappers only get private tensors and are freed without a backward pass.

memcnn frees the storage of a block's inputs and fills it again in the backward pass. Reading an input in between
crashes the process, so every input here is a private, complete tensor. Further guards: blocks run in the precision of
the state (autocast breaks the inverse), dropout factors are drawn beforehand (memcnn would draw others in the inverse),
and without a backward pass the tensors of a block are released with the graph (a block holds a reference to itself
otherwise).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from .coupling import AdditiveCoupling
from .grid import RangeError, explain_range, has_data, largest_magnitude
from .resampling import SqueezeDown, SqueezeUp
from .squeeze import OrthogonalSqueeze
from .steps import Residual, Step

__all__ = ["run_with_memcnn"]

_Tensors = tuple[torch.Tensor, ...]


class _Bijection(nn.Module):
    """What memcnn wraps: a map and its inverse, always in full precision."""

    def __init__(self, module: nn.Module, apply: Callable[..., _Tensors], undo: Callable[..., _Tensors]) -> None:
        super().__init__()
        self.module = module  # for its parameters
        self.apply_, self.undo_ = apply, undo

    @staticmethod
    def _full_precision(device_type: str) -> contextlib.AbstractContextManager:
        if not torch.amp.is_autocast_available(device_type):
            return contextlib.nullcontext()
        return torch.autocast(device_type, enabled=False)

    def forward(self, *x: torch.Tensor) -> _Tensors:
        with self._full_precision(x[0].device.type):
            return self.apply_(*x)

    def inverse(self, *y: torch.Tensor) -> _Tensors:
        with self._full_precision(y[0].device.type):
            return self.undo_(*y)


class _Blocks:
    """The blocks of one forward pass; breaks the cycles of references that memcnn leaves when it dies."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []

    def __del__(self) -> None:
        for node in self.nodes:
            node.inputs.clear()
            node.outputs.clear()


class _HoldBlocks(torch.autograd.Function):
    """Identity whose place in the graph keeps ``blocks`` as long as the graph lives."""

    @staticmethod
    def forward(ctx: Any, blocks: _Blocks, *x: torch.Tensor) -> _Tensors:  # type: ignore[override]
        ctx.blocks = blocks
        return tuple(tensor.view_as(tensor) for tensor in x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple:  # type: ignore[override]
        return None, *grads


def _split(squeeze: OrthogonalSqueeze, channels: int, x2: torch.Tensor) -> _Tensors:
    width = x2.shape[1] - channels
    return x2[:, :width].clone(), *(s.clone() for s in squeeze(x2[:, width:]))


def _join(squeeze: OrthogonalSqueeze, skip: torch.Tensor, s1: torch.Tensor, s2: torch.Tensor) -> _Tensors:
    return (torch.cat([skip, squeeze.inverse(s1, s2)], 1),)


def _bijection(step: nn.Module, factors: torch.Tensor | None) -> tuple[_Bijection, int] | None:
    """The step as a map of the last so many tensors of the state; None when it is not one."""
    if isinstance(step, Residual):
        coupling = step.coupling
        return _Bijection(
            coupling, lambda *x: coupling(*x, factors), lambda y1, y2: coupling.inverse(y1, y2, factors)
        ), 2
    if isinstance(step, SqueezeDown):
        squeeze, channels = step.squeeze, step.channels
        return _Bijection(squeeze, lambda x: _split(squeeze, channels, x), lambda *y: _join(squeeze, *y)), 1
    if isinstance(step, SqueezeUp):
        squeeze, channels = step.squeeze, step.channels
        return _Bijection(squeeze, lambda *x: _join(squeeze, *x), lambda y: _split(squeeze, channels, y)), 3
    return None


def _wrap(bijection: _Bijection) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # memcnn imports names that PyTorch has moved
        from memcnn import InvertibleModuleWrapper
    return InvertibleModuleWrapper(bijection, keep_input=False, keep_input_inverse=False)


def _extremes(levels: list[torch.Tensor]) -> torch.Tensor:
    """Smallest and largest value of the deepest level's halves, the ones that a step changes."""
    return torch.stack([extreme for x in levels[-2:] for extreme in x.detach().aminmax()])


def _require_training(steps: Sequence[nn.Module]) -> None:
    """Raise where a part of the chain is in evaluation mode, in which nothing is rounded and the inverse is inexact."""
    for i, step in enumerate(steps):
        for name, module in step.named_modules(prefix=f"steps.{i}"):
            if isinstance(module, (Step, AdditiveCoupling, OrthogonalSqueeze)) and not module.training:
                raise RuntimeError(
                    f"{name} in the chain is in evaluation mode, in which the memcnn engine's way back is inexact; "
                    "expected the whole chain in training mode: freeze by requires_grad_(False), or use engine='native'"
                )


def run_with_memcnn(
    steps: Sequence[nn.Module], all_factors: Sequence[torch.Tensor | None], levels: list[torch.Tensor], bottleneck: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Final state, and state of the deepest level before step ``bottleneck``, both safe to read.

    Args:
        levels: halves of the state; used up.

    Raises:
        RuntimeError: when a part of the chain is in evaluation mode; when a state left the range in which the way back
            is exact.

    Source:
        van de Leemput et al. 2019, "MemCNN: A Python/PyTorch package for creating memory-efficient invertible neural
        networks"; it is what Yamazaki, Rathour, Le 2021 (arXiv:2103.09042) trained with, section 3.4.
    """
    _require_training(steps)
    blocks, deepest, extremes = _Blocks(), levels[-1], [_extremes(levels)]
    for i, (step, factors) in enumerate(zip(steps, all_factors, strict=True)):
        if i == bottleneck:
            deepest = torch.cat(levels[-2:], 1)
        wrapped = _bijection(step, factors)
        if wrapped is None:
            levels = step(levels, factors)
            extremes.append(_extremes(levels))
            continue
        bijection, num = wrapped
        inputs = [levels.pop() for _ in range(num)][::-1]
        outputs = _wrap(bijection)(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        blocks.nodes += [outputs[0].grad_fn] if outputs[0].grad_fn is not None else []
        levels += outputs
        extremes.append(_extremes(levels))
    wrong = explain_range("memcnn", largest_magnitude(extremes)) if has_data(extremes[0]) else None
    if wrong is not None:
        raise RangeError(wrong)
    return list(_HoldBlocks.apply(blocks, *levels)), deepest
