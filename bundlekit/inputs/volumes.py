"""Loads volumes from files and from DICOM, and names their outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import itk
import numpy as np
from monai.data import ITKReader
from monai.data.folder_layout import default_name_formatter
from monai.transforms import LoadImage, LoadImaged
from monai.utils import ensure_tuple

from .checks import RunChecks
from .datalists import name_output
from .decoded import TakesDecoded
from .dicom import find_files, find_step_mm, is_dicom_input, open_dicom
from .dicom_frames import Frames, read_frames
from .file_headers import FileHeader, from_itk
from .modalities import name_case

__all__ = ["DicomReader", "LoadImageOrSeriesd", "OutputName", "VolumeChecks", "name_volume"]


class _DicomFiles(ITKReader):
    """Reads the values of DICOM, and those of what is listed with it as further channels."""

    def verify_suffix(self, filename: Any) -> bool:
        return any(map(is_dicom_input, ensure_tuple(filename)))

    def read(self, data: Any, **kwargs: Any) -> Any:
        images = [self._read_one(str(path), **kwargs) for path in ensure_tuple(data)]
        return images if len(images) > 1 else images[0]

    def _read_one(self, path: str, **kwargs: Any) -> Any:
        image = super().read(path, **kwargs)
        if not is_dicom_input(path):
            return image
        files = find_files(path)
        if len(files) == 1:
            image = _in_order(image, files[0], read_frames(files[0]))
        return _in_place(image, files)

    def read_header(self, path: str) -> FileHeader:
        """What :func:`.file_headers.read_header` asks for."""
        return from_itk(_in_place(open_dicom(path), find_files(path)))


def _in_order(image: Any, file: str, frames: Frames) -> Any:
    """The frames of a file in the order of their positions, with their own slopes and intercepts."""
    values = itk.array_view_from_image(image)
    if values.shape[:-2] != frames.order.shape:  # colours, which the checks refuse
        return image
    reader = itk.GDCMImageIO.New()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    ordered = frames.rescale(values, reader.GetRescaleSlope(), reader.GetRescaleIntercept())
    result = itk.image_from_array(np.ascontiguousarray(ordered))
    result.SetMetaDataDictionary(image.GetMetaDataDictionary())
    return result


def _in_place(image: Any, files: Sequence[str]) -> Any:
    """An image whose slices are where their files say that they are."""
    if len(files) == 1:
        frames = read_frames(files[0])
        origin_mm, steps_mm = frames.origin_mm, frames.steps_mm
    else:
        origin_mm = np.array(image.GetOrigin())
        steps_mm = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
        steps_mm[:, 2] = find_step_mm(tuple(files))
    lengths_mm = np.linalg.norm(steps_mm, axis=0)
    image.SetOrigin(origin_mm)
    image.SetSpacing(lengths_mm)
    image.SetDirection(itk.matrix_from_array(steps_mm / lengths_mm))
    return image


class DicomReader(TakesDecoded, _DicomFiles):
    """Reads a folder with a DICOM series, or a DICOM file, its slices where their files say that they are.

    The frames of an Enhanced DICOM file are put in the order of their positions, each with its own slope and intercept.
    Where the gantry was tilted the affine is sheared, and the volume of a voxel, |det A|, is right. A single slice has
    the thickness that its file gives, or 1 mm. MONAI's reader stacks slices along their normal, a single one with 1 mm,
    and frames as they follow each other in the file, with the slope of the first.
    """


class LoadImageOrSeriesd(LoadImaged):
    """MONAI's ``LoadImaged`` with its choice of readers, and :class:`DicomReader` for DICOM.

    Programs that hand over images which they have read themselves, as MONAI Deploy, leave out what is called LoadImage.

    Args:
        keys, kwargs: arguments of ``LoadImaged``.
    """

    def __init__(self, keys: Any, **kwargs: Any) -> None:
        super().__init__(keys, **kwargs)
        self.register(DicomReader())


def name_volume(path: str | os.PathLike, modalities: Sequence[str] = ()) -> str:
    """The name of a volume's outputs: a file's name without its ending, a folder's whole name, or the case's name.

    Args:
        path: of the volume, or of the file of one of its modalities.
        modalities: words that the names of a case's files end with; there are none where a volume is a single file.

    Example:
        >>> name_volume("data/a.b.nii.gz"), name_volume("data/a.b_T1.nii.gz", ["T1", "T2"])
        ('a.b', 'a.b')
    """
    if os.path.isdir(path):
        return os.path.basename(path)
    return name_case(str(path), modalities) or name_output(path)


class OutputName:
    """:func:`name_volume` for the ``output_name_formatter`` of MONAI's ``SaveImaged``, which takes an ending off.

    Args:
        modalities: as for :func:`name_volume`.

    Example:
        >>> OutputName(["T1", "T2"])({"filename_or_obj": "data/a.b_T1.nii.gz"}, None)
        {'subject': 'a.b.nii', 'idx': None}
    """

    def __init__(self, modalities: Sequence[str] = ()) -> None:
        self.modalities = modalities

    def __call__(self, meta: Mapping[str, Any], saver: Any) -> dict[str, Any]:
        path = meta.get("filename_or_obj")
        if path is None:  # an image that comes from no file
            return default_name_formatter(dict(meta), saver)
        return {"subject": f"{name_volume(path, self.modalities)}.nii", "idx": None}


class VolumeChecks(RunChecks):
    """:class:`.checks.RunChecks` for configs with :class:`LoadImageOrSeriesd` and :class:`OutputName`."""

    _load = LoadImage(image_only=True, ensure_channel_first=True)
    _load.register(DicomReader())

    def _name_output(self, path: str) -> str:
        return name_volume(path, self.modalities)
