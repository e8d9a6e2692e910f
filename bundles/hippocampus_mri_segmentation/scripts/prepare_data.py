"""Convert the hippocampus volumes of the Medical Segmentation Decathlon to this bundle's layout.

    python scripts/prepare_data.py --source Task04_Hippocampus --output data --fold 0

The source is the unpacked official download (imagesTr/, labelsTr/), or a folder with images/ and labels/. Volumes are
copied unchanged to images/ and labels/, and dataset.json lists them.

Volumes 2k - 1 and 2k are often the two sides of one person, so they are kept together: the pairs are sorted by name;
every fifth one, starting with number --fold, is for testing; every eighth of the others is for validation; the rest is
for training. With --split name each volume counts for itself, which puts the other side of a test volume into training.

Files whose names begin with a dot are ignored: the official archive has one for each volume, made by its packer. All
faults of the files are reported at once, before anything is written; dataset.json is written last.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable
from pathlib import Path

from bundlekit.errors import InputError
from bundlekit.prepare.folds import split_fold
from bundlekit.prepare.volumes import Case, Plan, file_faults, nifti_name, run_program

NUM_FOLDS = 5
ENDINGS = (".nii.gz", ".nii")
HEADER = {
    "name": "MSD Task04 hippocampus",
    "labels": {"0": "background", "1": "anterior", "2": "posterior"},
    "modality": {"0": "MRI"},
}


def volumes(folder: Path) -> dict[str, Path]:
    """The volumes of a folder by case, without hidden files."""
    paths = [path for path in sorted(folder.iterdir()) if path.name.endswith(ENDINGS) and path.name[0] != "."]
    return {nifti_name(path): path for path in paths}


def find(source: Path) -> list[Case]:
    """Image and label of each case; where one is missing, its path is the one where it should be."""
    for folders in ((source / "imagesTr", source / "labelsTr"), (source / "images", source / "labels")):
        if all(folder.is_dir() for folder in folders):
            images, labels = map(volumes, folders)
            names = sorted(images.keys() | labels.keys())
            default = [{name: folder / f"{name}.nii.gz" for name in names} for folder in folders]
            images, labels = default[0] | images, default[1] | labels
            return [Case(name, {"MRI": images[name]}, labels[name]) for name in names]
    expected = "imagesTr/ and labelsTr/, or images/ and labels/"
    raise InputError(source, "does not hold the folders of the data", expected, "pass the folder that holds them")


def pair_of(case: str) -> Hashable:
    """What volumes 2k - 1 and 2k have in common; a case without a number is a group of its own."""
    match = re.fullmatch(r"(.*?)(\d+)", case)
    return (match[1], (int(match[2]) + 1) // 2) if match else case


def make_plan(source: Path, fold: int, output: Path, split: str) -> Plan:
    cases = find(source)
    names = [case.name for case in cases]
    groups = {"pair": pair_of, "name": str}
    sections = split_fold(names, fold, NUM_FOLDS, groups[split])
    return Plan(cases, sections, HEADER, file_faults(cases, output))


if __name__ == "__main__":
    splits = {"split": (("pair", "name"), "what is kept together")}
    sys.exit(run_program(__doc__, f"0 to {NUM_FOLDS - 1}", make_plan, splits))
