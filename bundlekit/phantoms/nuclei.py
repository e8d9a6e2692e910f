"""Phantom of cell nuclei in microscopy: grey or colour, light on dark or dark on light, some touching."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.color import rgb_from_hed

from .dataset import Phantom, PhantomKind
from .ellipses import draw_ellipses, next_to, place_circles

__all__ = ["NUCLEI_MICROSCOPY", "nuclei_microscopy"]

_MIN_SIZE_PX = 64
_RADIUS_PX = (4.0, 14.0)
_MIN_NUCLEUS_PX = 20
_APPEARANCES = ("fluorescence", "brightfield", "stained", "coloured fluorescence")


def _noise(rng: np.random.Generator, size: int, sigma_px: float) -> np.ndarray:
    """Smooth random field of mean 0 and standard deviation 1."""
    field = gaussian_filter(rng.standard_normal((size, size)), sigma_px, mode="wrap")
    return (field - field.mean()) / field.std()


def _circles(rng: np.random.Generator, size: int) -> np.ndarray:
    """Row, column and radius of the nuclei of one cell type; about a third lean on another."""
    typical = rng.uniform(*_RADIUS_PX)
    count = 2 + round(rng.uniform(0.1, 0.35) * size**2 / (np.pi * typical**2))
    first = [*rng.uniform(0.2 * size, 0.8 * size, 2), typical]
    radii = np.clip(typical * rng.normal(1, 0.2, count - 1), 3, 18)

    def propose(radius: float, placed: np.ndarray) -> tuple[np.ndarray, float]:
        centre = rng.uniform(-radius / 2, size + radius / 2, 2)
        if rng.random() >= 0.35:
            return centre, 2.0
        return next_to(rng, placed, lambda other: (other + radius) * rng.uniform(0.8, 0.95)), -0.21 * 2 * radius

    return place_circles(first, radii, size, propose, lambda radius: radius)


def _nuclei(rng: np.random.Generator, size: int) -> np.ndarray:
    """Id from 1 of the nucleus at each pixel, 0 outside: ellipses, seen through a smooth warp."""
    grid = np.mgrid[:size, :size] + np.stack([0.8 * _noise(rng, size, 6) for _ in range(2)])
    return draw_ellipses(rng, grid, _circles(rng, size), 1.5, _MIN_NUCLEUS_PX)[0]


def _density(rng: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    """How much of a nucleus is at each pixel: a level for each, darker rims, chromatin, blurred."""
    size = len(ids)
    level = np.append(0, rng.uniform(0.35, 1, ids.max()))[ids]
    depth = distance_transform_edt(ids > 0)
    texture = 1 + 0.12 * _noise(rng, size, 2) + 0.1 * np.clip(1 - depth / 3, 0, 1)
    return gaussian_filter(level * texture, rng.uniform(0.5, 1.2))


def _shown(rng: np.random.Generator, density: np.ndarray, appearance: str) -> np.ndarray:
    """Intensities from 0 to 1, (rows, columns) or with three channels."""
    size = len(density)
    haze = 0.06 * _noise(rng, size, 25) + 0.03 * _noise(rng, size, 4)
    if appearance == "fluorescence":
        return rng.uniform(0.03, 0.15) + rng.uniform(0.25, 0.8) * density + 0.5 * haze
    if appearance == "brightfield":
        return rng.uniform(0.7, 0.9) - rng.uniform(0.25, 0.5) * density + haze
    if appearance == "coloured fluorescence":
        hue = np.clip(np.array([0.15, 0.2, 1.0]) + rng.normal(0, 0.1, 3), 0, 1)
        return (rng.uniform(0.02, 0.08) + rng.uniform(0.4, 0.8) * density + 0.4 * haze)[..., None] * hue
    tissue = np.clip(0.25 + 0.1 * _noise(rng, size, 3) + haze, 0, None)
    stains = np.stack([0.05 + rng.uniform(0.7, 1.2) * density, tissue * (1 - 0.5 * np.clip(density, 0, 1))], axis=-1)
    hues = np.clip(rgb_from_hed[:2] + rng.normal(0, 0.05, (2, 3)), 0.02, None)
    return rng.uniform(0.85, 0.97) * np.exp(-1.6 * stains @ hues)


def nuclei_microscopy(rng: np.random.Generator, size: int) -> Phantom:
    """Make one field of view whose nuclei can be counted.

    Nuclei are warped ellipses of about one size, some touching and some cut by the image's edge. An image is grey
    fluorescence (light on dark), grey bright field (dark on light), stained tissue in colour (dark on light) or
    fluorescence in colour, each as likely; brightness, contrast, haze, sharpness and noise differ between images.

    Args:
        rng: source of all randomness.
        size: edge length in px.

    Returns:
        uint8 image, (rows, columns) or (rows, columns, 3); uint16 label, 0 outside nuclei and each nucleus's own
        number from 1; and as truth ``nuclei``, their number, ``areas_px`` of them in that order, ``nuclei_share`` of
        the pixels, and the ``appearance``.

    Raises:
        ValueError: if ``size`` is below 64 px.

    Example:
        >>> phantom = nuclei_microscopy(np.random.default_rng(0), 96)
        >>> np.bincount(phantom.label.ravel())[1:].tolist() == phantom.truth["areas_px"]
        True
    """
    if size < _MIN_SIZE_PX:
        raise ValueError(f"size is {size} px; expected at least {_MIN_SIZE_PX} px, so that a few whole nuclei fit")
    ids = _nuclei(rng, size)
    appearance = _APPEARANCES[rng.integers(len(_APPEARANCES))]
    light = _shown(rng, _density(rng, ids), appearance)
    light = light + rng.uniform(0.005, 0.03) * rng.standard_normal(light.shape)
    truth = {
        "nuclei": int(ids.max()),
        "areas_px": np.bincount(ids.ravel())[1:].tolist(),
        "nuclei_share": float(np.mean(ids > 0)),
        "appearance": appearance,
    }
    return Phantom(np.clip(np.rint(255 * light), 0, 255).astype(np.uint8), ids.astype(np.uint16), truth)


NUCLEI_MICROSCOPY = PhantomKind(
    generate=nuclei_microscopy,
    description="Phantom of nuclei, grey or RGB, lighter or darker than the ground; labels hold ids of single nuclei",
    modality=("red", "green", "blue"),
    labels=("background", "nucleus"),
    ending=".png",
)
