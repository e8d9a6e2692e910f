"""Warping error: counts differences in topology between membrane maps, not in the position of their lines."""

from __future__ import annotations

from collections import deque

import numpy as np
from monai.config import NdarrayOrTensor
from scipy.ndimage import distance_transform_edt

from .boundaries import membrane_maps

__all__ = ["warp_truth", "warping_error"]

_RING = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))  # (row, column), once round the pixel


def _simple_neighbourhoods() -> np.ndarray:
    """Which of the 256 neighbourhoods make a pixel simple; bit k of the index is 1 where ``_RING[k]`` is a cell.

    Those where the crossing number for 4-connected cells, the sum of x_k (1 - x_{k+1} x_{k+2}) over the four sides k,
    is 1: round the pixel, one 4-connected piece of cell meets it at a side.
    Source: Yokoi, Toriwaki, Fukumura 1975, Computer Graphics and Image Processing 4, 63-73.
    """
    ring = np.arange(256)[:, None] >> np.arange(8) & 1
    sides, corners = ring[:, 0::2], ring[:, 1::2]
    crossing_number = (sides * (1 - corners * np.roll(sides, -1, axis=1))).sum(axis=1)
    return crossing_number == 1


_IS_SIMPLE = _simple_neighbourhoods()


def _flip_simple(cells: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Flip simple pixels of ``cells`` that are ``wrong`` until there are none; the wrong ones that are left.

    No wrong pixel may lie on the outermost rows and columns. First in, first out: the wrong pixels row by row, then
    those next to a flip in the order of the flips.
    """
    ring = [np.roll(cells, (-row, -column), axis=(0, 1)) for row, column in _RING]
    codes = bytearray(np.packbits(ring, axis=0, bitorder="little").tobytes())
    left, is_simple = bytearray(wrong.tobytes()), _IS_SIMPLE.tobytes()
    # a neighbour sees this pixel under the bit of the opposite direction
    steps = [(row * cells.shape[1] + column, 1 << (k + 4) % 8) for k, (row, column) in enumerate(_RING)]
    queue = deque(np.flatnonzero(wrong).tolist())
    while queue:
        pixel = queue.popleft()
        if left[pixel] and is_simple[codes[pixel]]:
            left[pixel] = False
            for step, bit in steps:
                codes[pixel + step] ^= bit
                if left[pixel + step]:
                    queue.append(pixel + step)
    return np.frombuffer(left, dtype=bool).reshape(cells.shape)


def warp_truth(prediction: NdarrayOrTensor, truth: NdarrayOrTensor, max_distance_px: float | None = None) -> np.ndarray:
    """The truth, moved towards the prediction as far as flips of single pixels go that keep its topology.

    A pixel is flipped where it differs from the prediction and is simple: where its flip changes neither the number of
    4-connected cells nor the number of 8-connected membranes in its 3 x 3 neighbourhood, so that cells neither merge,
    split, appear nor vanish. It ends when no such pixel is left. The image is taken to lie in a frame of membrane, one
    pixel wide, which closes the cells at its border.

    Args:
        prediction: predicted membranes, 1 membrane, 0 cell.
        truth: true membranes, likewise.
        max_distance_px: flip only pixels whose centre is at most this far, in pixels, from the centre of a pixel of the
            other kind in the truth with its frame; 1 is a pixel next to a border. None: anywhere.

    Shape:
        (H, W), both, to (H, W), uint8.

    Raises:
        ValueError: when a map is not (H, W) of zeros and ones, or when the shapes differ.

    Source:
        Jain et al. 2010, "Boundary Learning by Optimization with Topological Constraints", CVPR, pages 2488-2495. The
        result is a local optimum, as there: another order of the flips may leave other pixels.

    Example:
        >>> prediction, truth = np.zeros((2, 3, 4), dtype=np.uint8)
        >>> prediction[:, 1] = truth[:, 2] = 1
        >>> np.array_equal(warp_truth(prediction, truth), prediction)
        True
    """
    prediction, truth = membrane_maps(prediction, truth)
    cells = np.pad(~truth, 1)
    wrong = np.pad(prediction != truth, 1)
    if max_distance_px is not None:
        wrong &= distance_transform_edt(cells) + distance_transform_edt(~cells) <= max_distance_px
    flipped = wrong & ~_flip_simple(cells, wrong)
    return (truth ^ flipped[1:-1, 1:-1]).astype(np.uint8)


def warping_error(prediction: NdarrayOrTensor, truth: NdarrayOrTensor, max_distance_px: float | None = None) -> float:
    """Share of pixels where the prediction differs from the truth that was warped towards it (:func:`warp_truth`).

    Args:
        prediction: predicted membranes, 1 membrane, 0 cell.
        truth: true membranes, likewise.
        max_distance_px: as in :func:`warp_truth`; pixels further away count as they are.

    Shape:
        (H, W), both.

    Raises:
        ValueError: as :func:`warp_truth`.

    Source:
        Jain et al. 2010, CVPR, pages 2488-2495.

    Example:
        >>> truth = np.array([[0, 0, 1, 0, 0]] * 4)
        >>> gap = truth.copy()
        >>> gap[1, 2] = 0
        >>> warping_error(gap, truth)  # 1 of 20 pixels
        0.05
    """
    return float(np.mean(warp_truth(prediction, truth, max_distance_px) != membrane_maps(prediction, truth)[0]))
