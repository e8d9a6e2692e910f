"""Predicts the memory of a training step without running it.

``python -m invres3d.plan --patch 128 128 128 --in_channels 4 --memory 8GiB``
"""

from .memory_units import format_bytes, parse_bytes
from .patches import largest_cube
from .prediction import NETWORKS, OPTIMIZERS, Prediction, Training, predict
from .table import format_table, list_trainings

__all__ = [
    "NETWORKS",
    "OPTIMIZERS",
    "Prediction",
    "Training",
    "format_bytes",
    "format_table",
    "largest_cube",
    "list_trainings",
    "parse_bytes",
    "predict",
]
