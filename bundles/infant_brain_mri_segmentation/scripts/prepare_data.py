"""Convert the volumes of the iSeg challenges to this bundle's layout: NIfTI in images/ and labels/, dataset.json.

    python scripts/prepare_data.py --source iSeg-2019-Training --output data --fold 0

The source has pairs of Analyze files for each subject: subject-1-T1.hdr and .img, and the same for -T2 and -label. In
the labels 0, 10, 150 and 250 (background, cerebrospinal fluid, grey and white matter) become 0 to 3. The subjects are
sorted by number: number --fold is for testing, the last of the others is for validation, the rest is for training. If
no subject has a label, as in the challenge's test data, all are in the list "test", without labels.

Analyze files have voxel sizes but no orientation: the orientation written is SPM's convention, x from right to left.
All faults of the files are reported at once, before anything is written; dataset.json is written last.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nibabel
import numpy as np

from bundlekit.errors import InputError, describe
from bundlekit.prepare.folds import split_fold
from bundlekit.prepare.volumes import Case, Plan, file_faults, run_program

NAME = re.compile(r"subject-(\d+)-(T1|T2|label)\.hdr")
MODALITIES = ("T1", "T2")
VALUES = (0, 10, 150, 250)
HEADER = {
    "name": "iSeg",
    "labels": {"0": "background", "1": "cerebrospinal fluid", "2": "grey matter", "3": "white matter"},
    "modality": {str(i): modality for i, modality in enumerate(MODALITIES)},
}


def find(source: Path) -> list[Case]:
    """The subjects; where some have labels, a label that is missing is named as it should be."""
    matches = [match for path in source.glob("*.hdr") if (match := NAME.fullmatch(path.name))]
    numbers = sorted({int(match[1]) for match in matches})
    if not numbers:
        remedy = "pass the folder that directly holds them"
        raise InputError(source, "holds no subject", "files such as subject-1-T1.hdr and .img", remedy)
    labelled = any(match[2] == "label" for match in matches)
    cases = []
    for number in numbers:
        files = {kind: source / f"subject-{number}-{kind}.hdr" for kind in (*MODALITIES, "label")}
        label = files.pop("label")
        cases.append(Case(f"subject-{number:02d}", files, label if labelled else None))
    return cases


def load(path: Path) -> nibabel.spatialimages.SpatialImage:
    """A volume of three axes."""
    try:
        image = nibabel.load(path)
        data = np.asarray(image.dataobj)
    except Exception as error:  # nibabel and the decompression behind it have their own
        remedy = "copy the .hdr and the .img again"
        raise InputError(path, f"cannot be read ({describe(error)})", "an Analyze volume", remedy) from error
    shape = data.shape[:3]
    if data.size != np.prod(shape):
        raise InputError(path, f"holds several volumes ({data.shape})", "one", "split it")
    return nibabel.Nifti1Image(data.reshape(shape), image.affine)


def load_label(path: Path) -> nibabel.Nifti1Image:
    """Classes 0 to 3."""
    image = load(path)
    data = np.asarray(image.dataobj)
    unknown = np.setdiff1d(data, VALUES)
    if unknown.size:
        shown = ", ".join(f"{value:g}" for value in unknown[:4])
        expected = ", ".join(map(str, VALUES))
        raise InputError(path, f"holds other labels: {shown}", expected, "take the label from the official download")
    return nibabel.Nifti1Image(np.searchsorted(VALUES, data).astype(np.uint8), image.affine)


def faults(cases: list[Case], output: Path) -> list[InputError]:
    """All that is wrong with the files, headers and data."""
    errors = file_faults(cases, output)
    data = [case._replace(images={k: path.with_suffix(".img") for k, path in case.images.items()}) for case in cases]
    errors += file_faults([case._replace(label=case.label and case.label.with_suffix(".img")) for case in data], output)
    if errors:
        return errors
    for case in cases:
        for path in [*case.images.values(), case.label]:
            try:
                _ = path and (load_label if path == case.label else load)(path)
            except InputError as error:
                errors.append(error)
    return errors


def make_plan(source: Path, fold: int, output: Path) -> Plan:
    cases = find(source)
    names = [case.name for case in cases]
    sections = split_fold(names, fold, len(names)) if cases[0].label else {"test": names}
    convert_image, convert_label = (
        lambda file, path, read=read: nibabel.save(read(file), path) for read in (load, load_label)
    )
    return Plan(cases, sections, HEADER, faults(cases, output), convert_image, convert_label)


if __name__ == "__main__":
    sys.exit(run_program(__doc__, "index of the test subject, from 0", make_plan))
