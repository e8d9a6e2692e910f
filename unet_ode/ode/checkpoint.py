"""Exact gradients of the steps of a solve, recomputed from a few stored states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .solver import RungeKutta

__all__ = ["find_parameters", "retrace", "solve_with_checkpoints"]


def _take_step(solver: RungeKutta, y: torch.Tensor, step: list[torch.Tensor]) -> torch.Tensor:
    """The state of all samples after one of them, or some, took a step."""
    rows, t, h = step
    if len(rows) == len(y):
        return solver.advance(t, h, y)
    return y.index_copy(0, rows, solver.advance(t, h, y[rows]))


def retrace(solver: RungeKutta, y: torch.Tensor, steps: list[list[torch.Tensor]]) -> torch.Tensor:
    """The state after the given steps, taken again."""
    for step in steps:
        y = _take_step(solver, y, step)
    return y


def _segments(num_steps: int, stored: list[int]) -> Iterator[tuple[int, range]]:
    """(number of the stored state, the steps that follow it), the last one first."""
    ends = [*stored[1:], num_steps]
    for i in reversed(range(len(stored))):
        yield i, range(stored[i], ends[i])


def find_parameters(func: nn.Module) -> list[torch.Tensor]:
    """The parameters of a field, each once; also of a replica of DataParallel, which lists none itself."""
    found: dict[int, torch.Tensor] = {}
    for module in func.modules():
        held: Any = module._former_parameters if getattr(module, "_is_replica", False) else module._parameters
        found |= {id(p): p for p in held.values() if p is not None}
    return list(found.values())


class _Checkpointed(torch.autograd.Function):
    """Forward: any solve. Backward: each step again, one at a time, from its starting state; gradients are chained.

    The parameters are inputs, so that their gradients arrive where DistributedDataParallel waits for them.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, solver: RungeKutta, max_states: int, y: torch.Tensor, *params: torch.Tensor
    ) -> torch.Tensor:
        end, steps, stored, states = solver.solve(y, max_states)
        ctx.solver, ctx.steps, ctx.stored, ctx.max_states = solver, steps, stored, max_states
        ctx.device_type = y.device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device_type), torch.get_autocast_dtype(ctx.device_type)
        ctx.shape = y.shape
        ctx.save_for_backward(*params, *(tensor for state in states for tensor in state))
        ctx.num_params = len(params)
        return end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        tensors = ctx.saved_tensors  # once: every access unpacks them again
        params, saved = tensors[: ctx.num_params], tensors[ctx.num_params :]
        present = find_parameters(ctx.solver.func)
        if [p.data_ptr() for p in present] != [p.data_ptr() for p in params]:
            raise RuntimeError(
                f"block '{ctx.solver.name}': the field's parameters have changed since the forward pass, as with "
                "torch.func.functional_call; use gradient='backprop'"
            )
        wanted = [p for p, needed in zip(params, ctx.needs_input_grad[3:], strict=True) if needed]
        sums: list[torch.Tensor | None] = [None] * len(wanted)
        grad = grad.clone()
        enabled, dtype = ctx.autocast
        # without the cache, where some versions keep weights that were cast without autograd's record
        with torch.autocast(ctx.device_type, dtype=dtype, enabled=enabled, cache_enabled=False):
            for i, numbers in _segments(len(ctx.steps), ctx.stored):
                rows, y = saved[2 * i : 2 * i + 2]
                stack = [(_fill(y, rows, ctx.shape), numbers)]
                while stack:
                    y, numbers = stack.pop()
                    if len(numbers) == 1:
                        _pull_back_step(ctx.solver, ctx.steps[numbers[0]], y, grad, wanted, sums)
                    else:
                        stack += _divide(ctx.solver, y, ctx.steps, numbers, ctx.max_states)
        gradients = iter(sums)
        grads = [next(gradients) if needed else None for needed in ctx.needs_input_grad[3:]]
        return None, None, grad if ctx.needs_input_grad[2] else None, *grads


def _divide(
    solver: RungeKutta, y: torch.Tensor, steps: list[list[torch.Tensor]], numbers: range, max_states: int
) -> list[tuple[torch.Tensor, range]]:
    """Parts of a segment that starts at ``y``, each with the state at its start, at most ``max_states``, or 2."""
    size = -(-len(numbers) // max(max_states, 2))
    parts = [numbers[i : i + size] for i in range(0, len(numbers), size)]
    starts = [y]
    with torch.no_grad():
        for part in parts[:-1]:
            starts.append(retrace(solver, starts[-1], [steps[number] for number in part]))
    return list(zip(starts, parts, strict=True))


def _fill(y: torch.Tensor, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The states of the samples under way in their rows of the whole batch; the other rows are never read."""
    return y if len(rows) == shape[0] else y.new_zeros(shape).index_copy_(0, rows, y)


def _pull_back_step(
    solver: RungeKutta,
    step: list[torch.Tensor],
    y: torch.Tensor,
    grad: torch.Tensor,
    params: list[torch.Tensor],
    sums: list[torch.Tensor | None],
) -> None:
    """Pull ``grad``, of the state after the step, back to the state before it, in place; add to the parameters'."""
    rows, t, h = step
    everyone = len(rows) == len(y)
    with torch.enable_grad():
        start = (y if everyone else y[rows]).detach().requires_grad_()
        end = solver.advance(t, h, start)
    back, *parameter_grads = torch.autograd.grad(
        end, [start, *params], grad if everyone else grad[rows], allow_unused=True
    )
    if everyone:
        grad.copy_(back)
    else:
        grad.index_copy_(0, rows, back)
    for i, value in enumerate(parameter_grads):
        so_far = sums[i]
        if value is not None:
            sums[i] = value if so_far is None else so_far + value  # not in place: p and q of p + q share their gradient


def solve_with_checkpoints(solver: RungeKutta, y: torch.Tensor, max_states: int) -> torch.Tensor:
    """Solve so that backward gives the exact gradients of the accepted steps, whose lengths are taken for given.

    Backward repeats one step at a time. At most ``max_states`` states m are stored. Where there were more steps, s, the
    states between are computed again in the same manner, parts of parts: m states more, and less than one more pass
    over the accepted steps, each time that s passes another power of m.

    Args:
        solver: what integrates.
        y: (N, ...), the state at t = 0.
        max_states: states to store, 1 or more.

    Raises:
        SolverError: when the dynamics cannot be integrated.
        RuntimeError: in backward, when the field's parameters have changed since the forward pass.

    Source:
        Gholami et al. 2019, "ANODE: Unconditionally Accurate Memory-Efficient Gradients for Neural ODEs", section 3
        (gradients of the discrete steps from stored states).
    """
    return _Checkpointed.apply(solver, max_states, y, *find_parameters(solver.func))
