"""Phantoms: synthetic data sets with known answers, in the layout that every bundle reads."""

from __future__ import annotations

import os
from pathlib import Path

from .dataset import Phantom, PhantomKind, write_dataset
from .em import MEMBRANE_EM
from .fundus import FUNDUS
from .glands import GLAND_HISTOLOGY
from .nuclei import NUCLEI_MICROSCOPY
from .thorax import LUNG_CT
from .volumes import BRAIN_TUMOR, HIPPOCAMPUS, INFANT_BRAIN

__all__ = ["KINDS", "Phantom", "PhantomKind", "make_dataset"]

KINDS: dict[str, PhantomKind] = {
    "brain_tumor_mri_segmentation": BRAIN_TUMOR,
    "gland_histology_segmentation": GLAND_HISTOLOGY,
    "hippocampus_mri_segmentation": HIPPOCAMPUS,
    "infant_brain_mri_segmentation": INFANT_BRAIN,
    "lung_ct_segmentation": LUNG_CT,
    "membrane_em_segmentation": MEMBRANE_EM,
    "nuclei_microscopy_segmentation": NUCLEI_MICROSCOPY,
    "optic_disc_fundus_segmentation": FUNDUS,
}
"""The kind of phantom of each bundle, by the bundle's name."""


def make_dataset(
    name: str,
    directory: str | os.PathLike[str],
    training: int = 8,
    validation: int = 2,
    test: int = 4,
    size: int | None = None,
    seed: int = 0,
) -> None:
    """Write a phantom data set for one bundle: the same arguments give the same bytes.

    ``directory`` gets ``images/``, ``labels/``, ``dataset.json`` (in the form of the Medical Segmentation Decathlon,
    paths relative to ``directory``, empty sections left out) and ``truth.json`` with the known answers of every image.
    Files are numbered through training, validation and test; number ``i`` does not depend on how many others there are.

    Args:
        name: the bundle's name, a key of ``KINDS``.
        directory: folder to write to, created if need be; files of others in it are never touched.
        training: number of training images.
        validation: number of validation images.
        test: number of test images.
        size: edge length of the images in px, or in voxels along y; None takes the size of the kind.
        seed: non-negative seed of the random generator.

    Raises:
        ValueError: if the name is not in ``KINDS``, a count is negative, all are 0, or the size is too small.
        InputError: if the folder holds files that this call would not write.

    Example:
        >>> import json, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_dataset("membrane_em_segmentation", folder, training=1, validation=0, test=1, size=64)
        ...     json.loads((Path(folder) / "dataset.json").read_text())["test"]
        [{'image': 'images/001.png', 'label': 'labels/001.png'}]
    """
    if name not in KINDS:
        raise ValueError(f"there is no phantom {name!r}; expected one of {', '.join(sorted(KINDS))}")
    counts = {"training": training, "validation": validation, "test": test}
    write_dataset(name, KINDS[name], Path(directory), counts, KINDS[name].size if size is None else size, seed)
