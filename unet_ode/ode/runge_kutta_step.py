"""One step of an explicit Runge-Kutta method with a step size per sample."""

from __future__ import annotations

import torch
from torch import nn

from .tableaus import Tableau

__all__ = ["RungeKuttaStep", "per_sample", "rms", "step_factor"]


def per_sample(values: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """One number for each sample, shaped to multiply the state."""
    return values.reshape([-1] + [1] * (y.dim() - 1))


def rms(x: torch.Tensor) -> torch.Tensor:
    """Root mean square of each sample."""
    return x.flatten(1).square().mean(1).sqrt()


def step_factor(ratio: torch.Tensor, order: int) -> torch.Tensor:
    """By how much the next step is longer than this one, from the ratio of its error to the tolerance."""
    factor = (0.9 * ratio ** (-1.0 / order)).clamp(0.2, 5.0).nan_to_num(0.2)
    return torch.where(ratio <= 1, factor, factor.clamp(max=0.9))


class RungeKuttaStep(nn.Module):
    """The stages of a method, their sum, and the error that the method estimates. TorchScript compiles it.

    Args:
        func: module ``func(t, y)`` that gives dy/dt, (M, ...), of the states y, (M, ...), at the times t, (M,).
        tableau: the method.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.

    Source:
        Step control and first step: Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", section II.4.
    """

    def __init__(self, func: nn.Module, tableau: Tableau, rtol: float, atol: float) -> None:
        super().__init__()
        self.func = func
        self.method = tableau.name
        self.rtol, self.atol = float(rtol), float(atol)
        self._a = [[0.0], *map(list, tableau.a[1:])]  # TorchScript cannot type an empty list
        self._b, self._c = list(tableau.b), list(tableau.c)
        self._error = list(tableau.error or [0.0])
        self._order = tableau.order
        self._stages_of_step = tableau.stages_of_step

    def _stages(
        self, t: torch.Tensor, h: torch.Tensor, y: torch.Tensor, k: list[torch.Tensor], num: int
    ) -> list[torch.Tensor]:
        """The first ``num`` stages; ``k`` holds those that are known."""
        for i in range(len(k), num):
            at = self._combine(h, y, k, self._a[i]) if i > 0 else y
            k.append(self.func(t + self._c[i] * h, at).to(y.dtype))
        return k

    def _combine(self, h: torch.Tensor, y: torch.Tensor, k: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
        """y + h sum_i weights_i k_i."""
        step = per_sample(h, y)
        for i in range(min(len(k), len(weights))):
            if weights[i] != 0.0:
                y = torch.addcmul(y, k[i], step, value=weights[i])
        return y

    def advance(self, t: torch.Tensor, h: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The state after one step, by the fewest evaluations."""
        return self._combine(h, y, self._stages(t, h, y, [], self._stages_of_step), self._b)

    def _try_step(
        self, t: torch.Tensor, h: torch.Tensor, y: torch.Tensor, k: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """State and slope after one step from the slope ``k``, and the ratio of its error to the tolerance."""
        stages = self._stages(t, h, y, [k], len(self._b) - 1)
        y_new = self._combine(h, y, stages, self._b)
        stages.append(self.func(t + h, y_new).to(y.dtype))
        return y_new, stages[-1], self._error_ratio(h, y, y_new, stages)

    def _guess_step(self, t: torch.Tensor, y: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        scale = self.atol + self.rtol * y.abs()
        size, slope = rms(y / scale), rms(k / scale)
        # a sample of zeros, or one that does not move, gives no scale of time
        small = torch.where((size < 1e-5) | (slope < 1e-5), torch.full_like(t, 1e-3), 0.01 * size / slope).clamp(max=1)
        there = self.func(t + small, torch.addcmul(y, k, per_sample(small, y))).to(y.dtype)
        bend = rms((there - k) / scale) / small
        steepest = torch.maximum(slope, bend)
        guess = (0.01 / steepest) ** (1.0 / (self._order + 1))
        # nothing moves yet: try the longest step that the first line allows
        guess = torch.where(steepest <= 1e-15, torch.ones_like(guess), guess)
        return torch.minimum(100 * small, guess).nan_to_num(nan=1e-3).clamp(max=1)

    def _error_ratio(
        self, h: torch.Tensor, y: torch.Tensor, y_new: torch.Tensor, k: list[torch.Tensor]
    ) -> torch.Tensor:
        error = self._combine(h, torch.zeros_like(y), k, self._error)
        scale = torch.maximum(y.abs(), y_new.abs()).mul_(self.rtol).add_(self.atol)
        return rms(error / (scale if self.atol > 0 else scale.clamp(min=1e-30)))
