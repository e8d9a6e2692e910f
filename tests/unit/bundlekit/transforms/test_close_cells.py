"""Closing cells: gaps in membranes are closed, and what is no membrane makes no cell."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from bundlekit.transforms.close_cells import CloseCells, CloseCellsd

CELL, WALL = 0.02, 0.95


def num_cells(labels) -> int:
    return ndimage.label(np.asarray(labels)[0] == 0)[1]


def two_cells(gap: float, height: int = 40) -> torch.Tensor:
    """A wall of two pixels between two cells, with a gap of six pixels where its probability is ``gap``."""
    probability = torch.full((1, height, 40), CELL)
    probability[0, :, 19:21] = WALL
    probability[0, 17:23, 19:21] = gap
    return probability


@pytest.mark.parametrize("sigma_px", [0.0, 1.0])
@pytest.mark.parametrize("gap", [0.05, 0.35])
def test_a_gap_is_closed_if_the_rest_of_the_border_is_membrane(sigma_px, gap):
    probability = two_cells(gap)
    assert num_cells(probability > 0.5) == 1
    assert num_cells(CloseCells(0.5, sigma_px, 0.01, merge_below=0.5)(probability)) == 2


def test_the_mean_over_the_border_decides():
    # without smoothing the border of the two basins is the wall: 34 of 40 rows at .95, 6 at .35, .86 in the mean
    closed = [num_cells(CloseCells(0.5, 0.0, 0.01, merge_below=m)(two_cells(0.35))) for m in (0.80, 0.92)]
    assert closed == [2, 1]


def test_basins_without_a_border_between_them_are_one_cell():
    """Two dark spots in one cell are two minima, and two basins; the border between them has no membrane."""
    rows, columns = np.mgrid[:40, :40]
    spots = [np.exp(-((rows - 20) ** 2 + (columns - c) ** 2) / 50) for c in (10, 30)]
    probability = (0.3 - 0.25 * np.maximum(*spots)).astype(np.float32)[None]
    merged, kept = (CloseCells(0.5, 0.0, 0.01, merge_below=m)(probability) for m in (0.5, 0.0))
    assert num_cells(merged) == 1 and merged.sum() == 0
    assert num_cells(kept) == 2


def test_depth_ignores_ripples():
    """With nothing merged, a ripple of .04 starts no region of its own at depth .05, but one at depth .01."""
    columns = np.arange(60)
    probability = np.tile(0.1 + 0.02 * np.cos(2 * np.pi * columns / 20), (20, 1)).astype(np.float32)[None]
    cells = [num_cells(CloseCells(0.5, 0.0, depth, merge_below=0.0)(probability)) for depth in (0.05, 0.01)]
    assert cells == [1, 3]


def test_what_lies_above_the_threshold_is_kept():
    probability = torch.rand(1, 32, 32)
    labels = CloseCells(0.6, 1.0, 0.01, merge_below=0.5)(probability)
    assert labels.dtype == torch.uint8 and bool((labels[probability > 0.6] == 1).all())


def test_lines_have_no_diagonal_leak():
    """A slanted wall with a gap: cells that are connected by edges must not touch through the line that closes it."""
    rows, columns = np.mgrid[:50, :50]
    distance = np.abs(rows - columns)
    probability = np.where(distance < 2, WALL, CELL).astype(np.float32)
    probability[(distance < 2) & (rows > 20) & (rows < 30)] = 0.3
    assert num_cells(CloseCells(0.5, 0.0, 0.01, merge_below=0.5)(probability[None])) == 2


def test_flat_maps_have_no_line():
    for value in (0.0, 1.0):
        labels = CloseCells(0.5, 1.0, 0.01, merge_below=0.5)(np.full((1, 8, 8), value, np.float32))
        assert labels.dtype == np.uint8 and (labels == value).all()


def test_dictionary_form_and_shape_error():
    data = {"pred": two_cells(0.35), "image": 1}
    close = CloseCells(0.5, 0.0, 0.01, 0.5)
    assert torch.equal(CloseCellsd("pred", 0.5, 0.0, 0.01, 0.5)(data)["pred"], close(data["pred"]))
    with pytest.raises(ValueError, match=r"shape \(2, 8, 8\); expected one probability map, \(1, H, W\)"):
        close(torch.zeros(2, 8, 8))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("share", [1, 1600])
def test_what_is_not_finite_is_refused(value, share):
    probability = two_cells(0.05)
    probability.view(-1)[::share] = value
    with pytest.raises(ValueError, match="got values that are NaN or infinite; expected probabilities"):
        CloseCells(0.5, 1.0, 0.01, merge_below=0.5)(probability)
