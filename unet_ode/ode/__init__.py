"""Neural ODE layers, with step sizes per sample."""

from .block import ODEBlock
from .outcome import SolverError, SolverStats
from .solver import RungeKutta
from .tableaus import TABLEAUS, Tableau

__all__ = ["TABLEAUS", "ODEBlock", "RungeKutta", "SolverError", "SolverStats", "Tableau"]
