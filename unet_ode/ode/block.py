"""Layer whose output is the solution of an ordinary differential equation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchdiffeq
from monai.data import MetaTensor
from torch import nn
from torch.autograd.function import once_differentiable

from .checkpoint import find_parameters, retrace, solve_with_checkpoints
from .field import require_function
from .graph import solve_in_graph
from .outcome import SolverStats
from .solver import RungeKutta
from .tableaus import TABLEAUS

__all__ = ["ODEBlock"]

_GRADIENTS = ("checkpoint", "backprop", "adjoint")
_SHORT = (torch.float16, torch.bfloat16)


class _CountedField(nn.Module):
    """The field for torchdiffeq: counted, and refused where it is not finite or called more often than max_nfe."""

    def __init__(self, block: ODEBlock) -> None:
        super().__init__()
        self.func = block.func
        self._block = [block]  # in a list, so that its parameters are not found twice
        self.nfe = 0
        self.last: torch.Tensor | None = None
        self.times: deque[float] = deque(maxlen=len(TABLEAUS[block.method].b))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        block, self.last = self._block[0], y.detach()
        self.times.append(float(t.detach()))
        k = self.func(t.to(y.dtype).expand(len(y)), y).to(y.dtype)
        self.nfe += 1
        bad = ~torch.isfinite((k + y).detach().flatten(1)).all(1)
        if self.nfe > block.max_nfe or bool(bad.any()):
            reason = "max_nfe exceeded" if self.nfe > block.max_nfe else "the field is not finite"
            self.fail(reason)
        return k

    def fail(self, reason: str) -> None:
        """Name the sample that is not finite or, as all share one step, the largest.

        torchdiffeq keeps dt to itself: what the last step's evaluations span stands for it.
        """
        assert self.last is not None
        size = self.last.flatten(1).abs().amax(1).nan_to_num(nan=float("inf"))
        t, span = self.last.new_tensor([self.times[-1], max(self.times) - min(self.times)])
        self._block[0].fail(int(size.argmax()), t, span, self.nfe, reason)


def _rms(x: torch.Tensor) -> torch.Tensor:
    return x.abs().pow(2).mean().sqrt()


def _adjoint_norm(func: nn.Module, params: Sequence[torch.Tensor]) -> Callable[[Sequence[torch.Tensor]], torch.Tensor]:
    """torchdiffeq's own norm of the adjoint state, the largest of its parts', with split parameters taken as one.

    Step sizes of the adjoint equation depend on how parameters are divided into tensors; ``func.split_parameters()``,
    where it exists, lists those that are parts of one tensor in the equation as it was published.
    """
    places = {id(p): i for i, p in enumerate(p for p in params if p.requires_grad)}
    split: list[list[torch.Tensor]] = getattr(func, "split_parameters", list)()
    groups = [[places.pop(id(part)) for part in parts if id(part) in places] for parts in split]
    groups = [group for group in groups if group] + [[i] for i in places.values()]

    def norm(state: Sequence[torch.Tensor]) -> torch.Tensor:
        t, y, adjoint, *grads = state
        whole = [torch.cat([grads[i].flatten() for i in group]) for group in groups]
        return torch.stack([t.abs(), *map(_rms, (y, adjoint, *whole))]).max()

    return norm


class _Adjoint(torch.autograd.Function):
    """torchdiffeq's adjoint method, whose own backward would end in an assertion that names nothing."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, field: _CountedField, options: dict[str, Any], y: torch.Tensor, *params: torch.Tensor
    ) -> torch.Tensor:
        ctx.field, ctx.params = field, params
        with torch.enable_grad():
            ctx.start = y.detach().requires_grad_()
            try:
                ctx.end = torchdiffeq.odeint_adjoint(field, ctx.start, y.new_tensor([0.0, 1.0]), **options)[-1]
            except AssertionError as error:  # its way to say that the step size went to zero
                field.fail(str(error))
        return ctx.end.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        wanted = [p for p in ctx.params if p.requires_grad]
        try:
            back, *parameter_grads = torch.autograd.grad(ctx.end, [ctx.start, *wanted], grad, allow_unused=True)
        except AssertionError as error:
            ctx.field.fail(f"in backward, {error}")
        grads = iter(parameter_grads)
        return None, None, back, *(next(grads) if p.requires_grad else None for p in ctx.params)


class ODEBlock(RungeKutta):
    """y(0) -> y(1) of dy/dt = func(t, y): a layer as deep as the error asks for.

    Args:
        func: module ``func(t, y)``; t: (M,), y: (M, ...), result: (M, ...). It is called with any M of the batch's
            samples and must give the same for the same input: no dropout, no batch statistics, no state that changes.
        method: "bosh3" or "dopri5", which control their steps, or "euler", "midpoint", "rk4" with ``num_steps``.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.
        num_steps: number of equal steps; None controls them.
        gradient: how backward works. "checkpoint": exact gradients of the steps taken, memory of one step and of
            ``max_states`` states. "backprop": the same gradients by plain autograd, memory of all steps.
            "adjoint": torchdiffeq's ``odeint_adjoint``, as in the paper: one step size for the whole batch, gradients
            from a second equation, solved with the same tolerances; its "rk4" is the 3/8 rule. Where ``func`` has a
            method ``split_parameters()``, lists of parameters that are parts of one tensor in the published equation,
            the error of their gradients is measured as that of one tensor.
        first_step: length of the first step tried, in (0, 1]; None estimates one, by one more evaluation.
        max_nfe: evaluations that a sample may take in a pass; counted after each step.
        max_states: states that "checkpoint" stores in a block, at least 1.
        name: what errors call this block.

    Shape:
        - y: (N, ...). The state, the time and the error are of 32 bits at least, under autocast too.
        - output: the same shape and type.

    Raises:
        ValueError: when an argument is out of range; when a layer of ``func`` takes statistics over the batch, or in
            training mode draws random numbers or changes statistics.
        SolverError: when the dynamics are too stiff for ``max_nfe``, blow up, or are not finite.
        TypeError: when the state is not (N, ...) of floats, or the field's weights have 16 bits.
        RuntimeError: when a pass with controlled steps is traced: the trace would be wrong for every other input; and
            when "adjoint" is scripted, traced or exported. TorchScript's own gradients go through the step control too.

    Source:
        Chen et al. 2018, "Neural Ordinary Differential Equations"; Pinckaers and Litjens 2019, "Neural Ordinary
        Differential Equations for Semantic Segmentation of Individual Colon Glands", section 2.

    Example:
        >>> class Decay(torch.nn.Module):
        ...     def forward(self, t, y):
        ...         return -y
        >>> block = ODEBlock(Decay(), rtol=1e-6, atol=1e-6)
        >>> block(torch.ones(1, 3))  # exp(-1)
        tensor([[0.3679, 0.3679, 0.3679]])
    """

    def __init__(
        self,
        func: nn.Module,
        method: str = "bosh3",
        rtol: float = 1e-3,
        atol: float = 1e-3,
        num_steps: int | None = None,
        gradient: str = "checkpoint",
        first_step: float | None = None,
        max_nfe: int = 1000,
        max_states: int = 4,
        name: str = "ode",
    ) -> None:
        if method not in TABLEAUS:
            raise ValueError(f"method is {method!r}; expected one of {', '.join(TABLEAUS)}")
        if gradient not in _GRADIENTS:
            raise ValueError(f"gradient is {gradient!r}; expected one of {', '.join(_GRADIENTS)}")
        if gradient == "adjoint" and num_steps is not None and TABLEAUS[method].error is not None:
            raise ValueError(f"{method} has step size control with gradient 'adjoint'; omit num_steps, or use euler")
        if gradient == "adjoint" and first_step is not None:
            raise ValueError(f"first_step is {first_step}, which gradient 'adjoint' does not accept; omit it")
        if max_states < 1:
            raise ValueError(f"max_states is {max_states}; expected a positive integer")
        super().__init__(func, TABLEAUS[method], rtol, atol, num_steps, first_step, max_nfe, name)
        self.gradient = gradient
        self.max_states = max_states

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing() and self.num_steps == 0:
            raise RuntimeError(
                f"block '{self.name}': {self.method} with step size control cannot be traced, because the "
                "steps depend on the input; use torch.jit.script, or give num_steps"
            )
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return self._solve_without_gradients(y)
        return self._solve_eagerly(y)

    def _at_least_float32(self, y: torch.Tensor) -> torch.Tensor:
        return y.float() if y.dtype == torch.float16 or y.dtype == torch.bfloat16 else y

    def _solve_without_gradients(self, y: torch.Tensor) -> torch.Tensor:
        """Solve without gradients of its own, counts or Python."""
        if self.gradient == "adjoint":
            raise RuntimeError(
                f"block '{self.name}': torchdiffeq's solver, which gradient 'adjoint' uses, cannot be scripted, "
                "traced or exported; build the network with gradient 'checkpoint' instead"
            )
        state = self._at_least_float32(y)
        if self.num_steps == 0:
            return self._controlled_steps(state, 0)[0].to(y.dtype)
        end = self._equal_steps(state, 0)[0]
        if torch.jit.is_scripting():
            self._require_finite(state, end)
        return end.to(y.dtype)

    @torch.jit.unused
    def _solve_eagerly(self, y: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            controlled = self.num_steps == 0 and self.gradient != "adjoint"
            if controlled:
                return solve_in_graph(self, self._at_least_float32(y)).to(y.dtype)
            return self._solve_without_gradients(y)
        params = find_parameters(self.func)
        if y.dim() < 2 or not y.is_floating_point() or any(p.dtype in _SHORT for p in params):
            raise TypeError(
                f"block '{self.name}': the state has shape {tuple(y.shape)} and type {y.dtype}, the field "
                f"{sorted({str(p.dtype) for p in params})}; expected (N, ...) of floats, and weights of at least "
                "32 bits: use torch.autocast for lower precision"
            )
        require_function(self.func, self.name)
        state = self._at_least_float32(y.as_tensor() if isinstance(y, MetaTensor) else y)
        differentiable = torch.is_grad_enabled() and (state.requires_grad or any(p.requires_grad for p in params))
        if self.gradient == "adjoint":
            end = self._adjoint(state)
        elif not differentiable:
            end = self.solve(state)[0]
        elif self.gradient == "checkpoint":
            end = solve_with_checkpoints(self, state, self.max_states)
        else:
            steps = self.solve(state, max_states=1)[1]
            torch.clear_autocast_cache()  # of weights that were cast without autograd's record
            end = retrace(self, state, steps)
        end = end.to(y.dtype)
        return MetaTensor(end).copy_meta_from(y) if isinstance(y, MetaTensor) else end

    @torch.jit.unused
    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        field = _CountedField(self)
        options = {"step_size": 1 / self.num_steps} if self.num_steps else {}
        params = find_parameters(self.func)
        solver = {"rtol": self.rtol, "atol": self.atol, "method": self.method, "options": options}
        solver |= {"adjoint_params": params, "adjoint_options": {**options, "norm": _adjoint_norm(self.func, params)}}
        end = _Adjoint.apply(field, solver, y, *params)
        nfe = torch.full((len(y),), field.nfe)
        self._stats = SolverStats(nfe, torch.full_like(nfe, -1), torch.full_like(nfe, -1))
        field.nfe = 0  # backward has as many evaluations of its own
        field.times.clear()
        return end

    @torch.jit.unused
    def last_stats(self) -> SolverStats:
        """The counts of the last forward pass in Python; -1 where "adjoint" does not know the number of steps.

        Raises:
            RuntimeError: when there was none yet.

        Example:
            >>> class Decay(torch.nn.Module):
            ...     def forward(self, t, y):
            ...         return -y
            >>> block = ODEBlock(Decay(), method="rk4", num_steps=2)
            >>> _ = block(torch.ones(1, 3))
            >>> block.last_stats().nfe
            tensor([8])
        """
        if self._stats is None:
            raise RuntimeError(f"block '{self.name}' has not run yet; call it on a batch first")
        return self._stats
