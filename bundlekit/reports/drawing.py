"""Draws image, true mask and predicted mask next to one another.

Command line: ``python -m bundlekit.reports.drawing --dataset_dir D --section test --output_dir O --destination P``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor, create_file_basename
from monai.transforms import LoadImage, Orientation
from PIL import Image, ImageDraw, ImageFont
from skimage.exposure import rescale_intensity
from skimage.segmentation import find_boundaries
from skimage.transform import resize

from ..errors import InputError
from ..files import require_file, write_atomically
from ..inputs.datalists import read_section

__all__ = ["as_shown", "draw_overlay", "main", "save_overlay", "save_overlays"]

# Okabe and Ito's colours for the colour-blind, without black; label 8 has the colour of label 1 again.
_COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)], float
)
_FILL = 0.35
_PANEL_PX = (512, 1024)  # smaller panels are magnified by a whole number, larger ones reduced
_GAP_PX = 8
_FONT_PX = 18
_TO_LPS = Orientation("LPS", labels=(("L", "R"), ("P", "A"), ("I", "S")))


def _shown_slice(truth: np.ndarray | None, prediction: np.ndarray) -> int:
    """Slice with most label, in the truth if it holds any, else in the prediction, else the middle one."""
    for labels in (truth, prediction):
        if labels is not None and labels.any():
            return int(np.argmax(np.count_nonzero(labels, axis=(0, 1))))
    return prediction.shape[2] // 2


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """RGB from 0 to 255: 8-bit images as they are, all others stretched between their 0.5th and 99.5th percentile."""
    if image.ndim == 2:
        image = image[..., None]
    image = image[..., :3] if image.shape[2] in (3, 4) else image[..., :1]
    if image.dtype != np.uint8:
        image = np.nan_to_num(image.astype(float))
        image = rescale_intensity(image, tuple(np.percentile(image, (0.5, 99.5))), (0, 255))
    return np.broadcast_to(image, (*image.shape[:2], 3)).astype(float)


def _paint(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The image with each label's area tinted and its outline drawn."""
    colours = _COLOURS[(labels - 1) % len(_COLOURS)]
    weight = np.where(find_boundaries(labels), 1, _FILL) * (labels != 0)
    return image + weight[..., None] * (colours - image)


def _panels(image: np.ndarray, labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The plain image and one painted image for each label map, at the size they are shown at."""
    longest, (small, large) = max(image.shape[:2]), _PANEL_PX
    scale = max(1, small // longest) if longest <= large else large / longest
    shape = tuple(max(1, round(scale * length)) for length in image.shape[:2])
    shown = resize(_as_rgb(image), shape, order=int(scale < 1), anti_aliasing=scale < 1, preserve_range=True)
    panels = {"image": shown}
    for caption, values in labels.items():
        panels[caption] = _paint(shown, resize(values, shape, order=0, preserve_range=True, anti_aliasing=False))
    return panels


def _compose(panels: dict[str, np.ndarray], title: str | None) -> Image.Image:
    """Panels in a row on white, a caption above each, the title above all."""
    height, width = panels["image"].shape[:2]
    line = _FONT_PX + _GAP_PX
    top = line * (1 if title is None else 2)
    page = Image.new("RGB", (len(panels) * (width + _GAP_PX) + _GAP_PX, top + height + _GAP_PX), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(_FONT_PX)
    if title is not None:
        draw.text((_GAP_PX, _GAP_PX // 2), title, "black", font)
    for i, (caption, panel) in enumerate(panels.items()):
        left = _GAP_PX + i * (width + _GAP_PX)
        draw.text((left, top - line + _GAP_PX // 2), caption, "black", font)
        page.paste(Image.fromarray(np.rint(panel).astype(np.uint8)), (left, top))
    return page


def draw_overlay(
    image: np.ndarray, truth: np.ndarray | None, prediction: np.ndarray, title: str | None = None
) -> Image.Image:
    """The panels image, truth and prediction in a row; label ``k`` has the same colour wherever it occurs.

    Of a volume the slice with most label is shown. Images of 8 bits are shown as they are, all others stretched between
    their 0.5th and 99.5th percentile.

    Args:
        image: intensities of any type.
        truth: right labels, whole numbers from 0 = background; without them two panels are drawn.
        prediction: labels of the model.
        title: line above the panels.

    Shape:
        ``prediction`` and ``truth``: ``(rows, columns)`` or ``(rows, columns, slices)``. ``image``: the same, with or
        without channels last: three or four channels of a plane are colours (and alpha), else the first one is shown.

    Raises:
        ValueError: if the shapes do not fit each other.

    Example:
        >>> draw_overlay(np.zeros((64, 64)), None, np.eye(64)).size  # two panels of 512 px, three gaps, a line of text
        (1048, 546)
    """
    dims = prediction.ndim
    if dims not in (2, 3) or image.shape[:dims] != prediction.shape or image.ndim > dims + 1:
        raise ValueError(
            f"image of shape {image.shape}, prediction of shape {prediction.shape}; expected (rows, columns[, slices])"
            " for both, the image with or without channels last; bring the prediction to the image's own space"
        )
    if truth is not None and truth.shape != prediction.shape:
        raise ValueError(
            f"truth of shape {truth.shape}, prediction of shape {prediction.shape}; expected equal shapes; bring both"
            " to the image's own space"
        )
    if dims == 3:
        k = _shown_slice(truth, prediction)
        image = image[:, :, k] if image.ndim == 3 else image[:, :, k, 0]
        truth, prediction = None if truth is None else truth[:, :, k], prediction[:, :, k]
        title = f"{'' if title is None else title + ', '}slice {k}"
    labels = {} if truth is None else {"truth": truth}
    labels = {name: np.rint(values).astype(int) for name, values in {**labels, "prediction": prediction}.items()}
    return _compose(_panels(image, labels), title)


def save_overlay(
    image: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    path: str | os.PathLike,
    title: str | None = None,
) -> None:
    """Write what :func:`draw_overlay` makes of the same arguments to a PNG, which appears when it is complete.

    Args:
        image: see there.
        truth: see there.
        prediction: see there.
        path: file to write.
        title: see there.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/overlay.png"
        >>> save_overlay(np.zeros((64, 64)), None, np.eye(64), file)
        >>> with Image.open(file) as page:
        ...     page.format, page.size
        ('PNG', (1048, 546))
    """
    page = draw_overlay(image, truth, prediction, title)
    write_atomically(path, lambda name: page.save(name, "PNG"))


def as_shown(image: MetaTensor) -> np.ndarray:
    """Channels last, rows first; volumes as radiologists look at them: from the feet, front up, the left at the right.

    Shape:
        ``image``: ``(channels, x, y[, z])``; the result: ``(rows, columns[, slices], channels)``.

    Example:
        >>> as_shown(MetaTensor(np.zeros((1, 30, 20)))).shape
        (20, 30, 1)
    """
    oriented = _TO_LPS(image) if image.ndim == 4 else image
    return np.moveaxis(np.asarray(oriented), 0, -1).swapaxes(0, 1)


def _load(path: str | Sequence[str]) -> np.ndarray:
    return as_shown(LoadImage(image_only=True, ensure_channel_first=True, dtype=None)(path))


def _load_labels(path: str) -> np.ndarray:
    require_file(path, "run the bundle's inference on this image, or correct the path")
    labels = _load(path)
    if labels.shape[-1] != 1:
        raise InputError(path, f"has {labels.shape[-1]} channels", "a label map of 1 channel", "save class numbers")
    return labels[..., 0]


def _item_overlay(item: dict[str, Any], output_dir: str, destination: Path) -> Path:
    first = item["image"] if isinstance(item["image"], str) else item["image"][0]
    name = create_file_basename("", first, "", separate_folder=False, makedirs=False)
    predicted = Path(output_dir, f"{name}_seg.nii.gz")
    if not predicted.is_file():
        predicted = predicted.with_name(f"{name}_seg.png")
    image, prediction = _load(item["image"]), _load_labels(str(predicted))
    truth = _load_labels(item["label"]) if "label" in item else None
    path = destination / f"{name}.png"
    save_overlay(image, truth, prediction, path, title=name)
    return path


def save_overlays(
    dataset_dir: str | os.PathLike,
    section: str,
    output_dir: str | os.PathLike,
    destination: str | os.PathLike,
    limit: int | None = None,
) -> list[Path]:
    """Write ``destination/<name>.png`` for the images of one section, as :func:`save_overlay` draws them.

    The prediction is ``<name>_seg.png`` or ``<name>_seg.nii.gz`` in ``output_dir``, where ``<name>`` is the image's
    file name without its ending. Volumes are shown with the front up and the patient's left on the right.

    Args:
        dataset_dir: folder with ``dataset.json``.
        section: list of ``dataset.json``, as "test"; entries without a label give two panels.
        output_dir: folder that inference wrote to.
        destination: folder for the pictures, created if need be.
        limit: how many images to draw, the first ones of the section; None draws all.

    Returns:
        The files written, in the order of the section.

    Raises:
        InputError: if the section, an image or a prediction is missing or cannot be used.
        ValueError: if a prediction does not have its image's shape.

    Example:
        >>> import tempfile
        >>> from bundlekit.phantoms import make_dataset
        >>> folder = tempfile.mkdtemp()
        >>> make_dataset("membrane_em_segmentation", folder, training=0, validation=0, test=1, size=64)
        >>> os.rename(folder + "/labels", folder + "/predicted")
        >>> os.rename(folder + "/predicted/000.png", folder + "/predicted/000_seg.png")
        >>> _ = Path(folder, "dataset.json").write_text('{"test": ["images/000.png"]}')
        >>> [path.name for path in save_overlays(folder, "test", folder + "/predicted", folder + "/overlays")]
        ['000.png']
    """
    items = read_section(dataset_dir, section)
    return [_item_overlay(item, str(output_dir), Path(destination)) for item in items[:limit]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw what the command line asks for and print the files; exit with code 2 and one line where it cannot be done.

    Args:
        arguments: the command line's words, ``sys.argv[1:]`` if None.

    Example:
        >>> main(["--dataset_dir", "/nowhere", "--output_dir", "eval", "--destination", "overlays"])
        Traceback (most recent call last):
        SystemExit: 2
    """
    parser = argparse.ArgumentParser(
        prog="python -m bundlekit.reports.drawing", description="Draw predictions over images."
    )
    parser.add_argument("--dataset_dir", required=True, help="folder with dataset.json")
    parser.add_argument("--section", default="test", help="list of dataset.json (default: %(default)s)")
    parser.add_argument("--output_dir", required=True, help="folder with the predictions <name>_seg.png or .nii.gz")
    parser.add_argument("--destination", required=True, help="folder for the pictures")
    parser.add_argument("--limit", type=int, help="draw only the first images")
    options = vars(parser.parse_args(arguments))
    try:
        paths = save_overlays(**options)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for path in paths:
        print(path)


if __name__ == "__main__":
    main()
