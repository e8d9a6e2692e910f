"""Convert images of glands, or of nuclei, to this bundle's layout: images/, labels/ (object ids), dataset.json.

Two kinds of source are supported:

    python scripts/prepare_data.py --source DOWNLOAD --output data   # GlaS: train_1.bmp, train_1_anno.bmp, ...
    python scripts/prepare_data.py --source FOLDER --output data     # images/*.png, labels/*.png, split.csv (id,split)

The GlaS challenge's download is the folder "Warwick QU Dataset (Released 2016_07_08)". Its images train_* are for
training, except every eighth of them, which is for validation; they are sorted by the grade in Grade.csv, if there is
one, and then by number, which gives ten of 85, benign and malignant in the same proportions. testA_* and testB_*
together are the list "test"; each is also a list of its own, "testA" and "testB". In a folder, split.csv assigns each
image to train, val or test.

In a label 0 is background, and each object has an id of its own, up to 65535, which is kept. All faults of the files
are reported at once, before anything is written; dataset.json is written last.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bundlekit.errors import InputError
from bundlekit.prepare.layout import (
    open_layout,
    pair_faults,
    progress,
    require_another_folder,
    run_preparation,
    save_pair,
)
from bundlekit.prepare.sources import SECTIONS, read_ids, read_picture, read_split, read_table

GLAS_NAME = re.compile(r"(?P<part>train|testA|testB)_(?P<number>\d+)(_anno)?\.bmp")
PLAIN_MODE = {"L": "L", "LA": "L", "RGB": "RGB", "RGBA": "RGB", "P": "RGB"}


class Pair(NamedTuple):
    """The files of one image and its label, and the lists of dataset.json that they belong to."""

    name: str
    image: Path
    label: Path
    sections: tuple[str, ...]


class Source(NamedTuple):
    """All pairs of a folder, and the words that describe them in dataset.json."""

    pairs: list[Pair]
    name: str
    object: str
    channels: tuple[str, ...]


def read_image(path: Path) -> np.ndarray:
    """8-bit grey values or RGB, without alpha and palette."""
    image = read_picture(path)
    if image.mode not in PLAIN_MODE:
        found = f"has pixels of the type {image.mode!r}"
        raise InputError(path, found, "grey values or RGB of 8 bits", "save it as a PNG of that kind")
    return np.asarray(image.convert(PLAIN_MODE[image.mode]))


def read_label(path: Path) -> np.ndarray:
    return read_ids(path, "object")


def read_glas(source: Path) -> Source:
    """The pairs of the GlaS download; a file of one whose partner is missing makes a pair too."""
    matches = [match for path in source.iterdir() if (match := GLAS_NAME.fullmatch(path.name))]
    names = sorted({(match["part"], int(match["number"]), f"{match['part']}_{match['number']}") for match in matches})
    grades = {}
    if (source / "Grade.csv").is_file():
        rows = read_table(source / "Grade.csv", ("name", "grade (GlaS)"))
        grades = {row["name"].strip(): row["grade (GlaS)"].strip() for row in rows}
    train = sorted((grades.get(name, ""), number, name) for part, number, name in names if part == "train")
    held_back = {name for _, _, name in train[7::8]}
    if train and not held_back:
        remedy = "unpack all of the download"
        raise InputError(
            source, f"has {len(train)} training images", "at least 8, because every eighth is for validation", remedy
        )
    pairs = []
    for part, _, name in names:
        sections = ("validation" if name in held_back else "training",) if part == "train" else ("test", part)
        pairs.append(Pair(name, source / f"{name}.bmp", source / f"{name}_anno.bmp", sections))
    return Source(pairs, "GlaS", "gland", ("red", "green", "blue"))


def read_folder(source: Path) -> Source:
    """The pairs of a folder with a split.csv, sorted."""
    pairs = []
    for name, split in read_split(source / "split.csv").items():
        image, label = (source / folder / f"{name}.png" for folder in ("images", "labels"))
        pairs.append(Pair(name, image, label, (SECTIONS[split],)))
    return Source(pairs, "nuclei", "nucleus", ("microscopy",))


def find(source: Path, output: Path) -> Source:
    """Whichever of the two is there."""
    require_another_folder(output, source)
    if source.is_dir() and any(GLAS_NAME.fullmatch(path.name) for path in source.iterdir()):
        return read_glas(source)
    if (source / "split.csv").is_file():
        return read_folder(source)
    found = "has neither train_1.bmp nor split.csv"
    raise InputError(source, found, "one of them", "pass the folder that directly holds it")


def write(output: Path, source: Source) -> dict[str, list]:
    """Images, labels and dataset.json; the lists of the latter come back."""
    header = {
        "name": source.name,
        "description": f"Labels hold ids: 0 is background, each {source.object} has a number of its own",
        "labels": {"0": "background", "1": source.object},
        "modality": {str(i): channel for i, channel in enumerate(source.channels)},
    }
    with open_layout(output, header) as lists:
        for pair in progress(source.pairs, "writing"):
            item = save_pair(output, pair.name, read_image(pair.image), read_label(pair.label))
            for section in pair.sections:
                lists.setdefault(section, []).append(item)
    return lists


def prepare(args: argparse.Namespace) -> dict[str, list]:
    source = find(args.source, args.output)
    errors: list[InputError] = []
    for pair in progress(source.pairs, "checking"):
        errors += pair_faults(pair.image, pair.label, read_image, read_label)
    if errors:
        raise ValueError("\n".join(map(str, errors)))
    return write(args.output, source)


if __name__ == "__main__":
    sys.exit(run_preparation(argparse.ArgumentParser(description=__doc__), prepare))
