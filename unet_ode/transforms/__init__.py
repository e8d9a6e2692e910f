"""Targets, weight maps, windows, colours, polarity and alignment, as MONAI transforms on arrays and dictionaries."""

from .alignment import SubpixelShift, SubpixelShiftd
from .colour import RandColourJitter, RandColourJitterd
from .polarity import LightObjects, LightObjectsd
from .targets import ErodedTargets, ErodedTargetsd
from .weight_maps import BalancedSampling, BalancedSamplingd, BorderWeightMap, BorderWeightMapd
from .windows import Foveate, Foveated, NonUniformSample, NonUniformSampled

__all__ = [
    "BalancedSampling",
    "BalancedSamplingd",
    "BorderWeightMap",
    "BorderWeightMapd",
    "ErodedTargets",
    "ErodedTargetsd",
    "Foveate",
    "Foveated",
    "LightObjects",
    "LightObjectsd",
    "NonUniformSample",
    "NonUniformSampled",
    "RandColourJitter",
    "RandColourJitterd",
    "SubpixelShift",
    "SubpixelShiftd",
]
