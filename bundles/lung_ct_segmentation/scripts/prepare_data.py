"""Convert CT volumes or slices with lung masks to this bundle's layout: images/, labels/ and dataset.json.

    python scripts/prepare_data.py --source DOWNLOAD --output data --fold 0   # "Finding and measuring lungs in CT data"
    python scripts/prepare_data.py --source FOLDER --output data --fold 0     # any folder of NIfTI volumes with masks

Kaggle's unpacked download has slices in 2d_images/ and 2d_masks/ (*.tif with the same names) and volumes in 3d_images/
(IMG_*.nii.gz and MASK_*.nii.gz); one of the two is enough. A slice becomes a volume of one slice, with pixels of 0.7 mm
because the files give no size. If a volume has its square slices along the first axis without a header that says so,
its axes are corrected. Slices are for training, except those with the number of a volume for validation or testing,
which may be of the same patient. If there are only two volumes in addition to slices, one is for testing and one for
validation; a single one is for testing, and every eighth slice is for validation.

Any other folder has images/ (or imagesTr/) and masks/ (or labels/, labelsTr/), or images and masks in the same folder,
where a mask has a word in its name: case1.nii.gz and case1_mask.nii.gz, IMG_1.nii.gz and MASK_1.nii.gz. Words such as
image, ct, mask, seg, label and lung are not part of a case's name; lung marks a mask if no other word does, as in
case1.nii.gz and case1_lung.nii.gz.

The volumes are sorted by name: every fifth one, starting with number --fold, is for testing (of fewer than five: one);
every eighth of the others, and at least one, is for validation; the rest is for training. In a mask 0 is background; a
single other value, such as 255, becomes 1; the values 1 and 2 are kept. All faults of the files are reported at once,
before anything is written; dataset.json is written last.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel
import numpy as np
import tifffile

from bundlekit.errors import InputError, describe
from bundlekit.inputs.grids import Grid, check_same_grid
from bundlekit.prepare.folds import split_fold
from bundlekit.prepare.volumes import Case, Plan, file_faults, nifti_name, run_program

NUM_FOLDS, MIN_CASES = 5, 3
PIXEL_MM = 0.7
VOLUMES, SLICES = (".nii.gz", ".nii"), (".tif", ".tiff")
PAIRS = [(images, masks) for images in ("images", "imagesTr") for masks in ("masks", "labels", "labelsTr")]
IMAGE_WORDS = {"img", "image", "images", "ct", "vol", "volume"}
MASK_WORDS = {"mask", "masks", "seg", "segmentation", "label", "labels"}
LUNG_WORDS = {"lung", "lungs"}  # may name the mask or the whole set
HEADER = {
    "name": "Lungs in CT",
    "labels": {"0": "background", "1": "right lung, or lung of either side", "2": "left lung"},
    "modality": {"0": "CT"},
}


def files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.name.lower().endswith(endings) and p.name[0] != "."]


def words(path: Path) -> list[str]:
    return re.split(r"[-_. ]+", nifti_name(path))


def count(path: Path, some: set[str]) -> int:
    return sum(word.lower() in some for word in words(path))


def case_name(path: Path) -> str:
    """The name without words for image and mask, and without nnU-Net's number of the modality."""
    kept = [word for word in words(path) if word.lower() not in IMAGE_WORDS | MASK_WORDS | LUNG_WORDS]
    return "_".join(kept[:-1] if len(kept) > 1 and kept[-1] == "0000" else kept) or "volume"


def find_masks(paths: list[Path]) -> set[Path]:
    """Those whose names say mask; where none of a case's does, those that say lung more often than the others."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(case_name(path), []).append(path)
    masks: set[Path] = set()
    for group in groups.values():
        least = min(count(path, LUNG_WORDS) for path in group)
        masks |= {path for path in group if count(path, MASK_WORDS)} or {
            path for path in group if count(path, LUNG_WORDS) > least
        }
    return masks


def by_case(paths: Iterable[Path], name_of: Callable[[Path], str] = case_name) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        name = name_of(path)
        if name in found:
            raise InputError(
                path, f"has the same case name, {name}, as {found[name]}", "one file", "rename one of them"
            )
        found[name] = path
    return found


def paired(images: Iterable[Path], masks: Iterable[Path], folder: Path) -> list[Case]:
    """Image and mask of each case; where one is missing, its path is the one where it might be."""
    image, mask = by_case(images), by_case(masks)
    names = sorted(image.keys() | mask.keys())
    return [
        Case(n, {"CT": image.get(n, folder / f"{n}.nii.gz")}, mask.get(n, folder / f"{n}_mask.nii.gz")) for n in names
    ]


def volumes(source: Path) -> list[Case]:
    for folders in PAIRS:
        if all((source / name).is_dir() for name in folders):
            return paired(*(files(source / name, VOLUMES) for name in folders), source / folders[1])
    found = files(source, VOLUMES)
    masks = find_masks(found)
    return paired([path for path in found if path not in masks], sorted(masks), source)


def slices(source: Path) -> list[Case]:
    folders = [source / "2d_images", source / "2d_masks"]
    image, mask = (
        by_case(files(folder, SLICES) if folder.is_dir() else (), lambda path: path.stem) for folder in folders
    )
    names = sorted(image.keys() | mask.keys())
    return [Case(n, {"CT": image.get(n, folders[0] / f"{n}.tif")}, mask.get(n, folders[1] / f"{n}.tif")) for n in names]


def name_faults(whole: list[Case], single: list[Case]) -> list[InputError]:
    """All slices that are named as a volume and would be written over it."""
    volume_of = {case.name.lower(): case.images["CT"] for case in whole}
    return [
        InputError(
            case.images["CT"],
            f"has the output name {case.name} of {volume_of[case.name.lower()]}",
            "another name",
            f"rename the slice and its mask, as to ID_{case.name}_Z_0001.tif",
        )
        for case in single
        if case.name.lower() in volume_of
    ]


def load(path: Path) -> nibabel.Nifti1Image:
    """A volume of three axes, or a slice as a volume of one, from (rows, columns) to (columns, rows, 1)."""
    try:
        if path.name.lower().endswith(SLICES):
            data, affine = tifffile.imread(path).T[..., None], np.diag([-PIXEL_MM, -PIXEL_MM, 1, 1])
        else:
            image = nibabel.load(path)
            data, affine = np.asarray(image.dataobj), image.affine
    except Exception as error:  # nibabel, tifffile and the decompression behind them have their own
        remedy = "download or copy it again"
        raise InputError(path, f"cannot be read ({describe(error)})", "a CT image or its mask", remedy) from error
    if data.ndim != 3:
        found, remedy = f"has {data.ndim} dimensions ({data.shape})", "split it, or join its slices"
        raise InputError(path, found, "one 3-D volume, or one grey slice", remedy)
    if np.issubdtype(data.dtype, np.integer):
        data = data.astype(np.int16 if np.array_equal(data, data.astype(np.int16)) else np.int32)
    else:
        data = data.astype(np.float32)
    return nibabel.Nifti1Image(data, affine)


def slices_last(path: Path, image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """A volume from Kaggle with its slices, which are as wide as high, along the last axis."""
    first, middle, last = image.shape
    if last == 1 or first == middle != last:
        return image
    if first == middle or middle != last:
        found = f"has {first} x {middle} x {last} voxels, which do not show which axis is across the slices"
        remedy = "correct the header, and move the files to images/ and masks/, where the header is used"
        raise InputError(path, found, "two axes of equal length, within the slices", remedy)
    edges = image.header.get_zooms()
    affine = np.diag([-edges[2], -edges[1], edges[0], 1.0])
    return nibabel.Nifti1Image(np.asarray(image.dataobj).transpose(2, 1, 0), affine)


def load_mask(path: Path, image: nibabel.Nifti1Image, with_affine: bool) -> nibabel.Nifti1Image:
    """Labels on the image's grid; the affine of a mask from Kaggle is not to be looked at."""
    mask = load(path)
    own, reference = (Grid(m.shape, m.affine if with_affine else None) for m in (mask, image))
    check_same_grid(path, own, "its image", reference, exact=False, remedy="resample it to the image's grid")
    data = np.asarray(mask.dataobj)
    values = np.setdiff1d(data, [0])
    if len(values) > 1 and not np.array_equal(values, [1, 2]):
        shown = ", ".join(f"{value:g}" for value in values[:5])
        expected = "0 and one other value, or 0, 1 and 2"
        raise InputError(path, f"holds the labels {shown}", expected, "keep only the labels of the lungs")
    labels = data if np.array_equal(values, [1, 2]) or np.array_equal(values, [2]) else data != 0
    return nibabel.Nifti1Image(labels.astype(np.uint8), image.affine)


def split(source: Path, whole: list[Case], single: list[Case], fold: int) -> dict[str, list[str]]:
    """Names of the cases of each list; slices train where there are volumes, without those of a patient held back."""
    names = [case.name for case in whole or single]
    if len(names) >= MIN_CASES:
        sections = split_fold(names, fold, min(NUM_FOLDS, len(names)))
    elif not (whole and single):
        found = f"holds {len(names)} {'volumes' if whole else 'slices'} with masks"
        remedy = "add some" if single else "add some, or slices in 2d_images/ and 2d_masks/"
        raise InputError(source, found, f"at least {MIN_CASES}: one each to train, validate and test", remedy)
    elif not 0 <= fold < len(names):
        expected = " or ".join(map(str, range(len(names))))
        raise InputError("--fold", f"is {fold}", f"{expected}, one for each volume", "pass another one")
    else:
        test = names[fold]
        sections = {"training": [], "validation": [name for name in names if name != test], "test": [test]}
    if not whole:
        return sections
    held_back = {int(n) for kind in ("validation", "test") for n in sections[kind] if n.isdigit()}
    numbers = {case.name: re.match(r"ID_(\d+)", case.name) for case in single}
    usable = [n for n, match in numbers.items() if not match or int(match[1]) not in held_back]
    if not sections["validation"]:
        sections["validation"] = usable[7::8] or usable[-1:]
    sections["training"] += [name for name in usable if name not in sections["validation"]]
    if not sections["training"]:
        found = f"has too few slices to train: {len(usable)} are of other patients than the volumes"
        raise InputError(source, found, "more slices or volumes", "add some")
    return sections


def make_plan(source: Path, fold: int, output: Path) -> Plan:
    if not source.is_dir():
        raise InputError(source, "is not a folder", "the folder of the data", "correct --source")
    kaggle = any((source / name).is_dir() for name in ("2d_images", "3d_images"))
    folder = source / "3d_images" if kaggle else source
    whole, single = volumes(folder) if folder.is_dir() else [], slices(source) if kaggle else []
    if not whole + single:
        expected = "2d_images/ and 2d_masks/, 3d_images/, images/ and masks/, or NIfTI volumes next to their masks"
        raise InputError(source, "holds no CT data", expected, "pass the folder that directly holds them")
    sections = split(source, whole, single, fold)
    used = {name for section in sections.values() for name in section}
    cases = [case for case in whole + single if case.name in used]
    image_of = {case.label: case.images["CT"] for case in cases}

    def turned(file: Path, image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
        return slices_last(file, image) if kaggle else image

    def converted_mask(file: Path) -> nibabel.Nifti1Image:
        path = image_of[file]
        image = load(path)
        turned(path, image)  # an error here is reported for the image
        return turned(file, load_mask(file, image, with_affine=not kaggle))

    errors = name_faults(whole, single) + file_faults(cases, output)
    whole_files = (m for m, image in image_of.items() if all(p.is_file() and p.stat().st_size for p in (m, image)))
    for mask in whole_files:
        try:
            converted_mask(mask)
        except InputError as error:
            errors.append(error)
    convert_image, convert_mask = (
        lambda file, path, read=read: nibabel.save(read(file), path)
        for read in (lambda file: turned(file, load(file)), converted_mask)
    )
    return Plan(cases, sections, HEADER, errors, convert_image, convert_mask)


if __name__ == "__main__":
    sys.exit(run_program(__doc__, f"0 to {NUM_FOLDS - 1}, fewer if there are fewer volumes", make_plan))
