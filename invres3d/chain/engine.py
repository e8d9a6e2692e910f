"""Chains of invertible steps, trained without storing what lies between their input and their output."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from .grid import OutOfGrid, channel_sums, have_sums, largest, out_of_range, round_to_grid, to_grid_
from .guards import UsedParameters, is_plain, require_no_tensor_hooks, require_plain
from .memcnn_engine import run_with_memcnn
from .slabs import Gradients
from .steps import Residual, Step, pull_back

__all__ = ["ENGINES", "Chain", "check_engine"]

ENGINES = ("native", "memcnn", "checkpoint", "none")

_Keeps = list[torch.Tensor | None]


def check_engine(engine: str) -> None:
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")


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


class _Native(torch.autograd.Function):
    """The whole chain: forward keeps the final state only, in place; backward computes it back step by step."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        chain: Chain,
        keeps: _Keeps,
        used: UsedParameters,
        x1: torch.Tensor,
        x2: torch.Tensor,
        *parameters: nn.Parameter,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        ctx.chain, ctx.keeps, ctx.used, ctx.parameters = chain, keeps, used, parameters
        ctx.autocast = _Autocast(x1.device.type)
        ctx.types = x1.dtype, x2.dtype
        levels, ctx.kept = [to_grid_(x1), to_grid_(x2)], []
        ctx.sums = channel_sums(levels)
        deepest = x1
        with ctx.autocast():
            for i, (step, keep) in enumerate(zip(chain.steps, keeps, strict=True)):
                if i == chain.bottleneck:
                    deepest = torch.cat(levels[-2:], 1)
                ctx.kept.append(step.advance_(levels, keep))  # type: ignore[operator]
            logits = chain.apply_head(*levels)
        ctx.levels = levels
        return logits, deepest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logits: torch.Tensor | None, grad_deepest: torch.Tensor | None) -> tuple:
        chain, levels, kept = ctx.chain, ctx.levels, ctx.kept
        if levels is None:
            raise RuntimeError(
                "the native engine got a second backward pass through one forward pass; its states are used up by the "
                "first: run forward again, or use engine='checkpoint'"
            )
        ctx.levels = ctx.kept = None
        if not ctx.used.are_those_of(chain):
            raise RuntimeError(
                "the native engine met other parameters in the backward pass than in the forward pass; expected the "
                "same ones, unchanged: change them after backward only, or use engine='checkpoint'"
            )
        found = Gradients()
        with ctx.autocast():
            if grad_logits is None:
                grads = [torch.zeros_like(x) for x in levels]
            else:
                grads = pull_back(chain.apply_head, levels, chain.head.parameters(), grad_logits, found)
            for i in reversed(range(len(chain.steps))):
                try:
                    chain.steps[i].retreat_(levels, grads, ctx.keeps[i], kept.pop(), found)
                except OutOfGrid:
                    raise RuntimeError(_why_inexact(chain, i + 1, levels, ctx.keeps)) from None
                if i == chain.bottleneck and grad_deepest is not None:
                    for grad, part in zip(grads[-2:], grad_deepest.chunk(2, 1), strict=True):
                        grad += part
        if not have_sums(levels, ctx.sums):
            raise RuntimeError(_why_inexact(chain, 0, levels, ctx.keeps))
        grads = [grad.to(dtype) for grad, dtype in zip(grads, ctx.types, strict=True)]
        return None, None, None, *grads, *(found[p] for p in ctx.parameters)


def _why_inexact(chain: Chain, first: int, levels: list[torch.Tensor], keeps: _Keeps) -> str:
    """From the state before step ``first``, with that of the deepest level last."""
    sizes = [largest(levels[-2:])]
    for step, keep in list(zip(chain.steps, keeps, strict=True))[first:]:
        step.advance_(levels, keep)  # type: ignore[operator]
        sizes.append(largest(levels[-2:]))
    return out_of_range("native", torch.tensor(sizes).max().item()) or (
        "the native engine computed back another state than the forward pass had, so the gradients are wrong; "
        "expected operations that give the same bits twice: see torch.use_deterministic_algorithms, or use "
        "engine='checkpoint'"
    )


class Chain(nn.Module):
    """Steps from the stem's output to the logits, with one of four ways to their gradients.

    - "native": keeps the final state alone and computes every earlier one from it, in place, in the backward pass;
    - "memcnn": the same idea by the package that the paper used, one coupling at a time;
    - "checkpoint": keeps the input of every coupling and repeats the coupling in the backward pass;
    - "none": keeps everything.

    In evaluation and without gradients all of them are the plain forward pass.

    Args:
        steps: what the chain does; they bring the list of levels back to one level.
        head: 1x1x1 convolution of the final state.
        bottleneck: number of the step before which the state of the deepest level is given out.
        engine: "native", "memcnn", "checkpoint" or "none".

    Shape:
        - x1, x2: (N, C / 2, D, H, W), the halves of the state. The engine may use them up.
        - output: logits (N, out, D, H, W) and the state of the deepest level.

    Raises:
        ValueError: when the engine is another.
        RuntimeError: in a forward pass of "native", when a module of the chain has hooks, a parametrization or a class
            that is not known, or a parameter has a hook for its gradient; in a backward pass, when a state left the
            range of exactness, when parameters are not those of the forward pass, when something else made the way back
            differ from the way there, or on a second backward pass. In a forward pass of "memcnn", when a state left
            the range, or a parameter has such a hook.

    Source:
        Gomez et al. 2017, "The Reversible Residual Network: Backpropagation Without Storing Activations"; Yamazaki,
        Rathour, Le 2021 (arXiv:2103.09042), section 2.
        Not stated there: states on a grid for an exact way back, the check of it, slabs, one pass for the whole chain.
    """

    def __init__(self, steps: Sequence[Step], head: nn.Conv3d, bottleneck: int, engine: str) -> None:
        super().__init__()
        check_engine(engine)
        self.steps = nn.ModuleList(steps)
        self.head = head
        self.bottleneck = bottleneck
        self.engine = engine

    def apply_head(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """Logits of the state's halves, without joining them unless the head has to be called as a module."""
        if torch.jit.is_scripting():
            pass
        elif not is_plain(self.head):
            return self.head(torch.cat([x1, x2], 1))
        width = x1.shape[1]
        logits = F.conv3d(x1, self.head.weight[:, :width], self.head.bias)
        return logits.add_(F.conv3d(x2, self.head.weight[:, width:]))

    def _run_plain(self, x1: torch.Tensor, x2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        levels = [x1, x2]
        deepest = x1
        for i, step in enumerate(self.steps):
            if i == self.bottleneck:
                deepest = torch.cat([levels[-2], levels[-1]], 1)
            levels = step(levels, None)
        return self.apply_head(levels[0], levels[1]), deepest

    @torch.compiler.disable
    def _train(self, x1: torch.Tensor, x2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        keeps = [step.draw_keep(x1) for step in self.steps]  # type: ignore[operator]
        engine = self.engine if torch.is_grad_enabled() else "none"
        if engine in ("native", "memcnn"):
            require_no_tensor_hooks(self, engine)
        if engine == "native":
            require_plain(self)
            used = UsedParameters(self)
            return _Native.apply(self, keeps, used, x1, x2, *used.to_train)
        levels = [round_to_grid(x1), round_to_grid(x2)]
        if engine == "memcnn":
            levels, deepest = run_with_memcnn(self.steps, keeps, levels, self.bottleneck)
            return self.apply_head(*levels), deepest
        deepest = x1
        for i, (step, keep) in enumerate(zip(self.steps, keeps, strict=True)):
            if i == self.bottleneck:
                deepest = torch.cat(levels[-2:], 1)
            if engine == "checkpoint" and isinstance(step, Residual):
                x2, x1 = levels.pop(), levels.pop()
                levels += checkpoint(step.coupling, x1, x2, keep, use_reentrant=False)
            else:
                levels = step(levels, keep)
        return self.apply_head(*levels), deepest

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.jit.is_scripting() or not self.training:
            return self._run_plain(x1, x2)
        else:
            return self._train(x1, x2)
