"""Reads size, channels, affine and colour mode of an image from its header, as MONAI's pipelines would return them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import itk
import nibabel
import numpy as np
from monai.data import ITKReader, NibabelReader, PILReader
from monai.data.utils import correct_nifti_header_if_necessary, orientation_ras_lps
from monai.transforms import LoadImage
from PIL import Image

from ..errors import InputNote
from .decoded import DecodedReader
from .dicom import is_series, open_dicom

__all__ = ["FileHeader", "find_reader", "from_itk", "read_header"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileHeader:
    """What is known of an image before a value of it is decoded.

    Args:
        shape: channels first, then x, y and z.
        affine: 4 x 4 matrix from voxel index to position in mm, None for a plane.
        mode: Pillow's name of the kind of colours; empty where there is none.
        lossy: the name of the compression where that may have changed values; empty where it has not.
        notes: what reading it changes.
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None = None
    mode: str = ""
    lossy: str = ""
    notes: tuple[InputNote, ...] = ()


def _with_channels_first(shape: tuple[int, ...], num_axes: int) -> tuple[int, ...]:
    """As MONAI's readers do: what is behind the axes of space is the channel."""
    return (1, *shape) if len(shape) == num_axes else (shape[-1], *shape[:-1])


def _by_nibabel(path: str) -> FileHeader:
    image: Any = correct_nifti_header_if_necessary(nibabel.load(path))
    shape = tuple(map(int, image.shape))
    return FileHeader(_with_channels_first(shape, max(min(len(shape), 3), 1)), np.array(image.affine, float))


def _by_pillow(path: str) -> FileHeader:
    with Image.open(path) as image:
        return FileHeader((len(image.getbands()), *image.size), mode=image.mode)


def _by_itk(path: str) -> FileHeader:
    if is_series(path):
        return from_itk(open_dicom(path))
    reader = itk.ImageFileReader.New(FileName=path)
    reader.UpdateOutputInformation()
    return from_itk(reader.GetOutput())


def from_itk(image: Any) -> FileHeader:
    """The header of an image of ITK, which may hold no values yet.

    Args:
        image: the output of a reader after ``UpdateOutputInformation`` or ``Update``.
    """
    shape = tuple(map(int, image.GetLargestPossibleRegion().GetSize()))
    num_axes, num_values = min(len(shape), 3), image.GetNumberOfComponentsPerPixel()
    shape = (*shape, num_values) if num_values > 1 else shape
    affine = np.eye(num_axes + 1)
    direction = itk.array_from_matrix(image.GetDirection())[:num_axes, :num_axes]
    affine[:-1, :-1] = direction * np.array(image.GetSpacing())[:num_axes]
    affine[:-1, -1] = np.array(image.GetOrigin())[:num_axes]
    return FileHeader(_with_channels_first(shape, num_axes), orientation_ras_lps(affine) if num_axes == 3 else None)


_BY_READER: dict[type, Callable[[str], FileHeader]] = {
    NibabelReader: _by_nibabel,
    PILReader: _by_pillow,
    ITKReader: _by_itk,
}


def find_reader(load: LoadImage, path: str) -> Any:
    """The reader that ``load`` chooses for a file; None where it would try several."""
    readers = [reader for reader in load.readers[::-1] if not isinstance(reader, DecodedReader)]
    if load.auto_select:
        return next((reader for reader in readers if reader.verify_suffix((path,))), None)
    return readers[0] if readers[0].verify_suffix((path,)) else None


def read_header(path: str, load: LoadImage) -> FileHeader:
    """The header of a file, without decoding its values where the format allows.

    A reader of this package gives it by a method of its own, ``read_header``; for MONAI's readers it is found here. A
    file of a format without such a way, or with a header that cannot be read, is loaded, so that ``load`` has the last
    word on what can be read.

    Args:
        path: file, or folder with a DICOM series.
        load: reads it to a MetaTensor with the channels first.

    Raises:
        Exception: whatever ``load`` raises for a file that it cannot read.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("RGB", (6, 4)).save(path)
        >>> header = read_header(path, LoadImage(ensure_channel_first=True))
        >>> header.shape, header.mode
        ((3, 6, 4), 'RGB')
    """
    reader = find_reader(load, path)
    read = getattr(reader, "read_header", None) or _BY_READER.get(type(reader))
    try:
        if read is not None:
            header: FileHeader = read(path)
            return header
    except Exception:  # refused by a reader of this package, or damaged: load says what is wrong
        logger.debug("%s has no header that can be read", path, exc_info=True)
    image = load(path)
    affine = np.asarray(image.affine) if image.ndim > 3 else None
    return FileHeader(tuple(image.shape), affine, image.meta.get("mode", ""))
