"""Convert the volumes of a BraTS challenge to this bundle's layout: images/, labels/, dataset.json.

Two kinds of source are supported:

    python scripts/prepare_data.py --source MICCAI_BraTS2020_TrainingData --output data --fold 0
    python scripts/prepare_data.py --source brats2015 --output data   # images/ (Flair, T1c, brain mask), labels/

The first is the official download of 2017 to 2020: a folder per patient with <patient>_flair, _t1, _t1ce, _t2 and _seg,
.nii or .nii.gz, at any depth (until 2019 in HGG/ and LGG/). The patients are sorted by name: every fifth one, starting
with number --fold, is for testing; every eighth of the others is for validation; the rest is for training. If no
patient has a _seg, as in the validation data, all are in the list "test", without labels. The label of one patient of
2020 with another name (W39_1998.09.19_Segm) is found, too.

The second has few patients: by name, the second half is for training; the first half is for validation and is also the
list "test". The intensities are normalised, so that air is no longer 0: it is set to 0 again with <patient>_brainmask.

Volumes of the first kind are copied unchanged. All faults of the files are reported at once, before anything is
written; dataset.json is written last.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np

from bundlekit.errors import InputError
from bundlekit.prepare.folds import split_fold
from bundlekit.prepare.volumes import Case, Plan, file_faults, nifti_name, run_program

NUM_FOLDS = 5
MODALITIES = ("flair", "t1", "t1ce", "t2")
FEW = {"flair": "_Flair_subtrMeanDivStd", "t1ce": "_T1c_subtrMeanDivStd"}
MASK = "_brainmask"
HEADER = {
    "name": "BraTS",
    "labels": {
        "0": "background",
        "1": "necrotic core",
        "2": "oedema",
        "3": "non-enhancing core",
        "4": "enhancing tumour",
    },
}


def volume(folder: Path, name: str) -> Path:
    """The file with that name and either ending; the compressed one where there is none."""
    plain = folder / f"{name}.nii"
    return plain if plain.is_file() else folder / f"{name}.nii.gz"


def label(folder: Path) -> Path | None:
    """The label of a patient, under its usual or its one unusual name."""
    names = [nifti_name(path) for path in folder.glob("*.nii*") if path.name[0] != "."]
    found = [name for name in names if name.endswith(("_seg", "_Segm"))]
    return volume(folder, found[0]) if found else None


def find_patients(source: Path) -> list[Case]:
    """The patients of the official layout, by name."""
    files = (path for path in source.rglob("*_flair.nii*") if path.name[0] != ".")
    # images/ is what this program wrote, if that is within the source
    found = {path.parent for path in files if path.parent != source and path.parent.name != "images"}
    folders = sorted(found, key=lambda folder: folder.name)
    labels = [label(folder) for folder in folders]
    cases = []
    for folder, segmentation in zip(folders, labels, strict=True):
        images = {modality: volume(folder, f"{folder.name}_{modality}") for modality in MODALITIES}
        if segmentation is None and any(labels):  # then it is missing, and named as it should be
            segmentation = volume(folder, f"{folder.name}_seg")
        cases.append(Case(folder.name, images, segmentation))
    return cases


def find_few(source: Path) -> list[Case]:
    """The patients of a folder with images/ of two modalities and labels/."""
    names = sorted(nifti_name(path) for path in (source / "labels").glob("*.nii*") if path.name[0] != ".")
    return [
        Case(
            name,
            {modality: volume(source / "images", name + ending) for modality, ending in FEW.items()},
            volume(source / "labels", name),
        )
        for name in names
    ]


def mask_of(image: Path) -> Path | None:
    """Where the brain mask of an image of few patients is."""
    patient, found = re.subn(f"({'|'.join(FEW.values())})$", "", nifti_name(image))
    return volume(image.parent, patient + MASK) if found else None


def without_air(image: Path, target: Path) -> None:
    """Copy an image; where it has a brain mask, with 0 outside of the brain."""
    mask = mask_of(image)
    if mask is None:
        shutil.copyfile(image, target)
        return
    found = nibabel.load(image)
    brain = np.asarray(nibabel.load(mask).dataobj) > 0
    if brain.shape != found.shape:
        raise InputError(
            mask, f"has {brain.shape} voxels", f"{found.shape} as {image.name}", "pair the volume with its own mask"
        )
    data = np.where(brain, np.asarray(found.dataobj), 0).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(data, found.affine), target)


def find(source: Path, fold: int) -> tuple[list[Case], dict[str, list[str]]]:
    """The patients, and the lists that they belong to."""
    if cases := find_patients(source):
        names = [case.name for case in cases]
        labelled = any(case.label for case in cases)
        return cases, split_fold(names, fold, NUM_FOLDS) if labelled else {"test": names}
    if len(cases := find_few(source)) > 1:
        names = [case.name for case in cases]
        first, second = names[: len(names) // 2], names[len(names) // 2 :]
        return cases, {"training": second, "validation": first, "test": first}
    expected = "folders such as BraTS20_Training_001/ with BraTS20_Training_001_flair.nii.gz, or images/ and labels/"
    raise InputError(source, "holds no patient", expected, "pass the folder that holds them")


def make_plan(source: Path, fold: int, output: Path) -> Plan:
    cases, sections = find(source, fold)
    masks = {mask for case in cases for path in case.images.values() if (mask := mask_of(path))}
    errors = file_faults([*cases, *(Case(mask.name, {MASK: mask}, None) for mask in sorted(masks))], output)
    modality = {str(i): name for i, name in enumerate(cases[0].images)}
    return Plan(cases, sections, {**HEADER, "modality": modality}, errors, without_air)


if __name__ == "__main__":
    sys.exit(run_program(__doc__, f"0 to {NUM_FOLDS - 1}", make_plan))
