"""Native engine: runs the chain forward and backward in place and stores only its final state."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .gradients import ParameterGradients, pull_back
from .grid import (
    RangeError,
    StateMismatchError,
    channel_sums,
    explain_range,
    largest_magnitude,
    round_to_grid_,
    sums_match,
)
from .guards import UsedParameters, require_plain

if TYPE_CHECKING:
    from .engine import Chain

__all__ = ["run_native"]

_AllFactors = list[torch.Tensor | None]


class _Autocast:
    """The mode of mixed precision at the time of the forward pass, to enter again in the backward pass."""

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type
        self.known = torch.amp.is_autocast_available(device_type)
        if self.known:
            self.enabled = torch.is_autocast_enabled(device_type)
            self.dtype = torch.get_autocast_dtype(device_type)

    def __call__(self) -> contextlib.AbstractContextManager:
        if not self.known:
            return contextlib.nullcontext()
        # a weight cast without gradient must not be found by the pass with gradient
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled, cache_enabled=False)


def _require_first_backward(levels: list[torch.Tensor] | None) -> None:
    if levels is None:
        raise RuntimeError(
            "the native engine got a second backward pass through one forward pass; the first one has overwritten its "
            "states: run forward again, or use engine='checkpoint'"
        )


def _require_same_parameters(used: UsedParameters, chain: Chain) -> None:
    if not used.are_those_of(chain):
        raise RuntimeError(
            "the parameters have changed between forward and backward pass; the native engine expected the "
            "same ones, unchanged: change them only after backward, or use engine='checkpoint'"
        )


class _Native(torch.autograd.Function):
    """The whole chain: forward keeps the final state only, in place; backward computes it back step by step."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        chain: Chain,
        all_factors: _AllFactors,
        used: UsedParameters,
        x1: torch.Tensor,
        x2: torch.Tensor,
        *parameters: nn.Parameter,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        ctx.chain, ctx.all_factors, ctx.used, ctx.parameters = chain, all_factors, used, parameters
        ctx.autocast = _Autocast(x1.device.type)
        ctx.types = x1.dtype, x2.dtype
        levels, ctx.saved = [round_to_grid_(x1), round_to_grid_(x2)], []
        ctx.sums = channel_sums(levels)
        deepest = x1
        with ctx.autocast():
            for i, (step, factors) in enumerate(zip(chain.steps, all_factors, strict=True)):
                if i == chain.bottleneck:
                    deepest = torch.cat(levels[-2:], 1)
                ctx.saved.append(step.advance_(levels, factors))  # type: ignore[operator]
            logits = chain.apply_head(*levels)
        ctx.levels = levels
        return logits, deepest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logits: torch.Tensor | None, grad_deepest: torch.Tensor | None) -> tuple:
        chain, levels, saved = ctx.chain, ctx.levels, ctx.saved
        _require_first_backward(levels)
        ctx.levels = ctx.saved = None
        _require_same_parameters(ctx.used, chain)
        parameter_grads = ParameterGradients()
        with ctx.autocast():
            if grad_logits is None:
                level_grads = [torch.zeros_like(x) for x in levels]
            else:
                level_grads = pull_back(chain.apply_head, levels, chain.head.parameters(), grad_logits, parameter_grads)
            for i in reversed(range(len(chain.steps))):
                try:
                    chain.steps[i].retreat_(levels, level_grads, ctx.all_factors[i], saved.pop(), parameter_grads)
                except StateMismatchError:
                    raise _explain_mismatch(chain, i + 1, levels, ctx.all_factors) from None
                if i == chain.bottleneck and grad_deepest is not None:
                    for grad, part in zip(level_grads[-2:], grad_deepest.chunk(2, 1), strict=True):
                        grad += part
        if not sums_match(levels, ctx.sums):
            raise _explain_mismatch(chain, 0, levels, ctx.all_factors)
        level_grads = [grad.to(dtype) for grad, dtype in zip(level_grads, ctx.types, strict=True)]
        return None, None, None, *level_grads, *(parameter_grads[p] for p in ctx.parameters)


def _explain_mismatch(chain: Chain, first: int, levels: list[torch.Tensor], all_factors: _AllFactors) -> RuntimeError:
    """Why the state before step ``first`` differs: it left the range, or an operation gave other bits."""
    sizes = [largest_magnitude(levels[-2:])]
    for step, factors in list(zip(chain.steps, all_factors, strict=True))[first:]:
        step.advance_(levels, factors)  # type: ignore[operator]
        sizes.append(largest_magnitude(levels[-2:]))
    too_large = explain_range("native", torch.tensor(sizes).max().item())
    if too_large is not None:
        return RangeError(too_large)
    return RuntimeError(
        "the native engine recomputed a state that differs from the forward pass, so the gradients are wrong; "
        "expected bitwise reproducible operations: see torch.use_deterministic_algorithms, or use "
        "engine='checkpoint'"
    )


def run_native(
    chain: Chain, all_factors: _AllFactors, x1: torch.Tensor, x2: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and the state of the deepest level; the backward pass computes every earlier state from the final one.

    Args:
        chain: modules without hooks and parametrizations.
        all_factors: for each step what :meth:`.steps.Step.draw_factors` gave.
        x1, x2: halves of the state; used up.

    Raises:
        RuntimeError: where a module of the chain is not plain.
    """
    require_plain(chain)
    used = UsedParameters(chain)
    return _Native.apply(chain, all_factors, used, x1, x2, *used.to_train)
