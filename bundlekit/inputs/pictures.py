"""Reads PNG, JPEG, TIFF and BMP with the values that are in the file: grey or colour, 8 or 16 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tifffile
from monai.data import ImageReader, ITKReader, is_supported_format
from monai.transforms import LoadImage
from monai.utils import ensure_tuple
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

from ..errors import InputError
from .checks import RunChecks
from .orientation import ORIENTATION, require_upright

__all__ = ["PictureChecks", "PictureReader", "weigh_by_area"]

_MAX_WEIGHT = 8.0  # of one image, however large it is
_ENDINGS = ("png", "jpg", "jpeg", "bmp", "tif", "tiff")
_SINGLE = "save the image to be used as a separate file"
_CHANNELS = {"1": 1, "L": 1, "I": 1, "F": 1, "P": 1, "LA": 1, "PA": 1, "RGB": 3, "RGBA": 3, "RGBX": 3, "CMYK": 4}
"""How many of an image's channels are no alpha, by Pillow's mode without what follows a semicolon."""
_DECODED = (COMPRESSION.NONE, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE, COMPRESSION.PACKBITS)
"""The compressions that tifffile decodes by itself."""
_PLAIN = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE)


def _by_itk(path: str) -> np.ndarray:
    """(rows, columns, channels) of an image with several channels of 16 bits."""
    import itk  # slow to load, and seldom needed

    reader = ITKReader(pixel_type=itk.VariableLengthVector[itk.US])
    return reader.get_data(reader.read(path))[0].swapaxes(0, 1)


def _is_deep_png(path: str) -> bool:
    """Whether it is a PNG with 16 bits in each of several channels, of which Pillow would keep 8."""
    with open(path, "rb") as file:
        header = file.read(26)
    depth, colour = header[24:25], header[25:26]
    return header.startswith(b"\x89PNG") and depth == b"\x10" and colour != b"\x00"


def _by_pillow(path: str) -> tuple[np.ndarray, str]:
    with Image.open(path) as image:
        number = getattr(image, "n_frames", 1)
        if number > 1 and image.format not in ("MPO", "TIFF"):  # a JPEG with previews; a pyramid, as was made sure of
            raise InputError(path, f"holds {number} images", "one", _SINGLE)
        require_upright(path, image.getexif().get(ORIENTATION, 1))
        mode = image.mode.partition(";")[0]
        if mode not in _CHANNELS:
            raise InputError(path, f"has the colour mode {mode}", "grey values or RGB", "save it as grey or RGB")
        array = _by_itk(path) if _is_deep_png(path) else np.asarray(image)
    if array.ndim == 3:
        array = array[..., : 1 if array.shape[2] == 2 else _CHANNELS[mode]]
    return array, mode


def _by_tifffile(path: str, page: Any) -> tuple[np.ndarray, str]:
    array = page.asarray()
    if page.axes.startswith("S"):  # one plane for each channel
        array = np.moveaxis(array, 0, -1)
    if page.photometric == PHOTOMETRIC.RGB:
        array = array[..., :3]
    elif page.extrasamples in ((1,), (2,)):  # alpha, not another kind of light
        array = array[..., :-1]
    return array, "P" if page.photometric == PHOTOMETRIC.PALETTE else ""


def _read_tiff(path: str) -> tuple[np.ndarray, str]:
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        if len(file.series) > 1 or file.series[0].size != page.size:
            shapes = ", ".join(" x ".join(map(str, part.shape)) for part in file.series[:3])
            raise InputError(path, f"holds several images ({shapes})", "one", _SINGLE)
        require_upright(path, page.tags.valueof(ORIENTATION, default=1))
        if page.photometric in _PLAIN and page.compression in _DECODED:
            return _by_tifffile(path, page)
        deep = page.samplesperpixel > 1 and page.dtype == np.uint16 and page.photometric in _PLAIN
        if deep and page.compression == COMPRESSION.LZW and page.axes == "YXS" and not page.is_tiled:
            return _by_itk(path)[..., :3], ""
    # Pillow takes signed bytes for unsigned ones, halves 16-bit colours and muddles floats of the other byte order
    if page.dtype in (np.bool_, np.uint8) or (page.samplesperpixel == 1 and page.dtype == np.uint16):
        return _by_pillow(path)
    found = f"is a TIFF of {page.dtype} values, {page.photometric.name}, compressed by {page.compression.name}"
    raise InputError(path, found, "a supported compression", "save it without compression")


class PictureReader(ImageReader):
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
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/colours.tif"
        >>> tifffile.imwrite(path, np.full((4, 6, 3), 40_000, np.uint16), photometric="rgb")
        >>> image = LoadImage(PictureReader(), ensure_channel_first=True)(path)
        >>> tuple(image.shape), float(image.max())
        ((3, 6, 4), 40000.0)
    """

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
            with open(path, "rb") as file:
                is_tiff = file.read(2) in (b"II", b"MM")
            array, mode = _read_tiff(path) if is_tiff else _by_pillow(path)
            array = array.astype(np.uint8 if array.dtype == bool else array.dtype.newbyteorder("="), copy=False)
            arrays.append(array if array.ndim == 3 else array[..., None])
        values = (arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)).swapaxes(0, 1)
        return values, {"spatial_shape": np.array(values.shape[:2]), "original_channel_dim": -1, "mode": mode}


class PictureChecks(RunChecks):
    """:class:`bundlekit.inputs.checks.RunChecks` for configs whose pipelines read planes with :class:`PictureReader`.

    Example:
        >>> import tempfile
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
        >>> path = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("L", (60, 40)).save(path)
        >>> weigh_by_area([{"image": path}], (20, 30)), weigh_by_area([{"image": path}], (100, 100))
        ([4.0], [1.0])
    """
    load = LoadImage(reader=PictureReader, image_only=True, ensure_channel_first=True)
    areas = [float(np.prod(load(item["image"]).shape[1:])) for item in items]
    return [min(max(area / float(np.prod(patch_size)), 1.0), _MAX_WEIGHT) for area in areas]
