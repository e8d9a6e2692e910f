"""Reads PNG, JPEG, TIFF and BMP with the values that are in the file: grey or colour, 8 or 16 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import ImageReader, is_supported_format
from monai.transforms import LoadImage
from monai.utils import ensure_tuple

from .checks import RunChecks
from .decoded import TakesDecoded
from .file_headers import FileHeader, read_header
from .picture_files import read_picture, read_picture_header

__all__ = ["PictureChecks", "PictureReader", "weigh_by_area"]

_MAX_WEIGHT = 8.0  # of one image, however large it is
_ENDINGS = ("png", "jpg", "jpeg", "bmp", "tif", "tiff")


class _PictureFiles(ImageReader):
    """Reads the values of pictures."""

    def verify_suffix(self, filename: Any) -> bool:
        return is_supported_format(filename, _ENDINGS)

    def read(self, data: Any, **kwargs: Any) -> tuple[str, ...]:
        """The paths only: after an error here LoadImage would try other readers, which accept invalid files."""
        paths = tuple(str(path) for path in ensure_tuple(data))
        if not self.verify_suffix(paths):
            raise ValueError(f"the files {paths} do not end with one of {', '.join(_ENDINGS)}")
        return paths

    def get_data(self, img: Sequence[str]) -> tuple[np.ndarray, dict]:
        """The values, with the channels of several files behind each other, and their metadata."""
        arrays, mode = [], ""
        for path in img:
            array, mode = read_picture(path)
            arrays.append(array if array.ndim == 3 else array[..., None])
        values = (arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)).swapaxes(0, 1)
        return values, {"spatial_shape": np.array(values.shape[:2]), "original_channel_dim": -1, "mode": mode}

    def read_header(self, path: str) -> FileHeader:
        """What :func:`.file_headers.read_header` asks for."""
        return read_picture_header(path)


class PictureReader(TakesDecoded, _PictureFiles):
    """One plane of grey values, or of colours, at the full depth of its file and without alpha: A[x, y, channel].

    MONAI's own readers leave 8 of 16 bits to the colours of a PNG (Pillow), and of TIFFs refuse colours of 16 bits and
    turn whatever is in tiles into RGBA of 8 bits (ITK). Here tifffile reads a TIFF, or Pillow where the compression is
    one that tifffile knows by name only; Pillow reads all other files, and ITK colours of 16 bits in a PNG or in the
    strips of a compressed TIFF. Indices of a palette stay indices, and the mode in the metadata says "P".

    For ``LoadImage(reader=...)``; files with other endings are left to MONAI's readers.

    Raises:
        InputError: where a file holds several images, says that it is to be turned, or has values that no reader here
            gets right.

    Example:
        >>> import tempfile, tifffile
        >>> path = tempfile.mkdtemp() + "/colours.tif"
        >>> tifffile.imwrite(path, np.full((4, 6, 3), 40_000, np.uint16), photometric="rgb")
        >>> image = LoadImage(PictureReader(), ensure_channel_first=True)(path)
        >>> tuple(image.shape), float(image.max())
        ((3, 6, 4), 40000.0)
    """


class PictureChecks(RunChecks):
    """:class:`bundlekit.inputs.checks.RunChecks` for configs whose pipelines read planes with :class:`PictureReader`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/alpha.png"
        >>> Image.new("RGBA", (6, 4)).save(path)
        >>> checks = PictureChecks(spatial_dims=2, channels=[1, 3])  # alpha does not count
        >>> [item["image"] == path for item in checks.images(path)]
        [True]
    """

    _load = LoadImage(PictureReader(), dtype=None, ensure_channel_first=True)


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
