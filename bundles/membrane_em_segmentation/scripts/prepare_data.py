"""Lay out EM slices as this bundle reads them: images/, labels/ (1 = membrane) and dataset.json.

Takes either form of the ISBI 2012 challenge's data:

    python scripts/prepare_data.py --source DOWNLOAD --output data   # train-volume.tif and train-labels.tif
    python scripts/prepare_data.py --source FOLDER --output data     # images/*.png, labels/*.png, split.csv (id,split)

The challenge marks cell interiors (255 or 1) and leaves membranes 0; here membranes are 1. Neighbouring slices are
alike, so the slices are divided in blocks, never at random.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image


def read_challenge(source: Path) -> tuple[list[np.ndarray], list[np.ndarray | None], list[str]]:
    """The challenge's TIFF volumes; its 30 test slices, where they are there, have no public labels."""
    images = list(tifffile.imread(source / "train-volume.tif"))
    labels: list[np.ndarray | None] = list(tifffile.imread(source / "train-labels.tif"))
    if len(images) != len(labels):
        raise ValueError(
            f"{source}: {len(images)} slices in train-volume.tif, {len(labels)} in train-labels.tif; expected as many"
        )
    first_test = round(0.75 * len(images))
    splits = ["train"] * first_test + ["test"] * (len(images) - first_test)
    if (source / "test-volume.tif").is_file():
        unlabelled = list(tifffile.imread(source / "test-volume.tif"))
        images, labels = images + unlabelled, labels + [None] * len(unlabelled)
        splits += ["challenge"] * len(unlabelled)
    return images, labels, splits


def read_folder(source: Path) -> tuple[list[np.ndarray], list[np.ndarray | None], list[str]]:
    """A folder of PNG slices with a split.csv."""
    with open(source / "split.csv", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["id"])
    images, labels = (
        [np.asarray(Image.open(source / kind / f"{row['id']}.png")) for row in rows] for kind in ("images", "labels")
    )
    return images, labels, [row["split"] for row in rows]


def read(source: Path) -> tuple[list[np.ndarray], list[np.ndarray | None], list[str]]:
    """Whichever of the two is there."""
    if (source / "train-volume.tif").is_file():
        return read_challenge(source)
    if (source / "split.csv").is_file():
        return read_folder(source)
    raise ValueError(f"{source}: found neither train-volume.tif nor split.csv; unpack the ISBI 2012 download there")


def write(output: Path, images: list, labels: list, splits: list[str], held_back: set[int]) -> dict[str, list]:
    """Images, labels and dataset.json; the sections of the latter come back."""
    sections: dict[str, list] = {"training": [], "validation": [], "test": [], "challenge": []}
    for folder in ("images", "labels"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for i, (image, label, split) in enumerate(zip(images, labels, splits, strict=True)):
        name = f"{i:02d}.png"
        Image.fromarray(image).save(output / "images" / name)
        item = {"image": f"images/{name}"}
        if label is not None:
            Image.fromarray((label == 0).astype(np.uint8)).save(output / "labels" / name)
            item["label"] = f"labels/{name}"
        sections["validation" if i in held_back else {"train": "training"}.get(split, split)].append(item)
    dataset = {"name": "ISBI 2012 EM", "labels": {"0": "cell", "1": "membrane"}, "modality": {"0": "EM"}}
    dataset |= {name: items for name, items in sections.items() if items}
    (output / "dataset.json").write_text(json.dumps(dataset, indent=1))
    return sections


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--num_validation", type=int, default=3, help="training slices held back, the last ones")
    args = parser.parse_args()
    try:
        images, labels, splits = read(args.source)
        train = [i for i, split in enumerate(splits) if split == "train"]
        if not 0 < args.num_validation < len(train):
            raise ValueError(f"--num_validation is {args.num_validation}; expected 1 to {len(train) - 1}")
        sections = write(args.output, images, labels, splits, set(train[-args.num_validation :]))
    except (ValueError, OSError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}: " + ", ".join(f"{len(items)} {name}" for name, items in sections.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
