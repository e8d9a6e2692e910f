"""Phantom of colon tissue stained with haematoxylin and eosin: glands with a ring of nuclei, and pale gaps."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft2, rfft2
from scipy.ndimage import distance_transform_edt, fourier_gaussian, gaussian_filter, map_coordinates
from skimage.color import rgb_from_hed
from skimage.measure import label
from skimage.segmentation import find_boundaries

from .dataset import Phantom, PhantomKind
from .ellipses import draw_ellipses, next_to, place_circles

__all__ = ["GLAND_HISTOLOGY", "gland_histology"]

_MIN_SIZE_PX = 64
_MIN_RADIUS_PX, _MAX_RADIUS_PX = 12.0, 45.0
_MIN_GLAND_PX = 150
_REACH_PX = 7  # of a drawn spot, from its centre


def _noise(rng: np.random.Generator, size: int, *sigma_px: float) -> np.ndarray:
    """Smooth periodic random field of mean 0 and standard deviation 1; one sigma, or one for each axis."""
    spectrum = fourier_gaussian(rfft2(rng.standard_normal((size, size))), np.broadcast_to(sigma_px, 2), n=size)
    field = irfft2(spectrum, s=(size, size))
    return (field - field.mean()) / field.std()


def _ramp(x: np.ndarray, width: float) -> np.ndarray:
    """0 below -width / 2, 1 above width / 2, a straight line between."""
    return np.clip(x / width + 0.5, 0, 1)


def _circles(rng: np.random.Generator, size: int) -> np.ndarray:
    """Row, column and radius of the glands, largest first; the first lies in the image, a third lean on another."""
    largest = np.clip(size / 5, 15, _MAX_RADIUS_PX)
    margin, mode = 0.6 * largest, 0.3 * _MIN_RADIUS_PX + 0.7 * largest
    count = 1 + round(rng.uniform(0.25, 0.45) * (size + 2 * margin) ** 2 / (np.pi * mode**2))
    radii = np.sort(rng.triangular(_MIN_RADIUS_PX, mode, largest, count))[::-1]
    first = [*rng.uniform(1.3 * radii[0], size - 1.3 * radii[0], 2), radii[0]]

    def propose(radius: float, placed: np.ndarray) -> tuple[np.ndarray, float]:
        centre = rng.uniform(-margin, size + margin, 2)
        if rng.random() >= 0.3:
            return centre, 0.25 * radius
        return next_to(rng, placed, lambda other: other + radius * rng.uniform(0.85, 1.1)), -0.16 * radius

    return place_circles(first, radii[1:], size, propose, lambda radius: margin)


def _glands(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Id from 1 of the gland at each pixel, 0 outside, and the radius by id in px.

    Each circle is stretched to an ellipse and warped smoothly. Each 4-connected piece has an id; slivers are left out.
    """
    grid = np.mgrid[:size, :size].astype(float)
    for sigma_px, shift_px in ((5, 0.8), (12, 3.0), (30, 5.0)):
        grid += np.stack([shift_px * _noise(rng, size, sigma_px) for _ in grid])
    circles = _circles(rng, size)
    ids, drawn = draw_ellipses(rng, grid, circles, 1.9, _MIN_GLAND_PX)
    radii = np.zeros(ids.max() + 1)
    radii[ids] = np.append(circles[:, 2], 0)[drawn - 1]
    return ids, radii


def _spread(rng: np.random.Generator, mask: np.ndarray, spacing_px: float) -> np.ndarray:
    """Random places in the mask, one at most in each square of that edge length: rows and columns."""
    places = rng.permutation(np.argwhere(mask))
    squares = (places / spacing_px).astype(int) @ np.array([len(mask), 1])
    return places[np.unique(squares, return_index=True)[1]]


def _spots(
    rng: np.random.Generator, places: np.ndarray, angles: np.ndarray, half_axes_px: tuple[float, float], size: int
) -> np.ndarray:
    """Darkness from 0 to 1 of ellipses about those places, each a little larger or smaller; long along the angle."""
    y, x = np.mgrid[-_REACH_PX : _REACH_PX + 1, -_REACH_PX : _REACH_PX + 1]
    angles = angles[:, None, None]
    along, across = np.sin(angles) * y + np.cos(angles) * x, np.cos(angles) * y - np.sin(angles) * x
    major, minor = (half * np.clip(rng.normal(1, 0.2, angles.shape), 0.6, 1.5) for half in half_axes_px)
    values = rng.uniform(0.6, 1, angles.shape) * _ramp((1 - np.hypot(along / major, across / minor)) * minor, 1.5)
    canvas = np.zeros((size + 2 * _REACH_PX,) * 2)
    rows, columns = (places[:, i, None, None] + _REACH_PX for i in (0, 1))
    np.maximum.at(canvas, (rows + y, columns + x), values)
    return canvas[_REACH_PX:-_REACH_PX, _REACH_PX:-_REACH_PX]


def _stroma(rng: np.random.Generator, far_px: np.ndarray) -> np.ndarray:
    """Stains of the tissue between glands: wavy fibres that bend round the glands, clefts, long and round nuclei."""
    size = len(far_px)
    grain, (y, x) = rng.uniform(0, np.pi), np.mgrid[:size, :size]
    across = np.cos(grain) * y - np.sin(grain) * x + 9 * _noise(rng, size, 20) + 12 * np.exp(-far_px / 8)
    along = np.sin(grain) * y + np.cos(grain) * x
    fibres = map_coordinates(_noise(rng, size, 1.1, 6), [across, along], order=1, mode="grid-wrap")
    loose = _noise(rng, size, 16)
    eosin = (0.45 + 0.06 * loose + 0.13 * fibres) * (1 - 0.75 * _ramp(loose - 0.5 * fibres - 1.5, 0.6))
    haematoxylin = 0.08 + 0.02 * fibres + 0.02 * _noise(rng, size, 6)
    slope = np.gradient(across)
    for crowd, spacing_px, half_axes_px in ((0.35, 8, (4.2, 1.3)), (0.3, 9, (2.4, 2.0))):
        places = _spread(rng, far_px > 2, spacing_px)
        places = places[rng.random(len(places)) < crowd]
        angles = np.arctan2(-slope[1], slope[0])[tuple(places.T)] + rng.normal(0, 0.25, len(places))
        haematoxylin += 0.75 * _spots(rng, places, angles, half_axes_px, size)
    return np.stack([haematoxylin, eosin])


def _draw_gaps(rng: np.random.Generator, stains: np.ndarray, far_px: np.ndarray) -> np.ndarray:
    """Fat and vessels: as pale and round as a lumen, but with a thin wall for an epithelium; some hold blood.

    Returns the depth in them in px, negative outside.
    """
    size = len(far_px)
    y, x = np.mgrid[:size, :size] + 2 * np.stack([_noise(rng, size, 8) for _ in range(2)])
    depth_px = np.full((size, size), -np.inf)
    blood = np.zeros((size, size))
    for row, column in _spread(rng, far_px > 8, 50):
        radius = min(rng.uniform(4, 16), far_px[row, column] - 3, -depth_px[row, column] - 3)
        if radius > 4 and rng.random() < 0.7:
            own_px = radius - np.hypot(y - row, x - column)
            blood[own_px > 0] = rng.random() < 0.3
            np.maximum(depth_px, own_px, out=depth_px)
    wall, inside = np.exp(-((np.clip(depth_px, -5, 5) / 1.3) ** 2)), _ramp(depth_px, 1.5)
    cells = 0.8 * blood * np.clip(_noise(rng, size, 1.8) + 0.3, 0, 1)
    stains *= 1 - inside
    stains += np.stack([0.1 * wall, 0.25 * wall + inside * (0.03 + cells)])
    return depth_px


def _draw_heaps(rng: np.random.Generator, stains: np.ndarray, far_px: np.ndarray) -> None:
    """Draw lymphocytes: nuclei as dark and dense as a gland's, but in a heap and without a lumen."""
    places = _spread(rng, (_noise(rng, len(far_px), 9) > 1.7) & (far_px > 3), 4.2)
    stains[0] += 0.8 * _spots(rng, places, np.zeros(len(places)), (2.3, 2.0), len(far_px))


def _epithelium(rng: np.random.Generator, ids: np.ndarray, depth_px: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Stains of the glands: nuclei along the outer edge, cells with vacuoles within, a pale lumen in the middle."""
    size, num = len(ids), len(radii)
    deepest = 0.7 * radii  # exceeded but where the image's edge or a neighbour cuts a gland, whose cells are as high
    np.maximum.at(deepest, ids, depth_px)
    height_px = (rng.uniform(0.45, 0.8, num) * deepest)[ids] * (1 + 0.1 * _noise(rng, size, 5))
    level = np.clip(depth_px / np.maximum(height_px, 1), 0, 1)
    tint = rng.normal(1, 0.15, (2, num))[:, ids]
    cells = np.stack([0.2 + 0.03 * _noise(rng, size, 2), (0.36 + 0.05 * _noise(rng, size, 2)) * (1 - 0.3 * level)])
    upright = np.arctan2(*np.gradient(gaussian_filter(depth_px, 1)))

    places = _spread(rng, (level > 0.45) & (level < 0.95), 5)
    places = places[rng.random(len(places)) < rng.uniform(0, 0.9)]
    vacuoles = _spots(rng, places, upright[tuple(places.T)], (3.2, 2.2), size)
    lumen = _ramp(depth_px - height_px + 0.8 * _noise(rng, size, 2), 2)
    debris = np.clip(0.1 * _noise(rng, size, 4), 0.02, 0.3)
    stains = tint * cells * (1 - 0.8 * vacuoles) * (1 - lumen) + debris * lumen

    places = _spread(rng, (depth_px > 1.5) & (level < rng.uniform(0.3, 0.65)), 3.6)
    stains[0] += 0.6 * _spots(rng, places, upright[tuple(places.T)], (3.4, 1.7), size)
    return stains


def _photograph(rng: np.random.Generator, stains: np.ndarray) -> np.ndarray:
    """RGB of the light that the stains let through, by the law of Beer and Lambert; stains and lamp vary."""
    pinker = np.array([[0, 0, 0], [0.06, -0.12, 0.12]])  # the published eosin is more magenta than most slides
    hues = np.clip(rgb_from_hed[:2] + pinker + rng.normal(0, 0.06, (2, 3)), 0.02, None)
    strength = rng.uniform(1.1, 2.1, (2, 1))
    section = 1 + 0.08 * _noise(rng, stains.shape[1], 40)
    lamp = rng.uniform(215, 250) * rng.uniform(0.96, 1, 3)
    light = lamp * np.exp(-np.tensordot(stains * section, strength * hues, (0, 0)))
    sigma_px = rng.uniform(0.4, 1)
    light = gaussian_filter(light, (sigma_px, sigma_px, 0)) + rng.normal(0, rng.uniform(1, 5), light.shape)
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def _touching_pairs(ids: np.ndarray) -> int:
    """Number of pairs of glands that share a border, the edge of a pixel at least."""
    pairs = np.concatenate([np.stack([side[:-1].ravel(), side[1:].ravel()]) for side in (ids, ids.T)], axis=1)
    low, high = np.sort(pairs, axis=0)
    return len(np.unique((low * (ids.max() + 1) + high)[(low > 0) & (low < high)]))


def gland_histology(rng: np.random.Generator, size: int) -> Phantom:
    """Make one section of colon tissue whose glands can be counted.

    A gland is a warped ellipse: nuclei along its outer edge, cells with vacuoles, and a pale lumen. Some lean on
    another and some are cut by the image's edge. Colour is not a sufficient criterion: fat and vessels are as pale as a
    lumen, heaps of lymphocytes as dark as the epithelium, and stains, lamp, sharpness and noise differ between images.

    Args:
        rng: source of all randomness.
        size: edge length in px.

    Returns:
        uint8 image (rows, columns, 3); uint16 label, 0 outside glands and each gland's own number from 1; and as truth
        ``glands``, their number, ``areas_px`` of them in that order, ``touching_pairs`` that share a border,
        ``cut_glands`` at the image's edge, ``gland_share`` of the pixels, and how many ``pale_gaps`` lie between them.

    Raises:
        ValueError: if ``size`` is below 64 px.

    Source:
        Directions of the stains: Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution,
        2001, as in :data:`skimage.color.rgb_from_hed`.

    Example:
        >>> phantom = gland_histology(np.random.default_rng(0), 96)
        >>> np.bincount(phantom.label.ravel())[1:].tolist() == phantom.truth["areas_px"]
        True
    """
    if size < _MIN_SIZE_PX:
        raise ValueError(f"size is {size} px; expected at least {_MIN_SIZE_PX} px, so that a whole gland fits")
    ids, radii = _glands(rng, size)
    edge_px = distance_transform_edt(~find_boundaries(ids, mode="inner"))
    far_px, depth_px = np.where(ids > 0, 0, edge_px), np.where(ids > 0, edge_px, 0)
    stroma = _stroma(rng, far_px)
    gap_px = _draw_gaps(rng, stroma, far_px)
    _draw_heaps(rng, stroma, np.minimum(far_px, -gap_px))
    epithelium = _epithelium(rng, ids, depth_px, radii)
    image = _photograph(rng, stroma + _ramp(depth_px - far_px + 0.5, 1.5) * (epithelium - stroma))
    truth = {
        "glands": int(ids.max()),
        "areas_px": np.bincount(ids.ravel())[1:].tolist(),
        "touching_pairs": _touching_pairs(ids),
        "cut_glands": len({*ids[0], *ids[-1], *ids[:, 0], *ids[:, -1]} - {0}),
        "gland_share": float(np.mean(ids > 0)),
        "pale_gaps": int(label((gap_px > 0) & (ids == 0)).max()),
    }
    return Phantom(image, ids.astype(np.uint16), truth)


GLAND_HISTOLOGY = PhantomKind(
    generate=gland_histology,
    description="Phantom of colon glands in haematoxylin and eosin; labels hold the ids of single glands from 1",
    modality=("red", "green", "blue"),
    labels=("background", "gland"),
    ending=".png",
)
