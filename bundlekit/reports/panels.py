"""Draws image, truth and prediction next to one another, each label in its own colour."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.exposure import rescale_intensity
from skimage.segmentation import find_boundaries
from skimage.transform import resize

from ..files import write_atomically

__all__ = ["draw_panels", "save_panels"]

# Okabe and Ito's colours for the colour-blind, without black; label 8 has the colour of label 1 again.
_COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)], float
)
_FILL = 0.35
_PANEL_PX = (512, 1024)  # smaller panels are magnified by a whole number, larger ones reduced
_GAP_PX = 8
_FONT_PX = 18


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


def draw_panels(
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
        >>> draw_panels(np.zeros((64, 64)), None, np.eye(64)).size  # two panels of 512 px, three gaps, a line of text
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


def save_panels(
    image: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    path: str | os.PathLike,
    title: str | None = None,
) -> None:
    """Write what :func:`draw_panels` makes of the same arguments to a PNG, which appears when it is complete.

    Args:
        image: see there.
        truth: see there.
        prediction: see there.
        path: file to write.
        title: see there.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/panels.png"
        >>> save_panels(np.zeros((64, 64)), None, np.eye(64), file)
        >>> with Image.open(file) as page:
        ...     page.format, page.size
        ('PNG', (1048, 546))
    """
    page = draw_panels(image, truth, prediction, title)
    write_atomically(path, lambda part: page.save(part, "PNG"))
