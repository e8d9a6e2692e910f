"""A phantom, a kind of phantom, and writing a data set of them to a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.utils import ensure_tuple
from PIL import Image

from ..errors import InputError

__all__ = ["Phantom", "PhantomKind", "write_dataset"]


@dataclass(frozen=True)
class Phantom:
    """An image, its label map, and what is known about it by construction.

    Args:
        image: intensities.
        label: class indices on the same grid.
        truth: the known answers by name; numbers that JSON can hold.
        affine: 4 x 4 matrix from voxel index to position in mm, for a volume whose grid differs from its kind's.

    Shape:
        ``image``: ``(rows, columns)`` or ``(rows, columns, 3)`` for PNG, ``(x, y, z)`` or ``(x, y, z, channels)`` for
        NIfTI.
        ``label``: the spatial shape of ``image``.

    Example:
        >>> Phantom(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), {"cells": 1}).truth
        {'cells': 1}
    """

    image: np.ndarray
    label: np.ndarray
    truth: Mapping[str, Any]
    affine: np.ndarray | None = None


@dataclass(frozen=True)
class PhantomKind:
    """A generator of phantoms and the entries that describe its data in ``dataset.json``.

    Args:
        generate: makes one phantom from a random generator and an edge length in px.
        description: one sentence for ``dataset.json``.
        modality: a name for each image channel, in order.
        labels: a name for each label value, in order from 0.
        ending: file ending of images and labels, ``".png"`` or ``".nii.gz"``. A volume of several channels has a file
            for each, whose name ends with the name of the channel.
        size: edge length in px or voxels where none is asked for.
        affine: rows of the 4 x 4 matrix from voxel index to position in mm, for volumes that bring none of their own.
        entries: which of the known answers the entries of ``dataset.json`` have as well, such as "centre".

    Example:
        >>> def generate(rng, size):
        ...     label = rng.integers(0, 2, (size, size), np.uint8)
        ...     return Phantom(100 * label, label, {"bright_px": int(label.sum())})
        >>> PhantomKind(generate, "bright pixels", ("grey",), ("dark", "bright"), ".png").ending
        '.png'
    """

    generate: Callable[[np.random.Generator, int], Phantom]
    description: str
    modality: tuple[str, ...]
    labels: tuple[str, ...]
    ending: str
    size: int = 256
    affine: tuple[tuple[float, ...], ...] = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
    entries: tuple[str, ...] = ()


def _write(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(array, affine), path)


def _write_phantom(kind: PhantomKind, phantom: Phantom, images: Sequence[Path], label: Path) -> None:
    """The image in one file, or in one for each channel of a volume."""
    affine = np.array(kind.affine, float) if phantom.affine is None else phantom.affine
    channels = [phantom.image] if len(images) == 1 else np.moveaxis(phantom.image, -1, 0)
    for channel, path in zip(channels, images, strict=True):
        _write(channel, affine, path)
    _write(phantom.label, affine, label)


def _is_truth_of(name: str, path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("name") == name


def _refuse_foreign(name: str, directory: Path, planned: set[str]) -> None:
    """Raise unless every file in the folder is from an earlier run and will be overwritten by this one."""
    present = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if not p.is_dir()}
    foreign = sorted(present - planned if _is_truth_of(name, directory / "truth.json") else present)
    if foreign:
        found = f"holds {len(foreign)} files that are not from an earlier {name} phantom, such as {foreign[0]}"
        raise InputError(directory, found, "a new or empty folder", "choose another one, or empty this one")


def _item(kind: PhantomKind, number: int) -> dict[str, Any]:
    name = f"{number:03d}"
    image: str | list[str] = f"images/{name}{kind.ending}"
    if kind.ending != ".png" and len(kind.modality) > 1:
        image = [f"images/{name}_{modality}{kind.ending}" for modality in kind.modality]
    return {"image": image, "label": f"labels/{name}{kind.ending}"}


def _items(kind: PhantomKind, counts: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    """The lists of ``dataset.json``: files are numbered through all sections, an empty section is left out."""
    sections: dict[str, list[dict[str, Any]]] = {}
    start = 0
    for section, count in counts.items():
        if count:
            sections[section] = [_item(kind, i) for i in range(start, start + count)]
        start += count
    return sections


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_dataset(
    name: str, kind: PhantomKind, directory: Path, counts: Mapping[str, int], size: int, seed: int
) -> None:
    """Write images, labels, ``dataset.json`` and ``truth.json``; phantom ``i`` depends on ``(seed, i, size)`` only.

    Args:
        name: the bundle's name.
        kind: what to generate, and how its files are written.
        directory: new or empty folder, or one that the same kind of phantom was written to before.
        counts: number of phantoms for "training", "validation" and "test".
        size: edge length in px.
        seed: non-negative seed.

    Raises:
        ValueError: if a count is negative or all are 0.
        InputError: if the folder holds a file that this call would not write.

    Example:
        >>> import tempfile
        >>> def generate(rng, size):
        ...     return Phantom(np.full((size, size), 9, np.uint8), np.zeros((size, size), np.uint8), {"objects": 0})
        >>> kind = PhantomKind(generate, "nothing", ("grey",), ("background",), ".png")
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_dataset("empty", kind, folder, {"training": 0, "validation": 0, "test": 1}, size=8, seed=0)
        >>> json.loads((folder / "truth.json").read_text())["images"]
        [{'image': 'images/000.png', 'objects': 0}]
    """
    if min(counts.values()) < 0 or not any(counts.values()):
        raise ValueError(f"got {dict(counts)} phantoms; expected counts of at least 0, and at least one above 0")
    sections = _items(kind, counts)
    items = [item for section in sections.values() for item in section]
    planned = {path for item in items for value in item.values() for path in ensure_tuple(value)}
    planned |= {"dataset.json", "truth.json"}
    _refuse_foreign(name, directory, planned)
    for folder in ("images", "labels"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    truths = []
    for i, item in enumerate(items):
        phantom = kind.generate(np.random.default_rng([seed, i]), size)
        images = [directory / path for path in ensure_tuple(item["image"])]
        _write_phantom(kind, phantom, images, directory / item["label"])
        truths.append({"image": item["image"], **phantom.truth})
        item.update({name: phantom.truth[name] for name in kind.entries})
    _write_json({"name": name, "seed": seed, "size": size, "images": truths}, directory / "truth.json")
    header = {
        "name": name,
        "description": kind.description,
        "labels": {str(i): label for i, label in enumerate(kind.labels)},
        "modality": {str(i): channel for i, channel in enumerate(kind.modality)},
        "numTraining": counts["training"],
        "numTest": counts["test"],
    }
    _write_json({**header, **sections}, directory / "dataset.json")
