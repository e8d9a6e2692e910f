"""Loads volumes from files and from folders with a DICOM series, and names their outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import itk
import numpy as np
from monai.data import ITKReader
from monai.transforms import LoadImage, LoadImaged
from monai.utils import ensure_tuple

from .checks import RunChecks
from .datalists import name_output
from .decoded import TakesDecoded
from .dicom import find_step_mm, find_thickness_mm, is_series, open_series
from .file_headers import FileHeader, from_itk

__all__ = ["LoadImageOrSeriesd", "SeriesReader", "VolumeChecks", "format_output_name", "name_volume"]


class _SeriesFiles(ITKReader):
    """Reads the values of a DICOM series."""

    def verify_suffix(self, filename: Any) -> bool:
        return all(is_series(path) for path in ensure_tuple(filename))

    def read(self, data: Any, **kwargs: Any) -> Any:
        image = super().read(data, **kwargs)
        [path] = ensure_tuple(data)
        return _in_place(image, path)

    def read_header(self, path: str) -> FileHeader:
        """What :func:`.file_headers.read_header` asks for."""
        return from_itk(_in_place(open_series(path), path))


def _in_place(image: Any, path: str) -> Any:
    """A series whose slices are where their files say that they are."""
    step_mm = find_step_mm(path)
    if step_mm is None:
        thickness_mm = find_thickness_mm(path) or 1.0
        image.SetSpacing([*list(image.GetSpacing())[:2], thickness_mm])
    else:
        length_mm = np.linalg.norm(step_mm)
        direction = itk.array_from_matrix(image.GetDirection())
        direction[:, 2] = step_mm / length_mm
        image.SetDirection(itk.matrix_from_array(direction))
        image.SetSpacing([*list(image.GetSpacing())[:2], float(length_mm)])
    return image


class SeriesReader(TakesDecoded, _SeriesFiles):
    """Reads a folder with a DICOM series, its slices where their files say that they are.

    Where the gantry was tilted the affine is sheared, and the volume of a voxel, |det A|, is right. A single slice has
    the thickness that its file gives, or 1 mm. MONAI's reader stacks slices along their normal, a single one with 1 mm.
    """


class LoadImageOrSeriesd(LoadImaged):
    """MONAI's ``LoadImaged`` with its choice of readers, and :class:`SeriesReader` for DICOM series.

    Programs that hand over images which they have read themselves, as MONAI Deploy, leave out what is called LoadImage.

    Args:
        keys, kwargs: arguments of ``LoadImaged``.
    """

    def __init__(self, keys: Any, **kwargs: Any) -> None:
        super().__init__(keys, **kwargs)
        self.register(SeriesReader())


def name_volume(path: str | os.PathLike) -> str:
    """The name of a volume's outputs: a file's name without its ending, a folder's whole name.

    Example:
        >>> name_volume("data/a.b.nii.gz")
        'a.b'
    """
    return os.path.basename(path) if os.path.isdir(path) else name_output(path)


def format_output_name(meta: Mapping[str, Any], saver: Any) -> dict[str, Any]:
    """:func:`name_volume` for the ``output_name_formatter`` of MONAI's ``SaveImaged``, which takes an ending off."""
    return {"subject": f"{name_volume(meta['filename_or_obj'])}.nii", "idx": None}


class VolumeChecks(RunChecks):
    """:class:`.checks.RunChecks` for configs with :class:`LoadImageOrSeriesd` and :func:`format_output_name`."""

    _load = LoadImage(image_only=True, ensure_channel_first=True)
    _load.register(SeriesReader())
    _name_output = staticmethod(name_volume)
