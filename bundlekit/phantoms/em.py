"""Phantom of nerve tissue in electron microscopy: cells between dark membranes, with organelles."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.measure import label
from skimage.segmentation import find_boundaries

from .dataset import Phantom, PhantomKind

__all__ = ["MEMBRANE_EM", "membrane_em"]

_MIN_SIZE_PX = 64
_MIN_REGION_PX = 100
_MIN_CELL_PX = 16
_MEMBRANE_WIDTH_PX = (2.0, 5.0)


def _noise(rng: np.random.Generator, size: int, sigma_px: float) -> np.ndarray:
    """Smooth random field of mean 0 and standard deviation 1."""
    field = gaussian_filter(rng.standard_normal((size, size)), sigma_px)
    return (field - field.mean()) / field.std()


def _ellipses(rng: np.random.Generator, size: int) -> np.ndarray:
    """Packing of the image and its surroundings, largest first: row, column, radius, elongation, angle of each."""
    margin = 60
    side = size + 2 * margin
    radii = np.sort(np.clip(rng.lognormal(2.6, 0.7, side * side // 420), 7, 55))[::-1]
    grain = rng.uniform(0, np.pi)  # the direction that most neurites run in
    placed: np.ndarray = np.empty((0, 5))
    for radius in radii:
        shape = (radius, 1 + rng.gamma(2, 0.45), rng.normal(grain, 0.4))
        for centre in rng.uniform(-margin, size + margin, (20, 2)):
            gaps = np.hypot(*(placed[:, :2] - centre).T) - placed[:, 2] - radius
            if np.all(gaps > -0.05 * radius):
                placed = np.vstack([placed, [*centre, *shape]])
                break
    return placed


def _largest_pieces(regions: np.ndarray, min_area_px: int) -> tuple[np.ndarray, int]:
    """Mask of the largest 4-connected piece of each region but 0, where it is large enough, and how many these are."""
    pieces = label(regions, background=0, connectivity=1)
    areas = np.bincount(pieces.ravel())
    areas[0] = 0
    owner = np.zeros(len(areas), int)
    owner[pieces] = regions
    largest = np.zeros(regions.max() + 1, int)
    np.maximum.at(largest, owner, areas)
    _, first = np.unique(
        np.where(areas == largest[owner], owner, 0), return_index=True
    )  # one only of equally large pieces
    chosen = np.zeros(len(areas), bool)
    chosen[first] = areas[first] >= min_area_px
    return chosen[pieces], int(chosen.sum())


def _regions(rng: np.random.Generator, size: int) -> np.ndarray:
    """Number from 1 of the ellipse whose outline is nearest, seen through a smooth warp; splinters join a neighbour."""
    grid = np.mgrid[:size, :size].astype(np.float32)
    for sigma_px, shift_px in ((4, 1.0), (10, 3.5), (30, 9.0)):
        grid += np.stack([shift_px * _noise(rng, size, sigma_px) for _ in grid])
    nearest = np.full((size, size), np.inf, np.float32)
    regions = np.zeros((size, size), int)
    ellipses: np.ndarray = _ellipses(rng, size).astype(np.float32)
    for i, ellipse in enumerate(ellipses, 1):
        row, column, radius, elongation, angle = np.split(ellipse, 5)
        y, x = grid[0] - row, grid[1] - column
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        distance = np.hypot(along / np.sqrt(elongation), across * np.sqrt(elongation)) - radius
        closer = distance < nearest
        nearest[closer], regions[closer] = distance[closer], i
    whole, _ = _largest_pieces(regions, _MIN_REGION_PX)
    return regions[tuple(distance_transform_edt(~whole, return_distances=False, return_indices=True))]


def _cells(rng: np.random.Generator, regions: np.ndarray) -> tuple[np.ndarray, int]:
    """Mask of cell interiors and their number: one 4-connected piece a region at most.

    Pixels on both sides of an interface are membrane, so cells touch neither by edge nor by corner; of a region that
    the membrane pinches into several pieces only the largest stays.
    """
    width = np.clip(4.1 + 0.8 * _noise(rng, len(regions), 20), *_MEMBRANE_WIDTH_PX)
    to_interface = distance_transform_edt(~find_boundaries(regions, mode="thick")) + 0.5
    return _largest_pieces(np.where(to_interface < width / 2, 0, regions), _MIN_CELL_PX)


def _spots(rng: np.random.Generator, free: np.ndarray, count: int) -> Iterator[tuple[int, int]]:
    """Random places in the free area, asked one by one because the caller uses up the area."""
    for _ in range(count):
        row, column = rng.integers(0, free.shape[0], 2)
        if free[row, column]:
            yield int(row), int(column)


def _local(size: int, centre: tuple[int, int], reach: int) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """Window about a place, cut at the image's edge, and the offsets of its pixels."""
    top, left = (slice(max(0, c - reach), min(size, c + reach + 1)) for c in centre)
    rows, columns = np.mgrid[top, left]
    return (top, left), rows - centre[0], columns - centre[1]


def _draw_mitochondria(rng: np.random.Generator, image: np.ndarray, free: np.ndarray) -> int:
    """Dark ovals with a darker rim and bright folds, wholly inside cells; takes their area from ``free``."""
    size, count = len(image), 0
    bend = _noise(rng, size, 6)
    for centre in _spots(rng, free, size * size // 100):
        minor, angle = rng.uniform(5, 12), rng.uniform(0, np.pi)
        major = minor * rng.uniform(1.2, 2.0)
        window, y, x = _local(size, centre, int(major) + 4)
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        rim_px = (np.hypot(along / major, across / minor) - 1 + 0.05 * bend[window]) * minor
        if np.any((rim_px < 3) & ~free[window]) or rng.random() < 0.85:
            continue
        folds = np.sin(2 * np.pi * (along + 2.5 * bend[window]) / rng.uniform(4.5, 6))
        inside = np.where(np.abs(rim_px) < 1.2, 70, 112 + 24 * folds * np.clip(-rim_px / 3, 0, 1))
        image[window] = np.where(rim_px < 1.2, inside, image[window])
        free[window] &= rim_px >= 2.5
        count += 1
    return count


def _draw_vesicles(rng: np.random.Generator, image: np.ndarray, free: np.ndarray) -> int:
    """Small dark rings with a bright lumen, in clusters; takes their area from ``free``."""
    size, count = len(image), 0
    crowd = _noise(rng, size, 14)
    for centre in _spots(rng, free, size * size // 12):
        if crowd[centre] < rng.uniform(0.4, 2):
            continue
        radius = rng.uniform(1.8, 3.2)
        window, y, x = _local(size, centre, 6)
        rim_px = np.hypot(x, y) - radius
        if np.any((rim_px < 2) & ~free[window]):
            continue
        image[window] -= rng.uniform(50, 80) * np.exp(-((rim_px / 0.8) ** 2)) - 12 * (rim_px < -1)
        free[window] &= rim_px >= 1.5
        count += 1
    return count


def _cytoplasm(rng: np.random.Generator, regions: np.ndarray) -> np.ndarray:
    """Bright interior: a level for each region, cloudy and grainy texture, scattered dark dots."""
    size = len(regions)
    level = rng.normal(165, 9, regions.max() + 1)[regions]
    grain = 9 * _noise(rng, size, 4) + 14 * _noise(rng, size, 1.8) + 14 * _noise(rng, size, 1.1)
    dots = np.clip(_noise(rng, size, 1.5) - 1.9, 0, None) * (1 + _noise(rng, size, 15)).clip(0)
    return level + grain - 70 * dots


def membrane_em(rng: np.random.Generator, size: int) -> Phantom:
    """Make one section of nerve tissue whose cells can be counted.

    Regions are cells of an additively weighted Voronoi diagram of ellipses of many sizes, warped smoothly.
    The membrane between them is 2 to 5 px wide and dark; mitochondria, vesicles, dots, dark smears along membranes,
    uneven brightness, blur and noise make darkness an insufficient criterion.

    Args:
        rng: source of all randomness.
        size: edge length in px.

    Returns:
        uint8 image; uint8 label, 1 = membrane and 0 = cell; and as truth ``cells``, the number of 4-connected pieces of
        label 0 (none touch, not even by a corner), ``membrane_share`` of the pixels, and how many ``mitochondria`` and
        ``vesicles`` were drawn.

    Raises:
        ValueError: if ``size`` is below 64 px.

    Example:
        >>> phantom = membrane_em(np.random.default_rng(0), 96)
        >>> int(label(phantom.label == 0, connectivity=1).max()) == phantom.truth["cells"]
        True
    """
    if size < _MIN_SIZE_PX:
        raise ValueError(f"size is {size} px; expected at least {_MIN_SIZE_PX} px, so that a few whole cells fit")
    regions = _regions(rng, size)
    cells, count = _cells(rng, regions)
    depth = distance_transform_edt(cells)
    image = _cytoplasm(rng, regions)
    free = depth > 3
    mitochondria = _draw_mitochondria(rng, image, free)
    vesicles = _draw_vesicles(rng, image, free)
    smear = np.clip(_noise(rng, size, 12) - 1.6, 0, 1) * np.exp(-depth / 5)
    image -= 110 * smear
    wall = gaussian_filter((~cells).astype(float), 0.6)
    image += wall * (84 + 16 * _noise(rng, size, 6) - image)
    image = gaussian_filter(image, 0.7) + 9 * _noise(rng, size, 64) + 13 * _noise(rng, size, 0.8)
    truth = {
        "cells": count,
        "membrane_share": float(np.mean(~cells)),
        "mitochondria": mitochondria,
        "vesicles": vesicles,
    }
    return Phantom(np.clip(np.rint(image), 0, 255).astype(np.uint8), (~cells).astype(np.uint8), truth)


MEMBRANE_EM = PhantomKind(
    generate=membrane_em,
    description="Phantom of nerve tissue in electron microscopy: dark membranes between bright cells",
    modality=("EM",),
    labels=("cell", "membrane"),
    ending=".png",
)
