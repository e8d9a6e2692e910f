"""Neural ordinary differential equations: layers that are solved, sample by sample."""

from .block import ODEBlock
from .outcome import SolverError, SolverStats
from .solver import RungeKutta
from .tableaus import TABLEAUS, Tableau

__all__ = ["TABLEAUS", "ODEBlock", "RungeKutta", "SolverError", "SolverStats", "Tableau"]
