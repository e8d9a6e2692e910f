"""What engines can do besides on the way: reports about U-Node, and an encoder that is unfrozen."""

from .receptive_field_picture import ReceptiveFieldPicture
from .solver_report import SolverReport
from .unfreeze_encoder import UnfreezeEncoder

__all__ = ["ReceptiveFieldPicture", "SolverReport", "UnfreezeEncoder"]
