"""Writes images/, labels/ and dataset.json, and runs the command line of every prepare_data.py."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..errors import InputError

__all__ = ["open_layout", "pair_faults", "progress", "require_another_folder", "run_preparation", "save_pair"]

_LONG_LIST = 50
_COMPRESSION = 3  # of zlib; the default, 6, takes twice as long to save a sixth of the space
_T = TypeVar("_T")
_Read = Callable[[Path], np.ndarray]


def progress(items: Sequence[_T], doing: str, unit: str = "image") -> Iterable[_T]:
    """The items, with a bar on stderr where they are many.

    Example:
        >>> list(progress([1, 2], "counting"))
        [1, 2]
    """
    return tqdm(items, desc=doing, unit=unit, disable=len(items) <= _LONG_LIST)


def require_another_folder(output: Path, source: Path) -> None:
    """Make sure that nothing of the source is written over.

    Raises:
        InputError: where both are one folder.

    Example:
        >>> require_another_folder(Path("a"), Path("b/../a"))
        Traceback (most recent call last):
        bundlekit.errors.InputError: a: is the folder of the source; expected another folder; pass another --output
    """
    if output.resolve() == source.resolve():
        raise InputError(output, "is the folder of the source", "another folder", "pass another --output")


def pair_faults(image: Path, label: Path, read_image: _Read, read_label: _Read) -> list[InputError]:
    """All that is wrong with an image and its label map.

    Args:
        image: file of the image.
        label: file of the label map.
        read_image: reads the former, (rows, columns) or (rows, columns, channels), or raises an InputError.
        read_label: reads the latter.

    Example:
        >>> read = {Path("image"): np.zeros((4, 6, 3)), Path("label"): np.zeros((4, 5))}.get
        >>> [str(fault) for fault in pair_faults(Path("image"), Path("label"), read, read)]
        ['label: has (4, 5) rows and columns; expected (4, 6) as image; pair each image with its own label']
    """
    errors: list[InputError] = []
    shapes = []
    for path, read in ((image, read_image), (label, read_label)):
        try:
            shapes.append(read(path).shape[:2])
        except InputError as error:
            errors.append(error)
    if len(set(shapes)) > 1:
        remedy = "pair each image with its own label"
        errors.append(InputError(label, f"has {shapes[1]} rows and columns", f"{shapes[0]} as {image}", remedy))
    return errors


def save_pair(output: Path, name: str, image: np.ndarray, label: np.ndarray) -> dict[str, str]:
    """Write images/NAME.png and labels/NAME.png; returns their entry for a list of dataset.json.

    Args:
        output: folder of the two folders.
        name: of the files, without ending.
        image: (rows, columns) or (rows, columns, 3).
        label: (rows, columns).
    """
    item = {"image": f"images/{name}.png", "label": f"labels/{name}.png"}
    for kind, array in zip(item, (image, label), strict=True):
        Image.fromarray(np.ascontiguousarray(array)).save(output / item[kind], compress_level=_COMPRESSION)
    return item


@contextmanager
def open_layout(output: Path, header: Mapping[str, Any]) -> Iterator[dict[str, list]]:
    """The lists of dataset.json, to be filled; what is in them after the block is written, last of all files.

    Args:
        output: folder to make; a dataset.json of an earlier run is removed, so that a run that is cut short leaves no
            list of what it had not yet written.
        header: further entries of dataset.json.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with open_layout(folder, {"name": "dots"}) as lists:
        ...     lists["test"].append(save_pair(folder, "a", np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint16)))
        >>> json.loads((folder / "dataset.json").read_text())
        {'name': 'dots', 'test': [{'image': 'images/a.png', 'label': 'labels/a.png'}]}
    """
    path = output / "dataset.json"
    path.unlink(missing_ok=True)
    for kind in ("images", "labels"):
        (output / kind).mkdir(parents=True, exist_ok=True)
    lists: dict[str, list] = {"training": [], "validation": [], "test": []}
    yield lists
    unfinished = output / "dataset.json.part"
    unfinished.write_text(json.dumps({**header, **{name: items for name, items in lists.items() if items}}, indent=1))
    unfinished.replace(path)


def run_preparation(
    parser: argparse.ArgumentParser, prepare: Callable[[argparse.Namespace], Mapping[str, Sequence]]
) -> int:
    """Run the command line of a prepare_data.py and return its exit code: 1 if errors were printed on stderr.

    Args:
        parser: knows the program's own options; gets ``--source`` and ``--output``.
        prepare: writes what is asked for and returns its lists; raises a ValueError with a line for each error.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--source", type=Path, required=True, help="folder of the download")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    args = parser.parse_args()
    try:
        lists = prepare(args)
    except (ValueError, OSError) as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 1
    print(f"{args.output}: " + ", ".join(f"{len(items)} {name}" for name, items in lists.items()))
    return 0
