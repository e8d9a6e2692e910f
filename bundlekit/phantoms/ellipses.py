"""Places warped ellipses next to one another, some touching, and draws which one each pixel belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from skimage.measure import label
from skimage.segmentation import relabel_sequential

__all__ = ["draw_ellipses", "next_to", "place_circles"]

_NUM_TRIES = 20


def next_to(rng: np.random.Generator, placed: np.ndarray, apart_px: Callable[[float], float]) -> np.ndarray:
    """A place (row, column) in a random direction from one of the circles.

    Args:
        rng: source of all randomness.
        placed: row, column and radius of each circle.
        apart_px: distance from that circle's centre, by its radius.

    Example:
        >>> centre = next_to(np.random.default_rng(0), np.array([[10.0, 20, 3]]), lambda radius: 2 * radius)
        >>> round(float(np.hypot(*(centre - [10, 20]))), 6)
        6.0
    """
    row, column, radius = placed[rng.integers(len(placed))]
    angle, apart = rng.uniform(0, 2 * np.pi), apart_px(radius)
    return np.array([row + apart * np.sin(angle), column + apart * np.cos(angle)])


def place_circles(
    first: Sequence[float],
    radii: Iterable[float],
    size: int,
    propose: Callable[[float, np.ndarray], tuple[np.ndarray, float]],
    reach_px: Callable[[float], float],
) -> np.ndarray:
    """Row, column and radius of the first circle, then of each other that finds room within a few tries.

    Args:
        first: row, column and radius in px.
        radii: of the others, in px.
        size: edge length of the image in px.
        propose: by radius and the circles so far, a centre, and the least gap in px to each of them, below 0 for an
            overlap.
        reach_px: how far outside the image a centre may lie, by radius.

    Example:
        >>> right = np.array([5.0, 9])
        >>> place_circles([5, 5, 2], [2, 2], 10, lambda radius, placed: (right, -0.5), lambda radius: 0).tolist()
        [[5.0, 5.0, 2.0], [5.0, 9.0, 2.0]]
    """
    placed = np.array([first], float)
    for radius in radii:
        for _ in range(_NUM_TRIES):
            centre, least_gap_px = propose(radius, placed)
            gaps_px = np.hypot(*(placed[:, :2] - centre).T) - placed[:, 2] - radius
            if np.all(gaps_px > least_gap_px) and np.all(np.abs(centre - size / 2) < size / 2 + reach_px(radius)):
                placed = np.vstack([placed, [*centre, radius]])
                break
    return placed


def draw_ellipses(
    rng: np.random.Generator, grid: np.ndarray, circles: np.ndarray, max_elongation: float, min_area_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each circle drawn out to an ellipse as large; where two overlap, the nearer outline wins.

    Args:
        rng: source of all randomness.
        grid: the row and the column that is seen at each pixel.
        circles: row, column and radius of each.
        max_elongation: ratio of the axes of an ellipse, at most.
        min_area_px: pieces that are smaller are left out.

    Returns:
        The number from 1 of the 4-connected piece at each pixel, 0 outside; and the number of its circle.

    Shape:
        ``grid``: ``(2, rows, columns)``. Both maps: ``(rows, columns)``.

    Example:
        >>> grid, circle = np.mgrid[:9, :9], np.array([[4, 4, 3]])
        >>> pieces, drawn = draw_ellipses(np.random.default_rng(0), grid, circle, 1, 20)
        >>> pieces.sum() == drawn.sum() == (np.hypot(*(grid - 4)) < 3).sum()
        np.True_
    """
    nearest, drawn = np.zeros(grid.shape[1:]), np.zeros(grid.shape[1:], int)
    for i, (row, column, radius) in enumerate(circles, 1):
        stretch, angle = np.sqrt(rng.uniform(1, max_elongation)), rng.uniform(0, np.pi)
        y, x = grid[0] - row, grid[1] - column
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        distance = np.hypot(along / stretch, across * stretch) - radius
        closer = distance < nearest
        nearest[closer], drawn[closer] = distance[closer], i
    pieces = label(drawn, background=0, connectivity=1)
    pieces[np.bincount(pieces.ravel())[pieces] < min_area_px] = 0
    return relabel_sequential(pieces)[0], drawn
