"""Array and dictionary transforms for MONAI: targets, weight maps, windows, colour, contrast, alignment, centres."""

from .alignment import SubpixelShift, SubpixelShiftd
from .background import RandBackground, RandBackgroundd
from .centres import CentreOfMassd, EquivalentDiameterd
from .colour import RandColourJitter, RandColourJitterd
from .photographs import EvenContrast, EvenContrastd, ToGrey, ToGreyd
from .polarity import LightObjects, LightObjectsd
from .targets import ErodedTargets, ErodedTargetsd
from .weight_maps import BalancedSampling, BalancedSamplingd, BorderWeightMap, BorderWeightMapd
from .windows import Foveate, Foveated, NonUniformSample, NonUniformSampled

__all__ = [
    "BalancedSampling",
    "BalancedSamplingd",
    "BorderWeightMap",
    "BorderWeightMapd",
    "CentreOfMassd",
    "EquivalentDiameterd",
    "ErodedTargets",
    "ErodedTargetsd",
    "EvenContrast",
    "EvenContrastd",
    "Foveate",
    "Foveated",
    "LightObjects",
    "LightObjectsd",
    "NonUniformSample",
    "NonUniformSampled",
    "RandBackground",
    "RandBackgroundd",
    "RandColourJitter",
    "RandColourJitterd",
    "SubpixelShift",
    "SubpixelShiftd",
    "ToGrey",
    "ToGreyd",
]
