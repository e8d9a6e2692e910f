"""Step size control as a loop inside the graph of an ``ExportedProgram``, for ``torch.export``."""

from __future__ import annotations

import torch

from .runge_kutta_step import per_sample, step_factor
from .solver import RungeKutta

__all__ = ["solve_in_graph"]


def solve_in_graph(solver: RungeKutta, y: torch.Tensor) -> torch.Tensor:
    """The state at t = 1 by the steps that :meth:`RungeKutta._controlled_steps` takes, for ``torch.export``.

    All samples stay in the batch until the last one has arrived, so a sample that arrived early costs evaluations that
    change nothing. A graph cannot raise :class:`SolverError`: a sample that has not arrived after ``max_nfe``
    evaluations, or whose field is not finite, is NaN.

    Args:
        solver: with controlled steps.
        y: (N, ...), the state at t = 0.
    """
    from torch._higher_order_ops import while_loop  # torch has no public name for it yet

    t = torch.zeros_like(y.flatten(1)[:, 0])
    k = solver.func(t, y).to(y.dtype)
    h = torch.full_like(t, solver.first_step) if solver.first_step > 0 else solver._guess_step(t, y, k)
    nfe = torch.full([], 1 if solver.first_step > 0 else 2, device=y.device)
    under_way = torch.ones_like(t, dtype=torch.bool)

    def is_unfinished(under_way, nfe, t, h, y, k):
        return under_way.any() & (nfe <= solver.max_nfe)

    def take_step(under_way, nfe, t, h, y, k):
        h = torch.where(h > (1 - t) / 1.1, 1 - t, h)
        y_new, k_new, ratio = solver._try_step(t, h, y, k)
        accept = under_way & (ratio <= 1)
        nfe = nfe + (len(solver._b) - 1)
        under_way = under_way & ~(accept & (h >= 1 - t) & (nfe <= solver.max_nfe))
        t = torch.where(accept, t + h, t)
        y, k = (torch.where(per_sample(accept, y), new, old) for new, old in ((y_new, y), (k_new, k)))
        return under_way, nfe, t, h * step_factor(ratio, solver._order), y, k

    under_way, nfe, t, h, y, k = while_loop(is_unfinished, take_step, (under_way, nfe, t, h, y, k))
    return torch.where(per_sample(under_way, y), torch.full_like(y, torch.nan), y)
