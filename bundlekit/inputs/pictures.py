"""Readers of PNG, JPEG, TIFF and BMP, for images and for label maps, and the checks of the configs that use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.transforms import LoadImage
from monai.utils import ensure_tuple

from ..errors import InputError, InputNote
from .checks import RunChecks
from .decoded import TakesDecoded
from .dicom import is_dicom_input
from .file_headers import FileHeader, read_header
from .picture_files import read_picture, read_picture_header

__all__ = [
    "GreyPictureChecks",
    "GreyPictureReader",
    "LabelReader",
    "PictureChecks",
    "PictureReader",
    "weigh_by_area",
]

_MAX_WEIGHT = 8.0  # of one image, however large it is
_NUM_COLOURS = 3
_VOLUMES = (".nii", ".gz", ".hdr", ".img", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".npy", ".npz")


class _PictureFiles(ImageReader):
    """Reads the values of pictures."""

    is_label = False
    """Whether it reads label maps."""

    def verify_suffix(self, filename: Any) -> bool:
        paths = [str(path) for path in ensure_tuple(filename)]
        return not any(path.lower().endswith(_VOLUMES) or is_dicom_input(path) for path in paths)

    def read(self, data: Any, **kwargs: Any) -> tuple[str, ...]:
        """The paths only: after an error here LoadImage would try other readers, which accept invalid files."""
        paths = tuple(str(path) for path in ensure_tuple(data))
        if not self.verify_suffix(paths):
            raise ValueError(f"the files {paths} are volumes")
        return paths

    def get_data(self, img: Sequence[str]) -> tuple[np.ndarray, dict]:
        """The values, with the channels of several files behind each other, and their metadata."""
        arrays, mode = [], ""
        for path in img:
            array, mode = self.read_values(path)
            arrays.append(array if array.ndim == 3 else array[..., None])
        values = (arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)).swapaxes(0, 1)
        return values, {"spatial_shape": np.array(values.shape[:2]), "original_channel_dim": -1, "mode": mode}

    def read_values(self, path: str) -> tuple[np.ndarray, str]:
        """:func:`.picture_files.read_picture` as this reader needs it."""
        return read_picture(path, self.is_label)

    def read_header(self, path: str) -> FileHeader:
        """What :func:`.file_headers.read_header` asks for."""
        return read_picture_header(path, self.is_label)


class PictureReader(TakesDecoded, _PictureFiles):
    """One plane of grey values, or of colours, at the full depth of its file: A[x, y, channel].

    MONAI's own readers leave 8 of 16 bits to the colours of a PNG (Pillow), and of TIFFs refuse colours of 16 bits,
    take several channels for grey ones and turn whatever is in tiles into RGBA of 8 bits (ITK). Here tifffile reads a
    TIFF, with the codecs of imagecodecs; Pillow reads all other files, and ITK colours of 16 bits in a PNG. The image
    is turned as its EXIF or TIFF orientation says; alpha is dropped; the indices of a palette become its colours; a
    TIFF in which white is zero is inverted, so that in every file larger values are brighter.

    What a file is is taken from its content, whatever its name. For ``LoadImage(reader=...)``; volumes and arrays, by
    their endings, and DICOM are left to MONAI's readers.

    Raises:
        InputError: where a file holds several images, or has values that are neither grey nor colours.

    Example:
        >>> import tempfile, tifffile
        >>> path = tempfile.mkdtemp() + "/colours.tif"
        >>> tifffile.imwrite(path, np.full((4, 6, 3), 40_000, np.uint16), photometric="rgb")
        >>> image = LoadImage(PictureReader(), ensure_channel_first=True)(path)
        >>> tuple(image.shape), float(image.max())
        ((3, 6, 4), 40000.0)
    """


class GreyPictureReader(PictureReader):
    """:class:`PictureReader` for a network of grey images: of three channels that are equal it takes one.

    Raises:
        InputError: where the channels differ, and as :class:`PictureReader`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/grey.png"
        >>> Image.new("RGB", (6, 4), (7, 7, 7)).save(path)
        >>> tuple(LoadImage(GreyPictureReader(), ensure_channel_first=True)(path).shape)
        (1, 6, 4)
    """

    def read_values(self, path: str) -> tuple[np.ndarray, str]:
        array, mode = super().read_values(path)
        if array.ndim < 3 or array.shape[2] != _NUM_COLOURS:
            return array, mode
        differs = (array != array[..., :1]).any(axis=-1)
        if differs.any():
            found = f"is a colour image: its three channels differ in {differs.mean():.1%} of the pixels"
            raise InputError(path, found, "grey values", "convert it to grey, or use the bundle made for such images")
        return array[..., 0], mode

    def read_header(self, path: str) -> FileHeader:
        """What :func:`.file_headers.read_header` asks for; only the values say whether three channels are equal."""
        header = super().read_header(path)
        if header.shape[0] != _NUM_COLOURS:
            return header
        note = InputNote(path, "has three channels", "grey values", "one is used, provided that all three are equal")
        return replace(header, shape=(1, *header.shape[1:]), notes=(*header.notes, note))


class LabelReader(TakesDecoded, _PictureFiles):
    """A label map: the numbers in a picture, of a palette the indices, turned as :class:`PictureReader` turns images.

    Raises:
        InputError: where its compression changes numbers, and as :class:`PictureReader`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/label.png"
        >>> Image.fromarray(np.eye(4, dtype=np.uint8) * 3).save(path)
        >>> LoadImage(LabelReader(), ensure_channel_first=True)(path).unique()
        metatensor([0., 3.])
    """

    is_label = True


def _loader(reader: type[ImageReader]) -> LoadImage:
    return LoadImage(reader(), dtype=None, ensure_channel_first=True)


class PictureChecks(RunChecks):
    """:class:`bundlekit.inputs.checks.RunChecks` for configs whose pipelines read images with :class:`PictureReader`.

    Labels are read with :class:`LabelReader`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/alpha.png"
        >>> Image.new("RGBA", (6, 4)).save(path)
        >>> checks = PictureChecks(spatial_dims=2, channels=[1, 3])  # alpha does not count
        >>> [item["image"] == path for item in checks.images(path)]
        [True]
    """

    _load = _loader(PictureReader)
    _load_label = _loader(LabelReader)


class GreyPictureChecks(PictureChecks):
    """:class:`PictureChecks` for configs whose pipelines read images with :class:`GreyPictureReader`."""

    _load = _loader(GreyPictureReader)


def weigh_by_area(items: Sequence[Mapping[str, Any]], patch_size: Sequence[int]) -> list[float]:
    """How often to draw a patch from each image, so that every part of large ones is seen as often as small ones are.

    Args:
        items: entries with "image", a path.
        patch_size: rows and columns of a patch, px.

    Returns:
        The image's area in patches, at least 1 and at most 8.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("L", (60, 40)).save(path)
        >>> weigh_by_area([{"image": path}], (20, 30)), weigh_by_area([{"image": path}], (100, 100))
        ([4.0], [1.0])
    """
    load = LoadImage(reader=PictureReader, image_only=True, ensure_channel_first=True)
    areas = [float(np.prod(read_header(item["image"], load).shape[1:])) for item in items]
    return [min(max(area / float(np.prod(patch_size)), 1.0), _MAX_WEIGHT) for area in areas]
