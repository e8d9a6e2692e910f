"""Draws image, true mask and predicted mask next to one another.

Command line: ``python -m bundlekit.reports.drawing --dataset_dir D --section test --output_dir O --destination P``.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientation

from ..errors import InputError
from ..files import require_file
from ..inputs.datalists import name_output, read_section
from ..inputs.pictures import LabelReader, PictureReader
from .panels import save_panels

__all__ = ["as_displayed", "draw_section", "load_displayed", "main"]

_TO_LPS = Orientation("LPS", labels=(("L", "R"), ("P", "A"), ("I", "S")))


def as_displayed(image: MetaTensor) -> np.ndarray:
    """Channels last, rows first; volumes as radiologists look at them: from the feet, front up, the left at the right.

    Shape:
        ``image``: ``(channels, x, y[, z])``; the result: ``(rows, columns[, slices], channels)``.

    Example:
        >>> as_displayed(MetaTensor(np.zeros((1, 30, 20)))).shape
        (20, 30, 1)
    """
    oriented = _TO_LPS(image) if image.ndim == 4 else image
    return np.moveaxis(np.asarray(oriented), 0, -1).swapaxes(0, 1)


def load_displayed(path: str | Sequence[str], is_label: bool = False) -> np.ndarray:
    """An image or a label map as the bundles read it, turned as :func:`as_displayed` does.

    Args:
        path: the file, or several whose channels are stacked.
        is_label: whether it is a label map.
    """
    reader = LabelReader if is_label else PictureReader  # volumes are left to MONAI's readers
    return as_displayed(LoadImage(reader=reader, image_only=True, ensure_channel_first=True, dtype=None)(path))


def _load_labels(path: str) -> np.ndarray:
    require_file(path, "run the bundle's inference on this image, or correct the path")
    labels = load_displayed(path, is_label=True)
    if labels.shape[-1] != 1:
        raise InputError(path, f"has {labels.shape[-1]} channels", "a label map of 1 channel", "save class numbers")
    return labels[..., 0]


def _names(image: str | Sequence[str]) -> list[str]:
    """What the outputs of an image may be called; of several files, the last word of a name is a modality."""
    if isinstance(image, str):
        return [name_output(image)]
    name = name_output(image[0])
    return [re.sub("(^|[-_ ])[^-_ ]*$", "", name) or Path(image[0]).absolute().parent.name, name]


def _predictions(output_dir: str, name: str) -> list[Path]:
    return [Path(output_dir, f"{name}_seg{ending}") for ending in (".nii.gz", ".png")]


def _draw_item(item: dict[str, Any], output_dir: str, destination: Path) -> Path:
    found = [(name, path) for name in _names(item["image"]) for path in _predictions(output_dir, name)]
    name, predicted = next((pair for pair in found if pair[1].is_file()), found[-1])
    image, prediction = load_displayed(item["image"]), _load_labels(str(predicted))
    truth = _load_labels(item["label"]) if "label" in item else None
    path = destination / f"{name}.png"
    save_panels(image, truth, prediction, path, title=name)
    return path


def draw_section(
    dataset_dir: str | os.PathLike,
    section: str,
    output_dir: str | os.PathLike,
    destination: str | os.PathLike,
    limit: int | None = None,
) -> list[Path]:
    """Write ``destination/<name>.png`` for the images of one section, as :func:`save_panels` draws them.

    The prediction is ``<name>_seg.png`` or ``<name>_seg.nii.gz`` in ``output_dir``, where ``<name>`` is the image's
    file name without its ending and, where it has several files, without the modality at its end. Volumes are shown
    with the front up and the patient's left on the right.

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
        >>> [path.name for path in draw_section(folder, "test", folder + "/predicted", folder + "/overlays")]
        ['000.png']
    """
    items = read_section(dataset_dir, section)
    return [_draw_item(item, str(output_dir), Path(destination)) for item in items[:limit]]


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
        paths = draw_section(**options)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for path in paths:
        print(path)


if __name__ == "__main__":
    main()
