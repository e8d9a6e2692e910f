"""What fits a card: the memory of a training step, predicted without taking it.

``python -m invres3d.plan --patch 128 128 128 --in_channels 4 --memory 8GiB``
"""

from .memory_units import format_bytes, parse_bytes
from .patches import largest_cube
from .prediction import NETWORKS, OPTIMIZERS, Prediction, Training, predict
from .table import choices, format_table

__all__ = [
    "NETWORKS",
    "OPTIMIZERS",
    "Prediction",
    "Training",
    "choices",
    "format_bytes",
    "format_table",
    "largest_cube",
    "parse_bytes",
    "predict",
]
