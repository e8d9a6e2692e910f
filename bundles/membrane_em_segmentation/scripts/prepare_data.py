"""Convert EM slices to this bundle's layout: images/, labels/ (1 = membrane) and dataset.json.

Two kinds of source, both from the ISBI 2012 challenge, are supported:

    python scripts/prepare_data.py --source DOWNLOAD --output data   # train-volume.tif and train-labels.tif
    python scripts/prepare_data.py --source FOLDER --output data     # images/*.png, labels/*.png, split.csv (id,split)

The challenge marks cell interiors (255 or 1) and leaves membranes 0; here membranes are 1. Neighbouring slices are
similar, so the slices are split in blocks, not at random: of the challenge's labelled slices the first 3/4 (rounded)
are for training and the rest for testing; in a folder, split.csv assigns each slice to one of the two. The last
training slices are for validation.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bundlekit.errors import InputError
from bundlekit.inputs.tiff_files import read_tiff_stack
from bundlekit.prepare.sources import read_labels, read_picture


class Slice(NamedTuple):
    """One image, its interiors where they are known, and what it is for: train, test or challenge."""

    image: np.ndarray
    label: np.ndarray | None
    split: str


def grey(array: np.ndarray, name: str) -> np.ndarray:
    """A slice as 8-bit grey values, provided that this changes none of them."""
    if array.ndim != 2:
        raise InputError(name, f"has shape {array.shape}", "(rows, columns) of grey values", "save it in grey, not RGB")
    with np.errstate(invalid="ignore"):
        values = array.astype(np.uint8)
    if not np.array_equal(values, array):
        found = f"is {array.dtype} from {array.min():g} to {array.max():g}"
        raise InputError(name, found, "integers from 0 to 255", "save it with 8 bits")
    return values


def checked(image: np.ndarray, image_name: str, label: np.ndarray, label_name: str, split: str) -> Slice:
    """An image and its label, provided that they belong together."""
    image, label = grey(image, image_name), grey(label, label_name)
    if image.shape != label.shape:
        expected = f"{image.shape} as in {image_name}"
        raise InputError(label_name, f"has shape {label.shape}", expected, "pair each image with its own label")
    if label.all() or not label.any():
        found = f"has {'no membrane' if label.all() else 'no cell'} pixel"
        raise InputError(
            label_name, found, "membranes 0 and cells 255 or 1", "correct the label or leave the slice out"
        )
    return Slice(image, label, split)


def read_volume(path: Path) -> dict[str, np.ndarray]:
    """Name -> slice of a TIFF volume."""
    try:
        volume = read_tiff_stack(path)
    except Exception as error:  # tifffile and the codecs behind it each have their own
        reason = getattr(error, "strerror", None) or error
        raise InputError(path, f"cannot be read ({reason})", "an image file", "copy or download it again") from error
    if volume.ndim < 3:
        raise InputError(path, f"has shape {volume.shape}", "(slices, rows, columns)", "download the volume again")
    return {f"{path}, slice {i}": array for i, array in enumerate(volume)}


def read_challenge(source: Path) -> list[Slice]:
    """The challenge's TIFF volumes; its 30 test slices, where they are there, have no public labels."""
    images, labels = (read_volume(source / f"train-{kind}.tif") for kind in ("volume", "labels"))
    if len(images) != len(labels):
        found = f"{len(images)} slices in train-volume.tif, {len(labels)} in train-labels.tif"
        raise InputError(source, found, "equal numbers", "download the volumes again")
    splits = ["train" if i < round(0.75 * len(images)) else "test" for i in range(len(images))]
    slices = [
        checked(image, image_name, label, label_name, split)
        for (image_name, image), (label_name, label), split in zip(images.items(), labels.items(), splits, strict=True)
    ]
    if (source / "test-volume.tif").is_file():
        unlabelled = read_volume(source / "test-volume.tif").items()
        slices += [Slice(grey(image, name), None, "challenge") for name, image in unlabelled]
    return slices


def read_splits(path: Path) -> dict[str, str]:
    """id -> split, sorted."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(path, f"cannot be read ({error})", "a text file", "save it as CSV in UTF-8") from error
    remedy = "begin it with the line id,split and give each slice a line, such as 00,train"
    missing = [name for name in ("id", "split") if name not in columns]
    if missing:
        found = f"has no column {' and no column '.join(missing)} (columns there: {', '.join(columns) or 'none'})"
        raise InputError(path, found, "the columns id and split", remedy)
    splits: dict[str, str] = {}
    for row in rows:
        if row["split"] not in ("train", "test"):
            raise InputError(path, f"slice {row['id']!r} has the split {row['split']!r}", "train or test", remedy)
        if row["id"] in splits:
            raise InputError(path, f"slice {row['id']!r} is listed twice", "each slice once", "remove one of the lines")
        splits[row["id"]] = row["split"]
    return dict(sorted(splits.items()))


def read_folder(source: Path) -> list[Slice]:
    """A folder of PNG slices with a split.csv."""
    slices = []
    for name, split in read_splits(source / "split.csv").items():
        paths = [source / kind / f"{name}.png" for kind in ("images", "labels")]
        image, label = np.asarray(read_picture(paths[0])), np.asarray(read_labels(paths[1]))
        slices.append(checked(image, str(paths[0]), label, str(paths[1]), split))
    return slices


def read(source: Path) -> list[Slice]:
    """Whichever of the two is there."""
    if (source / "train-volume.tif").is_file():
        return read_challenge(source)
    if (source / "split.csv").is_file():
        return read_folder(source)
    found = "has neither train-volume.tif nor split.csv"
    raise InputError(source, found, "one of them", "unpack the ISBI 2012 download there")


def last_training(slices: list[Slice], num_validation: int, source: Path) -> set[int]:
    """The numbers of the slices to hold back."""
    train = [i for i, item in enumerate(slices) if item.split == "train"]
    if len(train) < 2:
        remedy = "add slices: at least one is for validation"
        raise InputError(source, f"has {len(train)} training slice(s)", "2 or more", remedy)
    if not 0 < num_validation < len(train):
        expected = f"1 to {len(train) - 1}, because {source} has {len(train)} training slices"
        raise InputError("--num_validation", f"is {num_validation}", expected, "pass another number")
    return set(train[-num_validation:])


def write(output: Path, slices: list[Slice], held_back: set[int], train_on_all: bool) -> dict[str, list]:
    """Images, labels and dataset.json; the sections of the latter come back."""
    sections: dict[str, list] = {"training": [], "validation": [], "test": [], "challenge": []}
    for folder in ("images", "labels"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for i, (image, label, split) in enumerate(slices):
        name = f"{i:02d}.png"
        Image.fromarray(image).save(output / "images" / name)
        item = {"image": f"images/{name}"}
        if label is not None:
            Image.fromarray((label == 0).astype(np.uint8)).save(output / "labels" / name)
            item["label"] = f"labels/{name}"
        if i in held_back:
            sections["validation"].append(item)
        if i not in held_back or train_on_all:
            sections[{"train": "training"}.get(split, split)].append(item)
    dataset = {"name": "ISBI 2012 EM", "labels": {"0": "cell", "1": "membrane"}, "modality": {"0": "EM"}}
    dataset |= {name: items for name, items in sections.items() if items}
    (output / "dataset.json").write_text(json.dumps(dataset, indent=1))
    return sections


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--num_validation", type=int, default=3, help="training slices held back, the last ones")
    parser.add_argument(
        "--train_on_all", action="store_true", help="also train on the validation slices, after all choices are made"
    )
    args = parser.parse_args()
    try:
        slices = read(args.source)
        held_back = last_training(slices, args.num_validation, args.source)
        sections = write(args.output, slices, held_back, args.train_on_all)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}: " + ", ".join(f"{len(items)} {name}" for name, items in sections.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
