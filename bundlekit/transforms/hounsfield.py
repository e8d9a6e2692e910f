"""Converts CT values to Hounsfield units for any offset or padding in a file, and marks volumes that are not CT."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..errors import InputNote

__all__ = ["PADDING_HU", "HounsfieldUnitsd", "find_offset", "note_units"]

PADDING_HU = -1500
"""Below are -2000 and -3024, which scanners put outside their circular field of view."""

_STORED_OFFSET = 1024  # scanners store HU + 1024, so that 12 bits without sign hold them
_RANGE_HU = (-1024, 3071)  # of 12 bits
_FILL_HU = 200.0  # as chest walls have it: a network would take air for more lung where a lung is cut open
_AIR_HU = -500  # air and lungs lie below, all other tissue above
_TISSUE_HU, _MIN_TISSUE_SHARE = (-110, 190), 0.1  # fat to enhanced blood
_BONE_HU, _MAX_BONE_SHARE = 300, 0.1
_MAX_VALUES = 1_000_000


def find_offset(values: np.ndarray) -> int | None:
    """What to subtract from the values of a volume to get Hounsfield units; None where they are no CT.

    It is 0 where some values are in the range of air or lung, below -500; padding, below -1500, does not count. It is
    1024 where no value is below 0 by more than noise and where, less 1024, some values are in the range of air, a tenth
    of all in the range of soft tissue and no more than a tenth in the range of bone.

    Args:
        values: of a volume, of any shape; a million of them, from all slices, are looked at.

    Example:
        >>> chest = np.array([-1000, -850, -80, 40, 40, 60])
        >>> find_offset(chest), find_offset(chest + 1024), find_offset(np.arange(256))
        (0, 1024, None)
    """
    stride = max(1, values.size // _MAX_VALUES)
    while math.gcd(stride, values.size) > 1:  # a divisor of an axis' length would skip slices of it
        stride += 1
    some = values.reshape(-1)[::stride]
    known = some[some > PADDING_HU]
    if not known.size:
        return None
    low = np.percentile(known, 0.5)
    if low < _AIR_HU:
        return 0
    hu = known - float(_STORED_OFFSET)
    tissue = np.mean((hu > _TISSUE_HU[0]) & (hu < _TISSUE_HU[1]))
    is_stored = low > -100 and hu.min() < _AIR_HU and tissue >= _MIN_TISSUE_SHARE
    return _STORED_OFFSET if is_stored and np.mean(hu > _BONE_HU) <= _MAX_BONE_SHARE else None


def note_units(path: str, values: np.ndarray) -> InputNote | None:
    """What to tell of a volume that holds no Hounsfield units; None where it does.

    Args:
        path: the file.
        values: what it holds, of any shape.

    Example:
        >>> print(note_units("mri.nii.gz", np.arange(256)))
        mri.nii.gz: holds values from 0 to 255, none as low as air or lung; expected a CT volume in Hounsfield units \
(air -1000, water 0); export it with its rescale slope and intercept, or remove it if it is not a CT volume
    """
    offset = find_offset(values)
    if offset == 0:
        return None
    found = f"holds values from {values.min():g} to {values.max():g}"
    expected = "a CT volume in Hounsfield units (air -1000, water 0)"
    if offset is None:
        remedy = "export it with its rescale slope and intercept, or remove it if it is not a CT volume"
        return InputNote(path, f"{found}, none as low as air or lung", expected, remedy)
    remedy = f"{offset} is subtracted: export it with its rescale intercept if that is wrong"
    return InputNote(path, f"{found}, as if stored without intercept", expected, remedy)


class HounsfieldUnitsd(MapTransform):
    """Bring volumes to Hounsfield units: stored values lose their offset, and padding becomes as dense as a chest wall.

    ``hu = clip(v - offset, -1024, 3071)`` with the offset of :func:`find_offset`, 0 where that is None, and 200 where
    v - offset is below -1500. So a lung that the edge of a scanner's field of view cuts open ends there.

    Args:
        keys: volumes to change.
        raw_key: key for v - offset, in which padding and air still differ; None stores it nowhere.

    Shape:
        - input, output: any.

    Example:
        >>> stored = torch.tensor([-2000.0, 24, 174, 944, 1064, 1064, 1084])
        >>> HounsfieldUnitsd("image")({"image": stored})["image"].tolist()
        [200.0, -1000.0, -850.0, -80.0, 40.0, 40.0, 60.0]
    """

    def __init__(self, keys: KeysCollection, raw_key: str | None = None) -> None:
        super().__init__(keys)
        self.raw_key = raw_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            raw = item[key] - (find_offset(np.asarray(item[key])) or 0)
            item[key] = torch.where(raw < PADDING_HU, _FILL_HU, torch.clamp(raw, *_RANGE_HU))
            if self.raw_key is not None:
                item[self.raw_key] = raw
        return item
