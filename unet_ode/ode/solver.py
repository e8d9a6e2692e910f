"""Explicit Runge-Kutta solver from t = 0 to t = 1 with a step size per sample."""

from __future__ import annotations

from math import inf

import torch
from torch import nn

from .outcome import SolverError, SolverStats
from .runge_kutta_step import RungeKuttaStep, per_sample, rms, step_factor
from .tableaus import Tableau

__all__ = ["RungeKutta"]


def _check_options(
    tableau: Tableau, rtol: float, atol: float, num_steps: int | None, first_step: float | None, max_nfe: int
) -> None:
    controls = tableau.error is not None and tableau.first_same_as_last
    if isinstance(num_steps, bool) or isinstance(max_nfe, bool):
        raise ValueError(f"num_steps is {num_steps}, max_nfe {max_nfe}; expected integers")
    if num_steps is None and not controls:
        raise ValueError(f"method {tableau.name} has no step size control; give num_steps, or use bosh3 or dopri5")
    if not (0 <= rtol < inf and 0 <= atol < inf) or (num_steps is None and rtol + atol == 0):
        raise ValueError(f"rtol is {rtol}, atol {atol}; expected finite numbers >= 0, not both 0")
    if num_steps is not None and (num_steps != int(num_steps) or num_steps < 1):
        raise ValueError(f"num_steps is {num_steps}; expected a positive integer, or None for step size control")
    if first_step is not None and not 0 < first_step <= 1:
        raise ValueError(f"first_step is {first_step}; expected a number in (0, 1], or None")
    least = tableau.stages_of_step * (num_steps or 1) + (0 if num_steps else 1 if first_step else 2)
    if max_nfe < least:
        raise ValueError(f"max_nfe is {max_nfe}; expected at least {least}, which {tableau.name} needs")


def _thin_out(
    stored: list[int], states: list[list[torch.Tensor]], stride: int, max_states: int
) -> tuple[list[int], list[list[torch.Tensor]], int]:
    """The states to keep, and the number of steps from one to the next: every second one once there are too many."""
    if len(stored) > max_states:
        return stored[::2], states[::2], 2 * stride
    return stored, states, stride


class RungeKutta(RungeKuttaStep):
    """Solves dy/dt = func(t, y), y(0) given, for y(1), with steps of its own for each sample of a batch.

    A step h of a sample is accepted where rms(e / (atol + rtol max(|y|, |y_new|))) <= 1, e being the method's estimate
    of its error and the mean going over the sample's elements; then and otherwise the next h is 0.9 ratio^(-1/p) times
    this one, within 0.2 and 5. The last step ends at t = 1; a sample that has arrived there leaves the batch. Hence a
    sample's result does not depend on its neighbours. TorchScript compiles the class.

    Args:
        func: module ``func(t, y)`` that gives dy/dt, (M, ...), of the states y, (M, ...), at the times t, (M,), of any
            M samples; the same for the same input (no dropout, no batch statistics).
        tableau: the method.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.
        num_steps: number of equal steps; None lets the error control them.
        first_step: length of the first step tried, in (0, 1]; None estimates one from one more evaluation.
        max_nfe: evaluations that a sample may take.
        name: what errors call these dynamics.

    Raises:
        ValueError: when an argument is out of range, or the method has no error estimate and num_steps is None.

    Source:
        Step control and first step: Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", section II.4.
    """

    def __init__(
        self,
        func: nn.Module,
        tableau: Tableau,
        rtol: float,
        atol: float,
        num_steps: int | None,
        first_step: float | None,
        max_nfe: int,
        name: str,
    ) -> None:
        _check_options(tableau, rtol, atol, num_steps, first_step, max_nfe)
        super().__init__(func, tableau, rtol, atol)
        self.num_steps = 0 if num_steps is None else int(num_steps)
        self.first_step = 0.0 if first_step is None else float(first_step)
        self.max_nfe, self.name = int(max_nfe), name
        self._stats: SolverStats | None = None

    @torch.jit.unused
    def solve(
        self, y: torch.Tensor, max_states: int = 0
    ) -> tuple[torch.Tensor, list[list[torch.Tensor]], list[int], list[list[torch.Tensor]]]:
        """The state at t = 1, and the steps and states as :meth:`_controlled_steps` gives them; the counts are kept.

        Args:
            y: (N, ...), the state at t = 0.
            max_states: how many states on the way to return; 0 returns no steps either.

        Raises:
            SolverError: when the dynamics cannot be integrated.
        """
        with torch.no_grad():
            if self.num_steps == 0:
                end, counts, steps, stored, states = self._controlled_steps(y, max_states)
            else:
                end, steps, stored, states = self._equal_steps(y, max_states)
                counts = torch.tensor([self._stages_of_step * self.num_steps, self.num_steps, 0])
                counts = counts.to(y.device)[:, None].expand(3, len(y))
                self._require_finite(y, end)
        self._stats = SolverStats(*counts)
        return end, steps, stored, states

    def fail(self, row: int, t: torch.Tensor, h: torch.Tensor, nfe: int, reason: str) -> None:
        """Raise a SolverError that names block, sample, time and step."""
        how = f"{self.num_steps} equal steps" if self.num_steps > 0 else f"rtol {self.rtol}, atol {self.atol}"
        remedy = "increase rtol and atol" if self.num_steps == 0 else "increase num_steps"
        raise SolverError(
            f"block '{self.name}', sample {row}: {reason} at t = {t.item()}, dt = {h.item()}, after {nfe} evaluations "
            f"({self.method}, {how}); check the block's input for extreme values, {remedy} or max_nfe (now "
            f"{self.max_nfe}), or train with a smaller learning rate"
        )

    def _require_finite(self, y: torch.Tensor, end: torch.Tensor) -> None:
        """Raise where equal steps from ``y`` have left the finite numbers; the step is looked for only then."""
        if bool(torch.isfinite(rms(end)).all()):
            return
        h = torch.full([1], 1.0 / self.num_steps, dtype=y.dtype, device=y.device)
        self._require_start(y, h)
        for i in range(self.num_steps):
            t = torch.full([y.size(0)], i / self.num_steps, dtype=y.dtype, device=y.device)
            y = self.advance(t, h, y)
            bad = ~torch.isfinite(rms(y))
            if bool(bad.any()):
                row = int(torch.nonzero(bad)[0, 0].item())
                self.fail(row, t[row], h[0], (i + 1) * self._stages_of_step, "the state is not finite after the step")

    def _require_start(self, y: torch.Tensor, h: torch.Tensor) -> None:
        bad = ~torch.isfinite(rms(y))
        if bool(bad.any()):
            row = int(torch.nonzero(bad)[0, 0].item())
            self.fail(row, torch.zeros_like(h[0]), h[0], 0, "the state is too large or not finite")

    def _equal_steps(
        self, y: torch.Tensor, max_states: int
    ) -> tuple[torch.Tensor, list[list[torch.Tensor]], list[int], list[list[torch.Tensor]]]:
        """The state at t = 1 after ``num_steps`` equal steps; the rest as :meth:`_controlled_steps` gives it."""
        n = y.size(0)
        rows = torch.arange(n if max_states > 0 else 0, device=y.device)
        steps: list[list[torch.Tensor]] = []
        stored: list[int] = []
        states: list[list[torch.Tensor]] = []
        h = torch.full([1], 1.0 / self.num_steps, dtype=y.dtype, device=y.device)
        for i in range(self.num_steps):
            t = torch.full([n], i / self.num_steps, dtype=y.dtype, device=y.device)
            if max_states > 0:
                if i % -(-self.num_steps // max_states) == 0:
                    stored.append(i)
                    states.append([rows, y])
                steps.append([rows, t, h])
            y = self.advance(t, h, y)
        return y, steps, stored, states

    def _controlled_steps(
        self, y: torch.Tensor, max_states: int
    ) -> tuple[torch.Tensor, torch.Tensor, list[list[torch.Tensor]], list[int], list[list[torch.Tensor]]]:
        """Integrate with error control.

        Returns:
            the state at t = 1; counts (3, N): evaluations, accepted and rejected steps; the accepted steps in order,
            each [rows, t, h] of the samples that took it; the numbers of at most ``max_states`` of these steps, and for
            each of these [rows, y], what the samples under way were before it. ``max_states`` 0 keeps nothing.
        """
        result = torch.empty_like(y)
        rows = torch.arange(y.size(0), device=y.device)
        counts = torch.zeros([3, y.size(0)], dtype=torch.int64, device=y.device)
        t, h, k, nfe = self._begin(y)  # nfe of every sample that is not finished
        steps: list[list[torch.Tensor]] = []
        stored: list[int] = []
        states: list[list[torch.Tensor]] = []
        stride = 1
        while rows.numel() > 0:
            h = torch.where(h > (1 - t) / 1.1, 1 - t, h)  # a little longer rather than a tiny last step
            nfe += len(self._b) - 1
            accept, t_new, h_new, y_new, k = self._attempt(rows, t, h, y, k, counts, nfe)
            if max_states > 0 and bool(accept.any()):
                if len(steps) % stride == 0:
                    stored.append(len(steps))
                    states.append([rows, y])
                    stored, states, stride = _thin_out(stored, states, stride, max_states)
                steps.append([rows[accept], t[accept], h[accept]])
            arrived = accept & (h >= 1 - t)
            t, h, y = t_new, h_new, y_new
            if bool(arrived.any()):
                if bool(arrived.all()) and rows.numel() == result.size(0):
                    return y, counts, steps, stored, states
                result[rows[arrived]] = y[arrived]
                left = ~arrived
                rows, t, h, y, k = rows[left], t[left], h[left], y[left], k[left]
        return result, counts, steps, stored, states

    def _begin(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """Time 0, the length of the first step and the slope of each sample, and the evaluations that they took."""
        t = torch.zeros([y.size(0)], dtype=y.dtype, device=y.device)
        self._require_start(y, t)
        k = self.func(t, y).to(y.dtype)
        if self.first_step > 0:
            return t, torch.full_like(t, self.first_step), k, 1
        return t, self._guess_step(t, y, k), k, 2

    def _attempt(
        self,
        rows: torch.Tensor,
        t: torch.Tensor,
        h: torch.Tensor,
        y: torch.Tensor,
        k: torch.Tensor,
        counts: torch.Tensor,
        nfe: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which samples accept the step, and all samples' time, next step, state and slope."""
        y_new, k_new, ratio = self._try_step(t, h, y, k)
        accept = ratio <= 1  # not where the trial has left the finite numbers
        counts[0, rows] = nfe
        counts[1, rows] += accept.to(torch.int64)
        counts[2, rows] += (~accept).to(torch.int64)
        everyone = bool(accept.all())
        if nfe > self.max_nfe:
            self.fail(int(rows[0].item()), t[0], h[0], nfe, "max_nfe exceeded")
        if not everyone:
            self._require_progress(rows, t, h, k, ratio, nfe)
            y_new = torch.where(per_sample(accept, y), y_new, y)
            k_new = torch.where(per_sample(accept, y), k_new, k)
        return accept, torch.where(accept, t + h, t), h * step_factor(ratio, self._order), y_new, k_new

    def _require_progress(
        self, rows: torch.Tensor, t: torch.Tensor, h: torch.Tensor, k: torch.Tensor, ratio: torch.Tensor, nfe: int
    ) -> None:
        """Raise where a sample whose step was refused cannot go on."""
        smallest = 16 * (2.0**-52 if t.dtype == torch.float64 else 2.0**-23)
        infinite = ~torch.isfinite(rms(k))
        stuck = ~(ratio <= 1) & ((h <= smallest) | infinite)
        if bool(stuck.any()):
            i = int(torch.nonzero(stuck)[0, 0].item())
            finite = bool(torch.isfinite(ratio[i])) and not bool(infinite[i])
            reason = "the step size went to zero" if finite else "the field is not finite"
            self.fail(int(rows[i].item()), t[i], h[i], nfe, reason)
