"""Array and dictionary transforms for MONAI: targets, weights, windows, colours, objects, lungs, brains, regions."""

from .alignment import SubpixelShift, SubpixelShiftd
from .background import RandBackground, RandBackgroundd
from .centres import CentreOfMassd, EquivalentDiameterd
from .close_cells import CloseCells, CloseCellsd
from .colour import RandColourJitter, RandColourJitterd
from .foreground import NonzeroMaskd
from .hounsfield import HounsfieldUnitsd
from .lungs import SeparateLungsd
from .photographs import EvenContrast, EvenContrastd, ToGrey, ToGreyd
from .polarity import LightObjects, LightObjectsd
from .regions import LabelsToRegionsd, RegionsToLabelsd
from .separate_objects import SeparateObjects, SeparateObjectsd
from .split_objects import SplitObjects, SplitObjectsd
from .targets import ErodedTargets, ErodedTargetsd
from .weight_maps import BalancedSampling, BalancedSamplingd, BorderWeightMap, BorderWeightMapd
from .windows import Foveate, Foveated, NonUniformSample, NonUniformSampled

__all__ = [
    "BalancedSampling",
    "BalancedSamplingd",
    "BorderWeightMap",
    "BorderWeightMapd",
    "CentreOfMassd",
    "CloseCells",
    "CloseCellsd",
    "EquivalentDiameterd",
    "ErodedTargets",
    "ErodedTargetsd",
    "EvenContrast",
    "EvenContrastd",
    "Foveate",
    "Foveated",
    "HounsfieldUnitsd",
    "LabelsToRegionsd",
    "LightObjects",
    "LightObjectsd",
    "NonUniformSample",
    "NonUniformSampled",
    "NonzeroMaskd",
    "RandBackground",
    "RandBackgroundd",
    "RandColourJitter",
    "RandColourJitterd",
    "RegionsToLabelsd",
    "SeparateLungsd",
    "SeparateObjects",
    "SeparateObjectsd",
    "SplitObjects",
    "SplitObjectsd",
    "SubpixelShift",
    "SubpixelShiftd",
    "ToGrey",
    "ToGreyd",
]
