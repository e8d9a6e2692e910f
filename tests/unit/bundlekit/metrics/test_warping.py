"""The warping error against small images worked out by hand, and its flips against counts of components."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.measure import label

from bundlekit.metrics import pixel_error, warp_truth, warping_error
from bundlekit.metrics.warping import _IS_SIMPLE, _RING


def _num_components(membrane: np.ndarray) -> tuple[int, int]:
    """How many 4-connected cells and 8-connected membranes there are."""
    return label(membrane == 0, connectivity=1).max(), label(membrane == 1, connectivity=2).max()


def _num_components_in_frame(membrane: np.ndarray) -> tuple[int, int]:
    return _num_components(np.pad(membrane, 1, constant_values=1))


def _flip_keeps_topology(neighbourhood: np.ndarray) -> bool:
    flipped = neighbourhood.copy()
    flipped[1, 1] = 1 - flipped[1, 1]
    return _num_components(flipped) == _num_components(neighbourhood)


def _map(*rows: str) -> np.ndarray:
    """Rows of "#" for membrane and "." for cell."""
    return np.array([[pixel == "#" for pixel in row] for row in rows]).astype(np.uint8)


def _smooth_map(seed: int, share: float = 0.3) -> np.ndarray:
    """Blobs and lines some pixels wide, whose membranes cover ``share`` of the image."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(48, 56)), 1.5)
    return (noise > np.quantile(noise, 1 - share)).astype(np.uint8)


@pytest.mark.parametrize("centre", [0, 1])
def test_all_256_neighbourhoods(centre):
    for code in range(256):
        neighbourhood = np.full((3, 3), centre)
        for bit, (row, column) in enumerate(_RING):
            neighbourhood[1 + row, 1 + column] = 1 - (code >> bit & 1)  # in maps 1 is membrane, in codes cell
        assert _IS_SIMPLE[code] == _flip_keeps_topology(neighbourhood), f"neighbourhood {code}:\n{neighbourhood}"


WALL = _map(*["...#..."] * 5)


@pytest.mark.parametrize(
    ("prediction", "num_errors"),
    [
        (WALL, 0),
        (_map(*["....#.."] * 5), 0),  # moved by its width: 10 pixels differ, none after the warp
        (_map(*["..####."] * 5), 0),  # thicker
        (_map("...#...", "..#....", "...#...", "....#..", "...#..."), 0),  # crooked
        (_map("...#...", "...#...", ".......", "...#...", "...#..."), 1),  # a gap of 1 pixel merges the two cells
        (_map("...#...", ".......", ".......", "...#...", "...#..."), 2),  # of 2 pixels
        (_map(".......", "...#...", "...#...", "...#...", "...#..."), 1),  # the frame is membrane: this gap too
        (_map("#..#..#", "#..#..#", "#..#..#", "#..#..#", "#..#..#"), 0),  # and what thickens the frame is no error
        (_map("...#...", "...#.#.", "...#...", "...#...", "...#..."), 1),  # a speck: a new membrane
        (_map(*[".#.#..."] * 5), 1),  # a wall that splits a cell grows from the frame up to one pixel
        (_map(*["......."] * 5), 5),  # the wall loses no end, for both lie on the frame
        (_map(*["#######"] * 5), 2),  # each of the two cells shrinks to one pixel
        (_map(*["#....##"] * 5), 5),  # the wall is 2 px away from where it should be: no pixel of it can move
    ],
)
def test_topology_is_all_that_counts(prediction, num_errors):
    assert warping_error(prediction, WALL) == num_errors / WALL.size
    assert np.count_nonzero(warp_truth(prediction, WALL) != prediction) == num_errors
    assert (pixel_error(prediction, WALL) > 0) == (prediction is not WALL)


def test_hole_in_a_thick_membrane():
    truth = _map(".......", ".#####.", ".#####.", ".#####.", ".......")
    hole = truth.copy()
    hole[2, 3] = 0  # a new cell
    np.testing.assert_array_equal(warp_truth(hole, truth), truth)
    assert warping_error(hole, truth) == 1 / truth.size


def test_error_is_not_symmetric():
    # a cell of 3 x 3 that is lost leaves one pixel behind; a cell of 3 x 3 that appears is wrong altogether
    cell, none = np.ones((2, 5, 5))
    cell[1:4, 1:4] = 0
    assert warping_error(none, cell) == 1 / 25
    assert warping_error(cell, none) == 9 / 25


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_distance_px", [None, 2])
def test_warp_keeps_topology_and_stops_where_no_flip_is_left(seed, max_distance_px):
    prediction, truth = _smooth_map(seed), _smooth_map(seed + 100)
    prediction[:, :28] = np.roll(truth, 1, axis=0)[:, :28]  # half of it another image, half only moved
    warped = warp_truth(prediction, truth, max_distance_px)
    assert _num_components_in_frame(warped) == _num_components_in_frame(truth)
    changed, wrong = warped != truth, warped != prediction
    assert changed.any()
    assert not (changed & wrong).any()
    assert warping_error(prediction, truth, max_distance_px) == wrong.mean()
    if max_distance_px is None:
        framed = np.pad(warped, 1, constant_values=1)
        left = [framed[row : row + 3, column : column + 3] for row, column in np.argwhere(wrong)]
        assert left
        assert not any(_flip_keeps_topology(neighbourhood) for neighbourhood in left)


def test_max_distance():
    # Grown, the wall in column 3 gets 5 columns, which are 1 to 5 px away from it. Shrunk again, the same columns are
    # 2, 3, 3, 2 and 1 px away from the cells, and it goes only from the right, for column 3 stays.
    wall, thick = (_map(*[row] * 23) for row in ("...#.........", "...######...."))
    middle = slice(8, 15)  # rows more than 5 px from the frame
    for max_distance_px, grown, shrunk in ((0.5, 0, 0), (1, 1, 1), (2.9, 2, 2), (3, 3, 5), (None, 5, 5)):
        warped = warp_truth(thick, wall, max_distance_px)
        assert (warped[middle].sum(axis=1) == 1 + grown).all(), max_distance_px
        assert warping_error(thick, wall, max_distance_px) == np.count_nonzero(warped != thick) / wall.size
        warped = warp_truth(wall, thick, max_distance_px)
        assert (warped[middle].sum(axis=1) == 6 - shrunk).all(), max_distance_px


def test_identity_and_no_cells():
    image = _smooth_map(0)
    assert warping_error(image, image) == 0
    no_cells = np.ones((4, 4))
    np.testing.assert_array_equal(warp_truth(np.zeros((4, 4)), no_cells, 1), no_cells)
