"""Convert images of nuclei to this bundle's layout: images/, labels/ (a number for each nucleus), dataset.json.

Two kinds of source, both with images of the 2018 Data Science Bowl, are supported:

    python scripts/prepare_data.py --source stage1_train --output data [--split CSV]  # ID/images/ID.png, ID/masks/*.png
    python scripts/prepare_data.py --source FOLDER --output data      # images/*.png, labels/*.png, split.csv (id,split)

split.csv assigns each image to train, val or test. Many images are tiles of one field of view, and all tiles of a field
have to be in the same list; without a split.csv for the download, every eighth image is for validation and every eighth
for testing, with a warning. The grey and the colour test images are also lists of their own, "test_grey" and
"test_rgb". If FOLDER has mosaics/NAME.png and NAME_label.png, fields of view assembled from their tiles, they are the
list "mosaics".

Images with three equal channels are written as grey images, and alpha is removed. --slice_px 256 cuts larger training
images into slices of that size, as the report does; without it, training takes windows at random positions. All faults
of the files are reported at once, before anything is written; dataset.json is written last.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from skimage.segmentation import relabel_sequential

from bundlekit.errors import InputError
from bundlekit.prepare.layout import (
    open_layout,
    pair_faults,
    progress,
    require_another_folder,
    run_preparation,
    save_pair,
)
from bundlekit.prepare.sources import SECTIONS, read_ids, read_labels, read_picture, read_split

HEADER = {
    "name": "nuclei",
    "description": "Labels hold ids: 0 is background, each nucleus has a number of its own",
    "labels": {"0": "background", "1": "nucleus"},
    "modality": {"0": "microscopy"},
}
COLOUR_MODES = {"RGB", "RGBA", "P"}
GREY_MODES = {"L", "LA", "I", "I;16", "I;16B"}
MAX_MASKS = 65535


class Pair(NamedTuple):
    """An image, the files of its label (one, or a mask for each nucleus), and what it is for."""

    name: str
    image: Path
    labels: tuple[Path, ...]
    split: str


def read_image(path: Path) -> np.ndarray:
    """Grey values or RGB, without alpha and palette; grey where the three channels are alike."""
    image = read_picture(path)
    if image.mode in COLOUR_MODES:
        array = np.asarray(image.convert("RGB"))
        return array[..., 0] if (array == array[..., :1]).all() else array
    if image.mode not in GREY_MODES:
        found = f"has pixels of the type {image.mode!r}"
        raise InputError(path, found, "grey values of 8 or 16 bits or RGB of 8 bits", "save it as such a PNG")
    array = np.asarray(image.convert("L") if image.mode == "LA" else image)
    return array if array.dtype == np.uint8 else array.astype(np.uint16)


def read_label(paths: tuple[Path, ...]) -> np.ndarray:
    """The label map itself, or made of the masks: where two overlap, which few do, the later one wins."""
    if paths[0].parent.name != "masks":
        return read_ids(paths[0], "nucleus")
    if len(paths) > MAX_MASKS:
        raise InputError(paths[0].parent, f"holds {len(paths)} masks", f"at most {MAX_MASKS}", "split the image")
    ids = np.zeros(read_labels(paths[0]).size[::-1], np.uint16)
    for number, path in enumerate(paths, start=1):
        mask = np.asarray(read_labels(path).convert("L")) > 0
        if mask.shape != ids.shape:
            expected = f"{ids.shape} as {paths[0]}"
            raise InputError(path, f"has {mask.shape} rows and columns", expected, "download it again")
        ids[mask] = number
    return ids


def read_download(source: Path, split_path: Path | None) -> list[Pair]:
    """stage1_train as it is unpacked: a folder for each image."""
    names = sorted(path.name for path in source.iterdir() if (path / "images").is_dir())
    if split_path is None:
        print(
            "warning: no --split: tiles of one field of view may be in both training and test; pass --split CSV",
            file=sys.stderr,
        )
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
    require_another_folder(output, source)
    if source.is_dir() and any((path / "images").is_dir() for path in source.iterdir()):
        return read_download(source, split_path)
    if (source / "split.csv").is_file():
        return read_folder(source, split_path or source / "split.csv")
    found = "has neither ID/images nor split.csv"
    raise InputError(source, found, "one of them", "pass the folder that directly holds it")


def windows(shape: tuple[int, int], slice_px: int) -> Iterator[tuple[slice, slice]]:
    """Slices side by side; the last of a row or column is moved back to end with the image."""
    starts = [[*range(0, side - slice_px, slice_px), max(side - slice_px, 0)] for side in shape]
    for top in starts[0]:
        for left in starts[1]:
            yield slice(top, top + slice_px), slice(left, left + slice_px)


def write(output: Path, pairs: list[Pair], slice_px: int | None) -> dict[str, list]:
    """Images, labels and dataset.json; the lists of the latter come back."""
    with open_layout(output, HEADER) as lists:
        for pair in progress(pairs, "writing"):
            image, label = read_image(pair.image), read_label(pair.labels)
            if pair.split == "train" and slice_px and max(label.shape) > slice_px:
                for i, window in enumerate(windows(label.shape, slice_px)):
                    ids = relabel_sequential(label[window])[0]  # a lone 255 would be taken for a mask
                    lists["training"].append(save_pair(output, f"{pair.name}_{i:02d}", image[window], ids))
                continue
            item = save_pair(output, pair.name, image, label)
            lists.setdefault(SECTIONS.get(pair.split, "mosaics"), []).append(item)
            if pair.split == "test":
                lists.setdefault("test_grey" if image.ndim == 2 else "test_rgb", []).append(item)
    return lists


def prepare(args: argparse.Namespace) -> dict[str, list]:
    if args.slice_px is not None and args.slice_px < 2:
        raise InputError("--slice_px", f"is {args.slice_px}", "at least 2, such as 256", "pass a larger size")
    pairs = find(args.source, args.output, args.split)
    errors: list[InputError] = []
    for pair in progress(pairs, "checking"):
        errors += pair_faults(pair.image, pair.labels[0], read_image, lambda _, paths=pair.labels: read_label(paths))
    if errors:
        raise ValueError("\n".join(map(str, errors)))
    return write(args.output, pairs, args.slice_px)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", type=Path, help="split.csv to use instead of the source's")
    parser.add_argument("--slice_px", type=int, help="cut larger training images into slices of this size")
    return run_preparation(parser, prepare)


if __name__ == "__main__":
    sys.exit(main())
