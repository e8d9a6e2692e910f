"""Phantoms of the brain in magnetic resonance imaging: ellipsoids with volumes known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter

from .dataset import Phantom, PhantomKind

__all__ = ["BRAIN_TUMOR", "HIPPOCAMPUS", "INFANT_BRAIN", "brain_tumor", "hippocampus", "infant_brain"]

_MIN_SIZE = 32
_LPS = ((-1.0, 0, 0, 0), (0, -1.0, 0, 239), (0, 0, 1.0, 0), (0, 0, 0, 1.0))  # as BraTS's volumes


def _check_size(size: int) -> None:
    if size < _MIN_SIZE:
        raise ValueError(
            f"size is {size} voxels; expected at least {_MIN_SIZE}, so that each label has a few whole voxels"
        )


def _shape(size: int, *shares: float) -> tuple[int, ...]:
    return tuple(round(share * size) for share in shares)


def _rotation(rng: np.random.Generator, max_rad: float) -> np.ndarray:
    """Turns by random angles about z, y and x, one after the other."""
    matrix = np.eye(3)
    for i, angle in enumerate(rng.uniform(-max_rad, max_rad, 3)):
        turn = np.eye(3)
        j, k = (i + 1) % 3, (i + 2) % 3
        turn[[j, j, k, k], [j, k, j, k]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = turn @ matrix
    return matrix


def _ellipsoid(
    shape: Sequence[int], centre: np.ndarray, half_axes: np.ndarray, rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Level of each voxel, 0 in the centre and 1 on the surface, and its offset from the centre in turned axes."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    offset = (grid - centre) @ rotation
    return np.linalg.norm(offset / half_axes, axis=-1), offset


def _volume(half_axes: np.ndarray) -> float:
    return float(4 / 3 * np.pi * np.prod(half_axes))


def _scan(rng: np.random.Generator, tissue: np.ndarray, noise: float) -> np.ndarray:
    """Blur, a smooth field of sensitivity, and noise in shares of 100."""
    field = gaussian_filter(rng.standard_normal(tissue.shape), 0.2 * min(tissue.shape))
    blurred = gaussian_filter(tissue.astype(np.float32), 0.6)
    return blurred * (1 + 0.1 * field / np.abs(field).max()) + 100 * noise * rng.standard_normal(tissue.shape)


def hippocampus(rng: np.random.Generator, size: int) -> Phantom:
    """Make one cropped volume with a hippocampus: an ellipsoid along y, cut at right angles in front of its middle.

    A ventricle, darker than anything else, and a bright vessel are next to it. The scale of intensities varies from
    volume to volume over four powers of ten, as in the real ones.

    Args:
        rng: source of all randomness.
        size: extent along y in voxels of 1 mm; x and z have 0.72 of it.

    Returns:
        float32 image; uint8 label, 1 anterior and 2 posterior; and as truth the ``volume_mm3`` of the whole ellipsoid
        and its ``centre``, in voxels.

    Raises:
        ValueError: if ``size`` is below 32.

    Example:
        >>> phantom = hippocampus(np.random.default_rng(0), 50)
        >>> phantom.image.shape, bool(abs((phantom.label > 0).sum() / phantom.truth["volume_mm3"] - 1) < 0.02)
        ((36, 50, 36), True)
    """
    _check_size(size)
    shape = _shape(size, 0.72, 1, 0.72)
    rotation, centre = _rotation(rng, 0.15), np.array(shape) / 2 + rng.uniform(-0.03, 0.03, 3) * size
    half_axes = size * np.array([0.15, 0.36, 0.13]) * rng.uniform(0.85, 1.1, 3)
    level, offset = _ellipsoid(shape, centre, half_axes, rotation)
    label = np.where(level > 1, 0, np.where(offset[..., 1] > 0.2 * half_axes[1], 1, 2)).astype(np.uint8)
    tissue = np.where(level > 1, 100.0, 130.0)
    for shift, share, value in (
        ((0.28, 0, 0.1), (0.05, 0.3, 0.08), 30.0),
        ((-0.3, 0.1, -0.2), (0.03, 0.4, 0.03), 200.0),
    ):
        other, _ = _ellipsoid(shape, centre + np.multiply(shift, size), np.multiply(share, size), rotation)
        tissue[(other <= 1) & (level > 1)] = value
    image = 10 ** rng.uniform(0, 4) * np.maximum(_scan(rng, tissue, 0.06), 0)
    truth = {"volume_mm3": _volume(half_axes), "centre": centre.tolist()}
    return Phantom(image.astype(np.float32), label, truth)


def infant_brain(rng: np.random.Generator, size: int) -> Phantom:
    """Make one infant's brain: white matter in grey matter in fluid, three ellipsoids with one centre.

    As at six months, grey and white matter are nearly alike in T1 and T2; fluid is dark in T1 and bright in T2. Outside
    all is 0.

    Args:
        rng: source of all randomness.
        size: extent along y in voxels of 1 mm; x and z have 0.85 of it.

    Returns:
        float32 image with the channels T1 and T2; uint8 label, 1 cerebrospinal fluid, 2 grey and 3 white matter; and as
        truth the ``volumes_mm3`` of the three.

    Raises:
        ValueError: if ``size`` is below 32.

    Example:
        >>> phantom = infant_brain(np.random.default_rng(0), 64)
        >>> found = np.bincount(phantom.label.ravel())[1:] / phantom.truth["volumes_mm3"]
        >>> phantom.image.shape, bool((abs(found - 1) < 0.02).all())
        ((54, 64, 54, 2), True)
    """
    _check_size(size)
    shape = _shape(size, 0.85, 1, 0.85)
    rotation, centre = _rotation(rng, 0.2), np.array(shape) / 2 + rng.uniform(-0.02, 0.02, 3) * size
    outer = size * np.array([0.36, 0.43, 0.36]) * rng.uniform(0.92, 1.05, 3)
    shares = np.array([1, rng.uniform(0.84, 0.9), rng.uniform(0.6, 0.7)])
    level, _ = _ellipsoid(shape, centre, outer, rotation)
    label = sum((level <= share).astype(np.uint8) for share in shares)
    inside = label > 0
    channels = [np.array([0.0, 60, 120, 140]), np.array([0.0, 200, 120, 105])]
    scans = [np.maximum(_scan(rng, tissue[label], 0.05), 1) * inside for tissue in channels]
    volumes = [_volume(share * outer) for share in (*shares, 0)]
    truth = {"volumes_mm3": [a - b for a, b in pairwise(volumes)]}
    return Phantom(np.stack(scans, axis=-1).astype(np.float32), label, truth)


def brain_tumor(rng: np.random.Generator, size: int) -> Phantom:
    """Make one brain with a glioma: a necrotic core in an enhancing rim in oedema, three ellipsoids with one centre.

    Oedema is bright in FLAIR and T2, the rim in FLAIR and in T1 with contrast agent, the core dark in T1 and bright in
    T2; in each modality two of the three are nearly alike. Outside the brain all is 0.

    Args:
        rng: source of all randomness.
        size: extent along y in voxels of 1 mm; x and z have 0.9 and 0.75 of it.

    Returns:
        float32 image with the channels FLAIR, T1, T1 with contrast agent, and T2; uint8 label, 1 core, 2 oedema and 4
        enhancing rim; and as truth the ``volumes_mm3`` of whole tumour, tumour core (rim and all in it) and rim.

    Raises:
        ValueError: if ``size`` is below 32.

    Example:
        >>> phantom = brain_tumor(np.random.default_rng(0), 96)
        >>> whole, core, rim = phantom.truth["volumes_mm3"]
        >>> phantom.image.shape, bool(abs((phantom.label == 4).sum() / rim - 1) < 0.03)
        ((86, 96, 72, 4), True)
    """
    _check_size(size)
    shape = _shape(size, 0.9, 1, 0.75)
    rotation, middle = _rotation(rng, 0.5), np.array(shape) / 2
    brain, _ = _ellipsoid(shape, middle, size * np.array([0.4, 0.46, 0.34]), np.eye(3))
    outer = size * rng.uniform(0.16, 0.21, 3)
    centre = middle + size * rng.uniform(-1, 1, 3) * (0.16, 0.2, 0.1)
    level, _ = _ellipsoid(shape, centre, outer, rotation)
    core, necrosis = rng.uniform(0.6, 0.75), rng.uniform(0.35, 0.45)
    label = np.where(level <= necrosis, 1, np.where(level <= core, 4, np.where(level <= 1, 2, 0))).astype(np.uint8)
    # by label: brain, core, oedema, a label that BraTS leaves out, rim
    channels = ([100, 105, 190, 0, 180], [100, 60, 90, 0, 95], [100, 85, 90, 0, 200], [100, 170, 180, 0, 110])
    scans = [np.maximum(_scan(rng, np.array(tissue, float)[label], 0.06), 1) * (brain <= 1) for tissue in channels]
    volumes = [_volume(share * outer) for share in (1, core, necrosis)]
    truth = {"volumes_mm3": [volumes[0], volumes[1], volumes[1] - volumes[2]]}
    return Phantom(np.stack(scans, axis=-1).astype(np.float32), label, truth)


HIPPOCAMPUS = PhantomKind(
    generate=hippocampus,
    description="Phantom of the hippocampus in T1-weighted volumes, cropped about it",
    modality=("MRI",),
    labels=("background", "anterior", "posterior"),
    ending=".nii.gz",
    size=50,
)

INFANT_BRAIN = PhantomKind(
    generate=infant_brain,
    description="Phantom of an infant's brain at six months, a file for each modality",
    modality=("T1", "T2"),
    labels=("background", "cerebrospinal fluid", "grey matter", "white matter"),
    ending=".nii.gz",
    size=80,
)

BRAIN_TUMOR = PhantomKind(
    generate=brain_tumor,
    description="Phantom of a glioma, a file for each modality; 3 occurs only in the labels of BraTS up to 2016",
    modality=("flair", "t1", "t1ce", "t2"),
    labels=("background", "necrotic core", "oedema", "non-enhancing core", "enhancing tumour"),
    ending=".nii.gz",
    size=80,
    affine=_LPS,
)
