"""Weight maps, windows and alignment, as MONAI transforms on arrays and dictionaries."""

from .alignment import SubpixelShift, SubpixelShiftd
from .weight_maps import BalancedSampling, BalancedSamplingd, BorderWeightMap, BorderWeightMapd
from .windows import Foveate, Foveated, NonUniformSample, NonUniformSampled

__all__ = [
    "BalancedSampling",
    "BalancedSamplingd",
    "BorderWeightMap",
    "BorderWeightMapd",
    "Foveate",
    "Foveated",
    "NonUniformSample",
    "NonUniformSampled",
    "SubpixelShift",
    "SubpixelShiftd",
]
