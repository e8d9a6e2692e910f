"""What an evaluator can tell about U-Node on the way: evaluations of each block, and what an output pixel looks at."""

from .receptive_field_picture import ReceptiveFieldPicture
from .solver_report import SolverReport

__all__ = ["ReceptiveFieldPicture", "SolverReport"]
