"""Phantom of the chest in computed tomography: lungs of known volume, and air that is not lung."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from .dataset import Phantom, PhantomKind

__all__ = ["LUNG_CT", "thorax"]

_MIN_SIZE = 32
_FIELD_MM = np.array([384.0, 384.0, 312.0])
_BOTTOM_MM = -150.0
_SLICES_PER_SIZE = 0.65
_UP = np.array([0.0, -0.28, 0.96])  # at right angles to the cut at the diaphragm
_SIDES = {"right": 1, "left": -1}  # x grows to the patient's right
_LUNG_HU = (-965, -650)  # without vessels, from emphysema to a lung breathed out or with fibrosis
_TABLE_GAP_MM = (-3, 15)  # below the back, which sinks into a mat
_MIN_SIZE_OF_CHILDREN = 64  # with larger voxels little is left of their lungs
_MIN_STATURE = 1 / 3  # an infant's chest, as a part of a grown-up's, along each axis


class _Lung(NamedTuple):
    """Ellipsoid with centre and half axes in mm, stretched from a ball of radius 1 that is cut flat.

    The cut is ``base`` away from the ball's centre and slants, so that the lung reaches lower in the back.
    """

    centre: np.ndarray
    half_axes: np.ndarray
    base: float

    def contains(self, xyz: np.ndarray) -> np.ndarray:
        offset = (xyz - self.centre) / self.half_axes
        return (np.square(offset).sum(axis=-1) <= 1) & (offset @ _UP >= -self.base)

    def volume_ml(self) -> float:
        """abc times what is left of the ball, pi times the integral of 1 - t^2 from -base to 1."""
        return float(np.pi * self.half_axes.prod() * (2 / 3 + self.base - self.base**3 / 3) / 1000)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Position of each voxel in mm, and the affine; x runs to the left and y to the back, as scanners have it."""
    shape = np.array([size, size, round(_SLICES_PER_SIZE * size)])
    affine = np.diag([*(np.array([-1, -1, 1]) * _FIELD_MM / shape), 1])
    affine[:3, 3] = -affine[:3, :3] @ (shape - 1) / 2 + [0, 0, _BOTTOM_MM + _FIELD_MM[2] / 2]
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3], affine


def _ball(xyz: np.ndarray, centre: tuple[float, float, float], half_axes: tuple[float, float, float]) -> np.ndarray:
    return np.square((xyz - centre) / half_axes).sum(axis=-1) <= 1


def _tube(xyz: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    along = np.clip((xyz - start) @ (end - start) / np.square(end - start).sum(), 0, 1)
    return np.linalg.norm(xyz - start - along[..., None] * (end - start), axis=-1) <= radius


def _body(rng: np.random.Generator, xyz: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Table, fat, muscle, ribs, spine, breastbone and heart in air, in Hounsfield units."""
    x, y, z = np.moveaxis(xyz, -1, 0)
    neck = 1 - 0.35 * np.clip((z - 110) / 50, 0, 1)
    level = np.hypot(x / (half[0] * neck), y / half[1])
    hu = np.full(x.shape, -1000.0)
    depth = -half[1] - rng.uniform(*_TABLE_GAP_MM) - y  # of the table, a hull of carbon fibre with foam in it
    hu[(depth > 0) & (depth < 30) & (np.abs(x) < 190)] = 0
    hu[(depth > 6) & (depth < 24) & (np.abs(x) < 184)] = rng.uniform(-960, -900)
    hu[level <= 1] = -90
    hu[level <= 0.94] = 45
    hu[(level > 0.84) & (level <= 0.9) & ((z + 0.3 * y) % 26 < 9)] = 450
    hu[np.hypot(x, y + 0.68 * half[1]) <= 19] = 250
    hu[(np.abs(x) < 17) & (level > 0.78) & (level <= 0.9) & (y > 0) & (z > -40)] = 250
    hu[_ball(xyz, (-8, 22, -35), (22, 45, 50))] = 50
    return hu


def _airways(xyz: np.ndarray, radius: float) -> np.ndarray:
    """The windpipe from above the field to its fork, and a main bronchus to each side that ends short of the lung."""
    fork = np.array([0.0, -15, 25])
    ways = [((0, 0, 300), radius), ((22, 0, -18), 5), ((-22, 0, -18), 5)]
    return np.logical_or.reduce([_tube(xyz, fork, fork + np.array(way), width) for way, width in ways])


def thorax(rng: np.random.Generator, size: int, stature: float | None = None) -> Phantom:
    """Make the chest of one patient on the scanner's table.

    The lungs are ellipsoids cut at a slant at the diaphragm, with vessels in them and in one of them a nodule, which
    count as lung. Windpipe, main bronchi, gas in the stomach, foam in the table and the air around the patient are as
    dark and are none.

    Args:
        rng: source of all randomness.
        size: voxels along x and y, which span 384 mm; z has 0.65 times as many slices, which span 312 mm.
        stature: extent of the chest along each axis, with all that is in it and the table, as a part of a grown-up's.
            None has every other patient grown up and draws the others' from a third up, the size of an infant's chest;
            where ``size`` is below 64 all are grown up.

    Returns:
        int16 image in Hounsfield units; uint8 label, 1 right and 2 left lung; the affine; and as truth the ``right_ml``
        and ``left_ml`` that the lungs measure, the ``nodule_ml`` in them and the ``nodule_mm``, its centre.

    Raises:
        ValueError: if ``size`` is below 32.

    Example:
        >>> phantom = thorax(np.random.default_rng(0), 96, stature=1)
        >>> voxel_ml = abs(np.linalg.det(phantom.affine)) / 1000
        >>> phantom.image.shape, bool(abs((phantom.label == 1).sum() * voxel_ml / phantom.truth["right_ml"] - 1) < 0.01)
        ((96, 96, 62), True)
    """
    if size < _MIN_SIZE:
        raise ValueError(
            f"size is {size} voxels; expected at least {_MIN_SIZE}, so that each label has a few whole voxels"
        )
    if stature is None:
        stature = 1.0 if size < _MIN_SIZE_OF_CHILDREN or rng.random() < 0.5 else float(rng.uniform(_MIN_STATURE, 1))
    xyz, affine = _grid(size)
    xyz /= stature  # all that follows is in the coordinates of a grown-up
    half = np.array([rng.uniform(165, 188), rng.uniform(105, 125)])
    hu = _body(rng, xyz, half)
    label = np.zeros(hu.shape, np.uint8)
    lungs = {}
    for value, (name, side) in enumerate(_SIDES.items(), 1):
        half_axes = np.array([0.32 * half[0], 0.7 * half[1], 125]) * rng.uniform(0.88, 1.02, 3)
        lung = lungs[name] = _Lung(np.array([side * 0.5 * half[0], 0, 0]), half_axes, rng.uniform(0.45, 0.7))
        label[lung.contains(xyz)] = value
    inside = label > 0
    hu[inside] = rng.uniform(*_LUNG_HU) - 0.4 * xyz[inside, 1]  # the back is denser, of a patient who lies on it
    vessels = gaussian_filter(rng.standard_normal(hu.shape), 1)
    hu[inside & (vessels > 2.5 * vessels.std())] = -100
    host, radius = lungs[str(rng.choice(list(lungs)))], rng.uniform(6, 14)
    nodule = host.centre + host.half_axes * rng.uniform(-0.3, 0.3, 3)
    hu[_ball(xyz, tuple(nodule), (radius,) * 3)] = 30
    hu[_airways(xyz, rng.uniform(7, 10)) & ~inside] = -990
    below = lungs["left"].centre - [0, -25, lungs["left"].base * lungs["left"].half_axes[2] + rng.uniform(28, 38)]
    hu[_ball(xyz, tuple(below), (35, 25, 18))] = -980
    image = gaussian_filter(hu, 0.5) + rng.uniform(10, 40) * rng.standard_normal(hu.shape)
    truth = {f"{name}_ml": lung.volume_ml() * stature**3 for name, lung in lungs.items()}
    truth |= {"nodule_ml": 4 / 3 * np.pi * (radius * stature) ** 3 / 1000, "nodule_mm": (nodule * stature).tolist()}
    return Phantom(np.clip(np.rint(image), -1024, 3071).astype(np.int16), label, truth, affine)


LUNG_CT = PhantomKind(
    generate=thorax,
    description="Phantom of a chest in computed tomography, in Hounsfield units",
    modality=("CT",),
    labels=("background", "right lung", "left lung"),
    ending=".nii.gz",
    size=128,
)
