"""Lay out images of nuclei as this bundle reads them: images/, labels/ (a number for each nucleus), dataset.json.

Takes either form of the 2018 Data Science Bowl's images:

    python scripts/prepare_data.py --source stage1_train --output data [--split CSV]  # ID/images/ID.png, ID/masks/*.png
    python scripts/prepare_data.py --source FOLDER --output data      # images/*.png, labels/*.png, split.csv (id,split)

split.csv says for each image: train, val or test. Many images are tiles of one field of view, which must not lie on
both sides; without a split.csv of the download, every eighth image validates and every eighth tests, with a warning.
The test images in grey and in colour are also lists of their own, "test_grey" and "test_rgb". Where FOLDER has
mosaics/NAME.png and NAME_label.png, fields of view put together again, they make the list "mosaics".

Images are written in grey where their three channels are alike, and without alpha. --slice_px 256 cuts training
images that are larger into slices of that size, as the report does; without it training takes windows at random
places. All that is wrong with the files is told at once, before anything is written; dataset.json is written last.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from bundlekit.files import InputError

SECTIONS = {"train": "training", "val": "validation", "test": "test", "mosaic": "mosaics"}
COLOUR_MODES = {"RGB", "RGBA", "P"}
GREY_MODES = {"L", "LA", "I", "I;16", "I;16B"}
MAX_ID = 65535
COMPRESSION = 3  # of zlib; the default, 6, takes twice as long to save a sixth of the space
LONG_LIST = 50


class Pair(NamedTuple):
    """An image, the files of its label (one, or a mask for each nucleus), and what it is for."""

    name: str
    image: Path
    labels: tuple[Path, ...]
    split: str


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
    """Grey values or RGB, without alpha and palette; grey where the three channels are alike."""
    image = load(path)
    if image.mode in COLOUR_MODES:
        array = np.asarray(image.convert("RGB"))
        return array[..., 0] if (array == array[..., :1]).all() else array
    if image.mode not in GREY_MODES:
        found = f"has pixels of the type {image.mode!r}"
        raise InputError(path, found, "grey values of 8 or 16 bits or RGB of 8 bits", "save it as such a PNG")
    array = np.asarray(image.convert("L") if image.mode == "LA" else image)
    return array if array.dtype == np.uint8 else array.astype(np.uint16)


def read_ids(path: Path) -> np.ndarray:
    """The number of the nucleus at each pixel of a label map."""
    image = load(path)
    if image.mode not in GREY_MODES - {"LA"}:
        found = f"has pixels of the type {image.mode!r}"
        raise InputError(path, found, "one whole number for each pixel", "save the ids of nuclei, not colours")
    ids = np.asarray(image)
    if ids.min() < 0 or ids.max() > MAX_ID:
        raise InputError(path, f"holds ids from {ids.min()} to {ids.max()}", f"0 to {MAX_ID}", "number from 1 up")
    if set(np.unique(ids)) in ({255}, {0, 255}):
        raise InputError(path, "holds the one id 255", "an id for each nucleus", "label the pieces of this mask")
    return ids.astype(np.uint16)


def read_label(pair: Pair) -> np.ndarray:
    """The label map itself, or made of the masks: where two overlap, which few do, the later one wins."""
    if len(pair.labels) == 1 and pair.labels[0].parent.name != "masks":
        return read_ids(pair.labels[0])
    if len(pair.labels) > MAX_ID:
        raise InputError(pair.labels[0].parent, f"holds {len(pair.labels)} masks", f"{MAX_ID} at most", "cut it up")
    ids = np.zeros(load(pair.image).size[::-1], np.uint16)
    for number, path in enumerate(pair.labels, start=1):
        mask = np.asarray(load(path).convert("L")) > 0
        if mask.shape != ids.shape:
            expected = f"{ids.shape} as {pair.image}"
            raise InputError(path, f"has {mask.shape} rows and columns", expected, "download it again")
        ids[mask] = number
    return ids


def fault(pair: Pair) -> list[InputError]:
    """What is wrong with one pair."""
    try:
        image, label = read_image(pair.image), read_label(pair)
    except InputError as error:
        return [error]
    if image.shape[:2] != label.shape:
        expected, remedy = f"{image.shape[:2]} as {pair.image}", "pair each image with its own label"
        return [InputError(pair.labels[0], f"has {label.shape} rows and columns", expected, remedy)]
    return []


def read_split(path: Path) -> dict[str, str]:
    """id -> train, val or test, sorted."""
    remedy = "begin it with the line id,split and give each image a line, such as 00,train"
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", skipinitialspace=True)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(path, f"cannot be read ({error})", "a text file", "save it as CSV in UTF-8") from error
    missing = [name for name in ("id", "split") if name not in columns]
    if missing:
        found = f"has no column {' and no column '.join(missing)} (columns there: {', '.join(columns) or 'none'})"
        raise InputError(path, found, "the columns id and split", remedy)
    splits: dict[str, str] = {}
    for row in rows:
        if row["split"] not in ("train", "val", "test"):
            raise InputError(path, f"image {row['id']!r} has the split {row['split']!r}", "train, val or test", remedy)
        if row["id"] in splits:
            raise InputError(path, f"image {row['id']!r} is there twice", "each image once", remedy)
        splits[row["id"]] = row["split"]
    if not splits:
        raise InputError(path, "names no image", "one at least", remedy)
    return dict(sorted(splits.items()))


def read_download(source: Path, split_path: Path | None) -> list[Pair]:
    """stage1_train as it is unpacked: a folder for each image."""
    names = sorted(path.name for path in source.iterdir() if (path / "images").is_dir())
    if split_path is None:
        print("warning: no --split: tiles of one field of view may lie on both sides of it", file=sys.stderr)
        splits = {name: {6: "val", 7: "test"}.get(i % 8, "train") for i, name in enumerate(names)}
    else:
        splits = read_split(split_path)
    pairs = []
    for name, split in splits.items():
        masks = tuple(sorted((source / name / "masks").glob("*.png")))
        if not masks:
            found, remedy = "holds no mask", "download it again; stage1_test has none: pass stage1_train"
            raise InputError(source / name / "masks", found, "a PNG for each nucleus", remedy)
        pairs.append(Pair(name, source / name / "images" / f"{name}.png", masks, split))
    return pairs


def read_folder(source: Path, split_path: Path) -> list[Pair]:
    """images/, labels/ and, where they are there, mosaics/."""
    folders = [source / kind for kind in ("images", "labels")]
    pairs = []
    for name, split in read_split(split_path).items():
        image, label = (folder / f"{name}.png" for folder in folders)
        pairs.append(Pair(name, image, (label,), split))
    for label in sorted(source.glob("mosaics/*_label.png")):
        name = label.name.removesuffix("_label.png")
        pairs.append(Pair(name, label.with_name(f"{name}.png"), (label,), "mosaic"))
    return pairs


def find(source: Path, output: Path, split_path: Path | None) -> list[Pair]:
    """Whichever of the two is there."""
    if output.resolve() == source.resolve():
        raise InputError(output, "is the folder of the source", "another folder", "pass another --output")
    if source.is_dir() and any((path / "images").is_dir() for path in source.iterdir()):
        return read_download(source, split_path)
    if (source / "split.csv").is_file():
        return read_folder(source, split_path or source / "split.csv")
    found = "found neither ID/images nor split.csv"
    raise InputError(source, found, "one of them", "pass the folder that directly holds it")


def windows(shape: tuple[int, int], slice_px: int) -> Iterator[tuple[slice, slice]]:
    """Slices side by side; the last of a row or column is moved back to end with the image."""
    starts = [[*range(0, side - slice_px, slice_px), max(side - slice_px, 0)] for side in shape]
    for top in starts[0]:
        for left in starts[1]:
            yield slice(top, top + slice_px), slice(left, left + slice_px)


def save(output: Path, name: str, image: np.ndarray, label: np.ndarray) -> dict[str, str]:
    item = {"image": f"images/{name}.png", "label": f"labels/{name}.png"}
    for kind, array in zip(item, (image, label), strict=True):
        Image.fromarray(np.ascontiguousarray(array)).save(output / item[kind], compress_level=COMPRESSION)
    return item


def progress(pairs: list[Pair], doing: str) -> tqdm:
    return tqdm(pairs, desc=doing, unit="image", disable=len(pairs) <= LONG_LIST)


def write(output: Path, pairs: list[Pair], slice_px: int | None) -> dict[str, list]:
    """Images, labels and then dataset.json; the sections of the latter come back."""
    path = output / "dataset.json"
    path.unlink(missing_ok=True)  # so that a run that is killed leaves no list of what it had not yet written
    for folder in ("images", "labels"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    sections: dict[str, list] = {name: [] for name in ("training", "validation", "test")}
    for pair in progress(pairs, "writing"):
        image, label = read_image(pair.image), read_label(pair)
        if pair.split == "train" and slice_px and max(label.shape) > slice_px:
            for i, window in enumerate(windows(label.shape, slice_px)):
                sections["training"].append(save(output, f"{pair.name}_{i:02d}", image[window], label[window]))
            continue
        item = save(output, pair.name, image, label)
        sections.setdefault(SECTIONS[pair.split], []).append(item)
        if pair.split == "test":
            sections.setdefault("test_grey" if image.ndim == 2 else "test_rgb", []).append(item)
    dataset: dict[str, object] = {
        "name": "nuclei",
        "description": "Labels hold ids: 0 is background, each nucleus has a number of its own",
        "labels": {"0": "background", "1": "nucleus"},
        "modality": {"0": "microscopy"},
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
    parser.add_argument("--split", type=Path, help="another split.csv than that of the source")
    parser.add_argument("--slice_px", type=int, help="cut larger training images into slices of this size")
    args = parser.parse_args()
    if args.slice_px is not None and args.slice_px < 2:
        parser.error(f"--slice_px is {args.slice_px}; expected 2 at least, 256 as in the report")
    try:
        pairs = find(args.source, args.output, args.split)
        errors = [str(error) for pair in progress(pairs, "checking") for error in fault(pair)]
        sections = {} if errors else write(args.output, pairs, args.slice_px)
    except (ValueError, OSError) as error:
        errors = [str(error)]
    if errors:
        print("\n".join(f"error: {line}" for line in errors), file=sys.stderr)
        return 1
    print(f"{args.output}: " + ", ".join(f"{len(items)} {name}" for name, items in sections.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
