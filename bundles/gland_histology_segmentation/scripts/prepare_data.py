"""Lay out images of glands, or of nuclei, as this bundle reads them: images/, labels/ (ids of objects), dataset.json.

Takes either form:

    python scripts/prepare_data.py --source DOWNLOAD --output data   # GlaS: train_1.bmp, train_1_anno.bmp, ...
    python scripts/prepare_data.py --source FOLDER --output data     # images/*.png, labels/*.png, split.csv (id,split)

Of the GlaS challenge's download, the folder "Warwick QU Dataset (Released 2016_07_08)", the images train_* train; but
every eighth of them, sorted by the grade in Grade.csv where it is there and then by number, validates instead: ten of
85, benign and malignant in the same shares. testA_* and testB_* together are the list "test", and each is also a list
of its own, "testA" and "testB". In a folder split.csv says for each image: train, val or test.

In a label 0 is background and each object has an id of its own, up to 65535, which is kept. All that is wrong with the
files is told at once, before anything is written; dataset.json is written last.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from bundlekit.files import InputError

GLAS_NAME = re.compile(r"(?P<part>train|testA|testB)_(?P<number>\d+)(_anno)?\.bmp")
SECTIONS = {"train": "training", "val": "validation", "test": "test"}
PLAIN_MODE = {"L": "L", "LA": "L", "RGB": "RGB", "RGBA": "RGB", "P": "RGB"}
LABEL_MODES = ("L", "P", "I", "I;16", "I;16B")
MAX_ID = 65535
COMPRESSION = 3  # of zlib; the default, 6, takes twice as long to save a sixth of the space
LONG_LIST = 50


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


def load(path: Path) -> Image.Image:
    """The whole content of an image file."""
    try:
        image = Image.open(path)
        image.load()
        return image
    except Exception as error:  # PIL and the codecs behind it each have their own
        reason = getattr(error, "strerror", None) or error
        raise InputError(path, f"cannot be read ({reason})", "an image file", "copy or download it again") from error


def read_image(path: Path) -> np.ndarray:
    """8-bit grey values or RGB, without alpha and palette."""
    image = load(path)
    if image.mode not in PLAIN_MODE:
        found = f"has pixels of the type {image.mode!r}"
        raise InputError(path, found, "grey values or RGB of 8 bits", "save it as a PNG of that kind")
    return np.asarray(image.convert(PLAIN_MODE[image.mode]))


def read_label(path: Path) -> np.ndarray:
    """The id of the object at each pixel; those of a palette image are the indices."""
    image = load(path)
    if image.mode not in LABEL_MODES:
        found = f"has pixels of the type {image.mode!r}"
        raise InputError(path, found, "one whole number for each pixel", "save the ids of objects, not colours")
    label = np.asarray(image)
    if label.min() < 0 or label.max() > MAX_ID:
        found = f"holds ids from {label.min()} to {label.max()}"
        raise InputError(path, found, f"0 to {MAX_ID}", "number its objects from 1 up")
    if set(np.unique(label)) in ({255}, {0, 255}):
        raise InputError(path, "holds the one id 255", "an id for each object", "label the pieces of this mask")
    return label.astype(np.uint16)


def faults(pair: Pair) -> list[InputError]:
    """All that is wrong with one pair."""
    errors: list[InputError] = []
    shapes = []
    for path, read in ((pair.image, read_image), (pair.label, read_label)):
        try:
            shapes.append(read(path).shape[:2])
        except InputError as error:
            errors.append(error)
    if len(set(shapes)) > 1:
        expected = f"{shapes[0]} as {pair.image}"
        remedy = "pair each image with its own label"
        errors.append(InputError(pair.label, f"has {shapes[1]} rows and columns", expected, remedy))
    return errors


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The lines of a CSV file that has these columns."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", skipinitialspace=True)
            rows, there = list(reader), reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(path, f"cannot be read ({error})", "a text file", "save it as CSV in UTF-8") from error
    missing = [column for column in columns if column not in there]
    if missing:
        found = f"has no column {' and no column '.join(missing)} (columns there: {', '.join(there) or 'none'})"
        remedy = f"begin it with the line {','.join(columns)}"
        raise InputError(path, found, f"the columns {' and '.join(columns)}", remedy)
    return rows


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
        raise InputError(source, f"has {len(train)} training images", "8 or more, as every eighth validates", remedy)
    pairs = []
    for part, _, name in names:
        sections = ("validation" if name in held_back else "training",) if part == "train" else ("test", part)
        pairs.append(Pair(name, source / f"{name}.bmp", source / f"{name}_anno.bmp", sections))
    return Source(pairs, "GlaS", "gland", ("red", "green", "blue"))


def read_folder(source: Path) -> Source:
    """The pairs of a folder with a split.csv, sorted."""
    path = source / "split.csv"
    remedy = "give each image one line, such as 00,train"
    pairs: dict[str, Pair] = {}
    for row in read_table(path, ("id", "split")):
        name, split = row["id"], row["split"]
        if split not in SECTIONS:
            raise InputError(path, f"image {name!r} has the split {split!r}", "train, val or test", remedy)
        if name in pairs:
            raise InputError(path, f"image {name!r} is there twice", "each image once", remedy)
        image, label = (source / folder / f"{name}.png" for folder in ("images", "labels"))
        pairs[name] = Pair(name, image, label, (SECTIONS[split],))
    if not pairs:
        raise InputError(path, "names no image", "one at least", remedy)
    return Source([pairs[name] for name in sorted(pairs)], "nuclei", "nucleus", ("microscopy",))


def find(source: Path, output: Path) -> Source:
    """Whichever of the two is there."""
    if output.resolve() == source.resolve():
        raise InputError(output, "is the folder of the source", "another folder", "pass another --output")
    if source.is_dir() and any(GLAS_NAME.fullmatch(path.name) for path in source.iterdir()):
        return read_glas(source)
    if (source / "split.csv").is_file():
        return read_folder(source)
    found = "found neither train_1.bmp nor split.csv"
    raise InputError(source, found, "one of them", "pass the folder that directly holds it")


def progress(pairs: list[Pair], doing: str) -> tqdm:
    return tqdm(pairs, desc=doing, unit="image", disable=len(pairs) <= LONG_LIST)


def write(output: Path, source: Source) -> dict[str, list]:
    """Images, labels and then dataset.json; the sections of the latter come back."""
    path = output / "dataset.json"
    path.unlink(missing_ok=True)  # so that a run that is killed leaves no list of what it had not yet written
    for folder in ("images", "labels"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    sections: dict[str, list] = {"training": [], "validation": [], "test": []}
    for pair in progress(source.pairs, "writing"):
        item = {"image": f"images/{pair.name}.png", "label": f"labels/{pair.name}.png"}
        Image.fromarray(read_image(pair.image)).save(output / item["image"], compress_level=COMPRESSION)
        Image.fromarray(read_label(pair.label)).save(output / item["label"], compress_level=COMPRESSION)
        for section in pair.sections:
            sections.setdefault(section, []).append(item)
    dataset: dict[str, object] = {
        "name": source.name,
        "description": f"Labels hold ids: 0 is background, each {source.object} has a number of its own",
        "labels": {"0": "background", "1": source.object},
        "modality": {str(i): channel for i, channel in enumerate(source.channels)},
    }
    dataset |= {name: items for name, items in sections.items() if items}
    unfinished = output / "dataset.json.part"
    unfinished.write_text(json.dumps(dataset, indent=1))
    unfinished.replace(path)
    return sections


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    try:
        source = find(args.source, args.output)
        errors = [str(error) for pair in progress(source.pairs, "checking") for error in faults(pair)]
        sections = {} if errors else write(args.output, source)
    except (ValueError, OSError) as error:
        errors = [str(error)]
    if errors:
        print("\n".join(f"error: {line}" for line in errors), file=sys.stderr)
        return 1
    print(f"{args.output}: " + ", ".join(f"{len(items)} {name}" for name, items in sections.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
