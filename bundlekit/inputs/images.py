"""Checks images and labels, read as MONAI's pipelines read them, against what a network expects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monai.transforms import LoadImage
from monai.utils import ensure_tuple

from ..errors import InputError, InputNote
from ..files import require_file
from .dicom import check_dicom, is_dicom_input, is_series
from .directions import check_directions
from .file_headers import FileHeader, read_header
from .grids import Grid, check_same_grid
from .headers import check_affine, check_header, check_resampled
from .pillow_files import require_lossless
from .values import PREPARE, Examine, check_image_values, check_label_values, decode, explain_unreadable, note_nothing

__all__ = ["LOAD", "Expected", "check_image", "check_image_header", "check_label", "check_label_header"]

LOAD = LoadImage(image_only=True, ensure_channel_first=True)
_COLOURS = {"LA": " (grey with alpha)", "RGB": " (colours)", "RGBA": " (colours with alpha)", "CMYK": " (CMYK)"}
_MIN_SIZE = 2  # MONAI's writers drop axes of length 1, so that no output could be saved
_DATALIST = "correct its path or restore the file"


@dataclass(frozen=True)
class Expected:
    """What the entries of a data list have to be.

    Args:
        spatial_dims: 2 or 3.
        channels: how many channels an image may have; several numbers where the pipeline copes with each of them.
        label_values: the class numbers that may occur in labels; None allows every integer of at least 0.
        load: reads a file as the pipeline does, to a MetaTensor with the channels first.
        load_label: reads a label map likewise; None where ``load`` does.
        min_size: smallest number of pixels or voxels along an axis.
        examine: called with each file of an image and its values; what it returns is added to the notes.
        spacing_mm: as for :func:`bundlekit.inputs.headers.check_resampled`; None leaves a volume as it is.
    """

    spatial_dims: int
    channels: int | Sequence[int]
    label_values: Sequence[int] | None = None
    load: LoadImage = LOAD
    min_size: int = _MIN_SIZE
    examine: Examine = note_nothing
    spacing_mm: float | Sequence[float] | None = None
    load_label: LoadImage | None = None

    def reader_of(self, key: str) -> LoadImage:
        """What reads the files of an entry's "image" or "label"."""
        return self.load if key == "image" or self.load_label is None else self.load_label


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _check_dimensions(path: str, shape: tuple[int, ...], spatial_dims: int, min_size: int) -> None:
    """``shape`` has the channels first. A volume's channels are files of their own: in one file they may be times."""
    if spatial_dims == 3 and (len(shape) > 4 or (len(shape) == 4 and shape[0] > 1)):
        found = f"holds several volumes ({_size((*shape[1:], shape[0]))})"
        remedy = "split it, as fslsplit or nibabel.four_to_three do, and list the files in the order of the modalities"
        raise InputError(path, found, "one volume of 3 dimensions", remedy)
    if len(shape) != spatial_dims + 1:
        found = f"has {len(shape) - 1} spatial dimensions ({_size(shape[1:])})"
        remedy = "save each slice as a file of its own" if spatial_dims == 2 else "join the slices to one volume"
        raise InputError(path, found, f"{spatial_dims} dimensions", remedy)
    if min(shape[1:]) < min_size:
        remedy = "crop a larger region, or remove it"
        raise InputError(path, f"is {_size(shape[1:])}", f"at least {min_size} pixels a side", remedy)


def _read_header(path: str, expected: Expected, key: str) -> tuple[FileHeader, Grid]:
    """What the header of one file of an image or a label says, where that can be used."""
    if not is_series(path):
        require_file(path, _DATALIST)
    if is_series(path) or (expected.spatial_dims == 3 and is_dicom_input(path)):
        check_dicom(path)
    if expected.spatial_dims == 3:
        check_header(path)
    try:
        header = read_header(path, expected.reader_of(key))
    except Exception as error:
        raise explain_unreadable(path, error) from error
    _check_dimensions(path, header.shape, expected.spatial_dims, expected.min_size)
    affine = header.affine if expected.spatial_dims == 3 else None
    if affine is not None:
        check_directions(path, affine)
        check_affine(path, affine)
    return header, Grid(header.shape[1:], affine)


def check_image_header(paths: Sequence[str], expected: Expected) -> tuple[Grid, list[InputNote]]:
    """The grid of an image that a network can take, as far as headers say, and notes on what reading it changes.

    Args:
        paths: its files, whose channels are stacked.
        expected: what it has to be.

    Raises:
        InputError: as :func:`check_image` where no value has to be decoded for it; where a volume would become too
            large or too small by resampling.
    """
    allowed, found = ensure_tuple(expected.channels), 0
    first: Grid | None = None
    notes: list[InputNote] = []
    for path in paths:
        header, grid = _read_header(path, expected, "image")
        notes += header.notes
        if header.mode == "P":
            remedy = "save it as grey or RGB"
            raise InputError(path, "is a palette image: its pixels are indices of colours", "intensities", remedy)
        first = first or grid
        check_same_grid(path, grid, paths[0], first, exact=True, remedy="resample it to the same grid")
        found += header.shape[0]
    if first is None or found not in allowed:
        colours = _COLOURS.get(header.mode, "")
        remedy = "save it without alpha" if "alpha" in colours else "convert it, or use the bundle made for such images"
        raise InputError(paths[0], f"number of channels is {found}{colours}", " or ".join(map(str, allowed)), remedy)
    if expected.spacing_mm is not None:
        check_resampled(paths[0], first, expected.spacing_mm)
    return first, notes


def check_label_header(path: str, expected: Expected) -> tuple[Grid, list[InputNote]]:
    """The grid of a label map, as far as its header says, and notes on what reading it changes.

    Args:
        path: the file.
        expected: what it has to be.

    Raises:
        InputError: as :func:`check_label` where no value has to be decoded for it.
    """
    header, grid = _read_header(path, expected, "label")
    require_lossless(path, header.lossy)
    if header.shape[0] != 1:
        remedy = f"save the class numbers, not colours: {PREPARE}"
        raise InputError(path, f"has {header.shape[0]} channels", "a label map of 1 channel", remedy)
    return grid, list(header.notes)


def check_image(
    path: str | Sequence[str],
    spatial_dims: int,
    channels: int | Sequence[int],
    load: LoadImage = LOAD,
    min_size: int = _MIN_SIZE,
) -> Grid:
    """The grid of an image that a network can take.

    Args:
        path: the file, or several whose channels are stacked.
        spatial_dims: 2 or 3.
        channels: how many channels it may have; several numbers where the pipeline copes with each of them.
        load: reads a file as the pipeline does, to a MetaTensor with the channels first.
        min_size: pixels or voxels along any axis at least.

    Raises:
        InputError: where the file is missing, unreadable, not finite, too small, or of other dimensions or channels;
            where a volume's header gives its voxels no size or place, or all its voxels are alike; and where several
            files differ in shape or affine.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/grey.png"
        >>> Image.new("L", (6, 4)).save(path)
        >>> check_image(path, spatial_dims=2, channels=1).shape
        (6, 4)
    """
    expected, paths = Expected(spatial_dims, channels, load=load, min_size=min_size), ensure_tuple(path)
    grid, _ = check_image_header(paths, expected)
    check_image_values(decode(paths, load).numpy(), paths, spatial_dims, expected.examine)
    return grid


def check_label(
    path: str,
    spatial_dims: int,
    label_values: Sequence[int] | None,
    load: LoadImage = LOAD,
    min_size: int = _MIN_SIZE,
) -> tuple[Grid, bool]:
    """The grid of a label map whose values are all known, and whether any of them is not background, 0.

    Args:
        path: the file.
        spatial_dims: 2 or 3.
        label_values: the class numbers that may occur; None allows every non-negative integer (ids of objects).
        load: as for :func:`check_image`.
        min_size: as for :func:`check_image`.

    Raises:
        InputError: where the file is missing, unreadable, too small, of other dimensions, or holds any other value;
            where a volume's header gives its voxels no size or place.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/mask.png"
        >>> Image.new("L", (6, 4), 255).save(path)
        >>> grid, has_objects = check_label(path, spatial_dims=2, label_values=[0, 255])
        >>> grid.shape, has_objects
        ((6, 4), True)
    """
    grid, _ = check_label_header(path, Expected(spatial_dims, 1, label_values, load, min_size))
    array = decode([path], load).numpy()
    check_label_values(array, path, spatial_dims, label_values)
    return grid, bool(array.any())
