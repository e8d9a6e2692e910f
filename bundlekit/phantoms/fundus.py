"""Phantom of a fundus photograph: optic disc, vessels and macula in a round field of view."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.draw import disk

from .dataset import Phantom, PhantomKind

__all__ = ["FUNDUS", "fundus"]

_MIN_SIZE_PX = 48
_ASPECT = 2 / 3
_DISC_RADIUS = (0.065, 0.095)  # of the photograph's width
_SIDES = {"right": 1, "left": -1}
"""Where the disc lies from the macula: the nose is on the right in a picture of a right eye."""


def _ellipse(grid: np.ndarray, centre: np.ndarray, half_axes: np.ndarray, angle: float) -> np.ndarray:
    """Level of each pixel, 0 in the centre and 1 on the outline; ``grid`` and ``centre`` are (x, y)."""
    x, y = grid - centre[:, None, None]
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return np.hypot(along / half_axes[0], across / half_axes[1])


def _vessel(rng: np.random.Generator, start: np.ndarray, heading: float, bend: float, length: float) -> np.ndarray:
    """Points (x, y) of a curve that leaves ``start`` and turns by ``bend`` on its way, with some wobble."""
    steps = np.linspace(0, 1, max(round(length), 2))
    angles = heading + bend * steps + 0.3 * np.cumsum(rng.normal(0, 1 / len(steps), len(steps)))
    return start[:, None] + np.cumsum([np.cos(angles), np.sin(angles)], axis=1) * length / len(steps)


def _vessels(rng: np.random.Generator, shape: tuple[int, int], centre: np.ndarray, radius: float, side: int):
    """How much of a vessel is at each pixel: four arcades that bend around the macula, and some thinner ones."""
    darkness = np.zeros(shape)
    for i in range(10):
        up = 1 if i % 2 else -1
        temporal = i < 4 or rng.random() < 0.5
        heading = up * rng.uniform(1.1, 1.6) if temporal else up * rng.uniform(0.3, 1.1)
        heading = np.pi - heading if temporal == (side > 0) else heading
        turn = up * side * rng.uniform(0.6, 1.3) if temporal else rng.uniform(-0.4, 0.4)
        width = radius * (rng.uniform(0.1, 0.16) if i < 4 else rng.uniform(0.04, 0.08))
        for x, y in _vessel(rng, centre, heading, -turn, radius * rng.uniform(5, 9)).T:
            darkness[disk((y, x), max(width, 0.8), shape=shape)] = 1 if i < 4 else 0.7
    return gaussian_filter(darkness, max(0.05 * radius, 0.4))


def _colours(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Orange of the retina, more yellow where it is lighter."""
    red, green, blue = rng.uniform(0.85, 1), rng.uniform(0.45, 0.6), rng.uniform(0.15, 0.3)
    return np.stack([red * light**0.8, green * light**1.3, blue * light**1.6], axis=-1)


def fundus(rng: np.random.Generator, size: int) -> Phantom:
    """Make one photograph of a fundus whose optic disc is an ellipse.

    The disc is lighter than the retina, with a still lighter cup in it, and lies on the nasal side of the macula, which
    is dark: on the right in a right eye, on the left in a left one. Vessels leave it and cross its outline. Outside the
    round field all is black. Place, size, lighting, colour, sharpness and noise differ between photographs.

    Args:
        rng: source of all randomness.
        size: width in px; the height is two thirds of it.

    Returns:
        uint8 image (rows, columns, 3); uint8 label, 1 in the disc; and as truth its ``centre`` (x, y) in px,
        ``area_px``, ``diameter_px`` of the circle of that area, and the ``eye``, "left" or "right".

    Raises:
        ValueError: if ``size`` is below 48 px.

    Example:
        >>> phantom = fundus(np.random.default_rng(0), 150)
        >>> rows, columns = np.nonzero(phantom.label)
        >>> phantom.image.shape, bool(np.hypot(*(np.mean([columns, rows], axis=1) - phantom.truth["centre"])) < 0.5)
        ((100, 150, 3), True)
    """
    if size < _MIN_SIZE_PX:
        raise ValueError(f"size is {size} px; expected at least {_MIN_SIZE_PX} px, so that the disc has a few pixels")
    shape = (round(_ASPECT * size), size)
    grid = np.mgrid[: shape[0], : shape[1]][::-1].astype(float)
    eye = ("left", "right")[rng.integers(2)]
    middle = (np.array(shape[::-1]) - 1) / 2
    radius = size * rng.uniform(*_DISC_RADIUS)
    centre = middle + size * np.array([_SIDES[eye] * rng.uniform(0.02, 0.22), rng.uniform(-0.1, 0.1)])
    half_axes = radius * np.array([1, rng.uniform(0.85, 1)])
    level = _ellipse(grid, centre, half_axes, rng.uniform(0, np.pi))
    macula = centre + radius * np.array([-_SIDES[eye] * rng.uniform(4.5, 5.5), rng.uniform(0, 1)])
    vessels = _vessels(rng, shape, centre, radius, _SIDES[eye])

    cup = _ellipse(grid, centre, rng.uniform(0.3, 0.65) * half_axes, 0)
    falloff = 1 - 0.35 * _ellipse(grid, middle, np.array([size / 2, size / 2]), 0) ** 2
    cloud = gaussian_filter(rng.standard_normal(shape), 0.05 * size)
    light = 0.5 * falloff * (1 + 0.12 * cloud / cloud.std())
    light -= 0.12 * np.exp(-((_ellipse(grid, macula, radius * np.ones(2), 0) / 1.2) ** 2))
    light += rng.uniform(0.18, 0.32) / (1 + np.exp(14 * (level - 1))) + 0.12 / (1 + np.exp(10 * (cup - 1)))
    light *= 1 - rng.uniform(0.3, 0.5) * vessels
    light = np.clip(gaussian_filter(light, rng.uniform(0.2, 0.008 * size)), 0.01, 1)
    image = rng.uniform(0.75, 1.1) * _colours(light, rng) + 0.02 * rng.standard_normal((*shape, 3))
    image[_ellipse(grid, middle, size * rng.uniform(0.44, 0.5) * np.ones(2), 0) > 1] = 0
    label = (level <= 1).astype(np.uint8)
    area = float(np.pi * np.prod(half_axes))
    truth = {"centre": centre.tolist(), "area_px": area, "diameter_px": 2 * float(np.sqrt(area / np.pi)), "eye": eye}
    return Phantom(np.clip(np.rint(255 * image), 0, 255).astype(np.uint8), label, truth)


FUNDUS = PhantomKind(
    generate=fundus,
    description="Phantom of fundus photographs, left and right eyes; labels hold the optic disc",
    modality=("fundus photograph",),
    labels=("background", "optic disc"),
    ending=".png",
    size=300,
    entries=("centre",),
)
