"""Convert fundus photographs to this bundle's layout: images/, labels/ (1 in the optic disc), dataset.json.

    python scripts/prepare_data.py --source DRIONS-DB [FOLDER ...] --output data --fold 0

Each FOLDER is one of these, unpacked:

    DRIONS-DB     images/image_001.jpg, experts_anotation/anotExpert1_001.txt (contours; --expert 2: the other expert)
    DRISHTI-GS1   Training/Images/NAME.png, Training/GT/NAME/SoftMap/NAME_ODsegSoftmap.png, and the same in Test/
    REFUGE        NAME.jpg, and Disc_Cup_Masks/NAME.bmp (0 cup, 128 rim, 255 background), in any folders
    any other     images/NAME.*, labels/NAME.png (0 background, another value in the disc)
    no masks      NAME.*, with --centres CSV, a table with the columns name, x, y (pixels): only for phase 1

Photographs are grey or RGB; grey ones may have 16 bits. Those whose EXIF orientation is not upright are used as
viewers show them; masks and centres belong to the upright picture.

The entries of dataset.json also have the "centre" (x, y) of the disc, from the mask or the table. If folders have test
images of their own, as DRISHTI-GS1 and REFUGE do, these are the test images, and REFUGE's validation images are for
validation. Otherwise every fifth image of each folder, starting with number --fold, is for testing. If there are no
validation images, every eighth of the others, or the last one, is for validation. --test_source FOLDER uses all images
of other folders for testing. All faults of the files are reported at once, before anything is written; dataset.json is
written last.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from skimage.draw import polygon
from tqdm import tqdm

from bundlekit.errors import InputError
from bundlekit.inputs.centres import check_centre
from bundlekit.inputs.grids import Grid
from bundlekit.prepare.folds import split_fold
from bundlekit.prepare.sources import read_labels, read_picture

NUM_FOLDS = 5
VALIDATION_STEP = 8
SECTIONS = ("training", "validation", "test")
ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
KEPT = {".jpg", ".jpeg", ".png"}
REFUGE_BACKGROUND = 255
LONG_LIST = 50
NOWHERE = (-1.0, -1.0)
"""In place of a centre that cannot be read."""


class Photograph(NamedTuple):
    """An image, the file of its mask or the centre of its disc, and the list that its set puts it into, if any."""

    name: str
    image: Path
    kind: str
    mask: Path | None = None
    centre: tuple[float, float] | None = None
    section: str | None = None


def read_contour(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The mask (rows, columns) within a closed contour; a line of the file is x , y."""
    try:
        points = np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        remedy = "download it again"
        raise InputError(path, f"cannot be read ({error})", "lines of x , y in pixels", remedy) from error
    if points.shape[0] < 3 or points.shape[1] != 2:
        raise InputError(path, f"holds {points.shape} numbers", "at least three points x , y", "download it again")
    mask = np.zeros(size[::-1], bool)
    mask[polygon(points[:, 1], points[:, 0], mask.shape)] = True
    return mask


def read_mask(photo: Photograph, size: tuple[int, int]) -> np.ndarray:
    """The mask (rows, columns) of the disc, the cup included, from a file of the set's own kind."""
    assert photo.mask is not None
    if photo.kind == "contour":
        mask = read_contour(photo.mask, size)
    else:
        values = np.asarray(read_labels(photo.mask).convert("L"))
        at_least_half = 127.5  # of the experts, whose share a soft map holds
        mask = {"soft": values > at_least_half, "refuge": values < REFUGE_BACKGROUND}.get(photo.kind, values > 0)
    if mask.shape != size[::-1]:
        found, expected = f"is {mask.shape[1]} x {mask.shape[0]} px", f"{size[0]} x {size[1]} as {photo.image}"
        raise InputError(photo.mask, found, expected, "pair each photograph with its own mask")
    if not mask.any():
        raise InputError(photo.mask, "has only background", "an optic disc", "draw it, or remove the photograph")
    return mask


def fault(photo: Photograph) -> list[InputError]:
    """What is wrong with one photograph and its mask or centre."""
    try:
        image = read_picture(photo.image)
        size = image.size
        if image.mode in ("I", "F"):
            found, expected = f"holds grey values of 32 bits ({image.mode})", "8 or 16 bits"
            raise InputError(photo.image, found, expected, "save it again with one of them")
        if photo.mask is not None:
            read_mask(photo, size)
            return []
    except InputError as error:
        return [error]
    return check_centre({"image": str(photo.image)}, photo.centre, Grid(size))


def images_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != ".")


def read_drions(source: Path, expert: int) -> list[Photograph]:
    (folder,) = source.glob("experts_an*tation")  # the download's own spelling, and the usual one
    contours = [folder / f"anotExpert{expert}_{path.stem.split('_')[-1]}.txt" for path in images_of(source / "images")]
    images = images_of(source / "images")
    return [Photograph(p.stem, p, "contour", contour) for p, contour in zip(images, contours, strict=True)]


def tell_unmarked(images: Iterable[Path], photos: list[Photograph]) -> None:
    """A line on photographs that are left out for want of a mask."""
    unmarked = sorted(set(images) - {photo.image for photo in photos})
    if unmarked:
        names = ", ".join(path.name for path in unmarked[:3]) + (", ..." if len(unmarked) > 3 else "")
        print(f"note: {len(unmarked)} photographs without a mask are left out: {names}", file=sys.stderr)


def read_drishti(source: Path) -> list[Photograph]:
    source, photos = source.resolve(), []  # Training may be the folder itself
    for mask in sorted(source.rglob("*_ODsegSoftmap.png")):
        name = mask.name.removesuffix("_ODsegSoftmap.png")
        part = next((path for path in mask.parents if path.name in ("Training", "Test")), None)
        if part is None:
            found, remedy = "is not in a folder Training or Test", "pass the folder that holds both"
            raise InputError(mask, found, "one of them as a parent folder", remedy)
        image = next((part / "Images").rglob(f"{name}.png"), part / "Images" / f"{name}.png")
        photos.append(Photograph(name, image, "soft", mask, section="test" if part.name == "Test" else None))
    tell_unmarked((path for path in source.rglob("*.png") if "Images" in path.parts), photos)
    return photos


def read_refuge(source: Path) -> list[Photograph]:
    images = {path.stem.lower(): path for path in source.rglob("*.jpg")}
    photos = []
    for mask in sorted(path for path in source.rglob("*.bmp") if "Disc_Cup_Masks" in path.parts):
        image = images.get(mask.stem.lower(), source / f"{mask.stem}.jpg")
        place = str(mask.relative_to(source)).lower()
        section = "validation" if "valid" in place else "test" if "test" in place else None
        photos.append(Photograph(mask.stem, image, "refuge", mask, section=section))
    tell_unmarked(images.values(), photos)
    return photos


def read_centres(source: Path, table: Path) -> list[Photograph]:
    """All images of a folder, or of images/ in it, with their row of the table."""
    remedy = "begin it with the line name,x,y and give each image a line, such as a.jpg,310.5,204"
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            delimiter = ";" if ";" in first and "," not in first else ","
            columns = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
            lines = csv.DictReader(file, columns, delimiter=delimiter)
            rows = [{name: (value or "").strip() for name, value in line.items() if name in columns} for line in lines]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(table, f"cannot be read ({error})", "a text file", "save it as CSV in UTF-8") from error
    if not {"name", "x", "y"} <= set(columns):
        raise InputError(table, f"has the columns {', '.join(columns) or 'none'}", "name, x and y", remedy)
    images = images_of(source / "images" if (source / "images").is_dir() else source)
    by_name = {name: path for path in images for name in (path.name, path.stem)}
    centres: dict[Path, tuple[float, float]] = {}
    errors = []
    for number, row in enumerate(rows, start=2):
        path = by_name.get(row["name"])
        try:
            if path is None or path in centres:
                found = "does not exist" if path is None else "has a second row"
                raise InputError(
                    table, f"line {number}: image {row['name']!r} {found}", "one row for each image", remedy
                )
            centres[path] = (float(row["x"]), float(row["y"]))
        except (TypeError, ValueError) as error:
            text = f"line {number}: x is {row['x']!r} and y is {row['y']!r}"
            errors.append(error if isinstance(error, InputError) else InputError(table, text, "two numbers", remedy))
            centres.setdefault(path or table, NOWHERE)
    missing = [path for path in images if path not in centres]
    errors += [InputError(table, f"has no row for {path.name}", "a row for each image", remedy) for path in missing]
    photos = [Photograph(path.stem, path, "centre", centre=centres[path]) for path in images if path in centres]
    if errors:
        errors += [error for photo in photos if photo.centre != NOWHERE for error in fault(photo)]
        raise ValueError("\nerror: ".join(map(str, errors)))
    return photos


def read_folder(source: Path, expert: int, centres: Path | None) -> list[Photograph]:
    """Whichever of the layouts is there."""
    if not source.is_dir():
        raise InputError(source, "is not a folder", "the folder of a data set", "correct --source")
    if centres is not None:
        photos = read_centres(source, centres)
    elif list(source.glob("experts_an*tation")):
        photos = read_drions(source, expert)
    elif next(source.rglob("*_ODsegSoftmap.png"), None):
        photos = read_drishti(source)
    elif next(source.rglob("Disc_Cup_Masks"), None):
        photos = read_refuge(source)
    elif (source / "labels").is_dir():
        photos = [Photograph(p.stem, p, "label", source / f"labels/{p.stem}.png") for p in images_of(source / "images")]
    else:
        found = "has none of experts_anotation, SoftMap, Disc_Cup_Masks and labels"
        raise InputError(source, found, "one of them", "pass the folder that holds it, or a table with --centres")
    if not photos:
        raise InputError(source, "holds no photograph", "at least one", "pass the folder that holds images/")
    return photos


def split(sets: Sequence[Sequence[Photograph]], tests: Sequence[Photograph], fold: int) -> dict[str, list[Photograph]]:
    """The photographs of each list of dataset.json."""
    sections: dict[str, list[Photograph]] = {name: [] for name in SECTIONS}
    sections["test"] += tests
    for photos in sets:
        given = {photo.name: photo.section for photo in photos if photo.section}
        free = sorted(photo.name for photo in photos if not photo.section)
        if not tests and "test" not in given.values():
            names = split_fold(free, fold, NUM_FOLDS)
        else:
            chosen = free[VALIDATION_STEP - 1 :: VALIDATION_STEP] or free[1:][-1:]  # a single one trains
            validation = [] if "validation" in given.values() else chosen
            names = {"training": [name for name in free if name not in validation], "validation": validation}
        given |= {name: section for section, members in names.items() for name in members}
        for photo in photos:
            sections[given[photo.name]].append(photo)
    return sections


def write(output: Path, sections: dict[str, list[Photograph]]) -> None:
    """Images, labels and then dataset.json."""
    path = output / "dataset.json"
    path.unlink(missing_ok=True)  # so that a run that is killed leaves no list of what it had not yet written
    for folder in ("images", "labels"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    dataset: dict[str, object] = {"name": "optic disc", "labels": {"0": "background", "1": "optic disc"}}
    dataset["modality"] = {"0": "fundus photograph"}
    for section, photos in sections.items():
        items = []
        for photo in tqdm(photos, desc=section, unit="image", disable=len(photos) <= LONG_LIST):
            image = read_picture(photo.image)
            is_deep = image.mode.startswith("I;16")
            keep = photo.image.suffix.lower() in KEPT and (is_deep or image.mode in ("L", "RGB"))
            item: dict[str, object] = {"image": f"images/{photo.name}{photo.image.suffix if keep else '.png'}"}
            if keep:
                shutil.copyfile(photo.image, output / str(item["image"]))
            elif is_deep:
                Image.fromarray(np.asarray(image).astype(np.uint16)).save(output / str(item["image"]))
            else:
                image.convert("RGB").save(output / str(item["image"]))
            centre = photo.centre
            if photo.mask is not None:
                mask = read_mask(photo, image.size)
                item["label"] = f"labels/{photo.name}.png"
                Image.fromarray(mask.astype(np.uint8)).save(output / str(item["label"]))
                centre = tuple(np.argwhere(mask).mean(axis=0)[::-1].round(2).tolist())
            items.append(item | {"centre": centre})
        if items:
            dataset[section] = items
    unfinished = output / "dataset.json.part"
    unfinished.write_text(json.dumps(dataset, indent=1))
    unfinished.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--test_source", type=Path, nargs="+", default=[], help="folders of which all images are test images"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0, choices=range(NUM_FOLDS), help="fold for testing")
    parser.add_argument("--expert", type=int, default=1, choices=(1, 2), help="expert of the DRIONS-DB contours")
    parser.add_argument("--centres", type=Path, help="table of centres, for a folder without masks")
    args = parser.parse_args()
    sections: dict[str, list[Photograph]] = {}
    try:
        sets = [read_folder(source, args.expert, args.centres) for source in args.source]
        tests = [photo for source in args.test_source for photo in read_folder(source, args.expert, None)]
        photos = [photo for group in [*sets, tests] for photo in group]
        errors = [str(e) for p in tqdm(photos, "checking", disable=len(photos) <= LONG_LIST) for e in fault(p)]
        names = [photo.name for photo in photos]
        errors += [
            f"{name}: is the name of several images; expected one; rename them"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        if args.output.resolve() in {photo.image.parent.resolve().parent for photo in photos}:
            errors.append(f"{args.output}: is the folder of a source; expected another; pass another --output")
        if not errors:
            sections = split(sets, tests, args.fold)
            write(args.output, sections)
    except (ValueError, OSError) as error:
        errors = [str(error)]
    if errors:
        print("\n".join(f"error: {line}" for line in errors), file=sys.stderr)
        return 1
    print(f"{args.output}: " + ", ".join(f"{len(photos)} {section}" for section, photos in sections.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
