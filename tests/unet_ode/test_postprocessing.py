"""Closing cells: gaps are closed by lines, and cells that are one stay one."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from unet_ode.postprocessing import CloseCells, CloseCellsd


def num_cells(labels) -> int:
    return ndimage.label(np.asarray(labels)[0] == 0)[1]


def two_cells(gap: float) -> torch.Tensor:
    """A wall of two pixels between two cells, with a gap of six pixels where its probability is ``gap``."""
    probability = torch.full((1, 40, 40), 0.02)
    probability[0, :, 19:21] = 0.95
    probability[0, 17:23, 19:21] = gap
    return probability


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_a_gap_is_closed_where_the_wall_is_deep_enough(sigma):
    probability = two_cells(gap=0.35)
    assert num_cells(probability > 0.5) == 1
    assert num_cells(CloseCells(0.5, sigma, depth=0.1)(probability)) == 2


def test_a_shallow_dent_makes_no_cell_of_its_own():
    # the gap is 0.05 above the cells: less than depth, so both sides are one basin and no line is drawn
    probability = two_cells(gap=0.07)
    assert torch.equal(CloseCells(0.5, 0.0, depth=0.1)(probability), (probability > 0.5).to(torch.uint8))


def test_what_lies_above_the_threshold_is_kept():
    probability = torch.rand(1, 32, 32)
    labels = CloseCells(0.6, 1.0, depth=0.2)(probability)
    assert labels.dtype == torch.uint8 and bool((labels[probability > 0.6] == 1).all())


def test_lines_have_no_diagonal_leak():
    """A slanted wall is cut by a slanted gap; 4-connected cells on both sides must not touch through the line."""
    rows, columns = np.mgrid[:50, :50]
    distance = np.abs(rows - columns)
    probability = np.where(distance < 2, 0.9, 0.02).astype(np.float32)
    probability[(distance < 2) & (rows > 20) & (rows < 30)] = 0.3
    assert num_cells(CloseCells(0.5, 0.0, depth=0.1)(probability[None])) == 2


def test_flat_maps_have_no_line():
    for value in (0.0, 1.0):
        labels = CloseCells(0.5, 1.0, depth=0.1)(np.full((1, 8, 8), value, np.float32))
        assert labels.dtype == np.uint8 and (labels == value).all()


def test_dictionary_form_and_shape_error():
    data = {"pred": two_cells(0.35), "image": 1}
    assert torch.equal(CloseCellsd("pred", 0.5, 0.0, 0.1)(data)["pred"], CloseCells(0.5, 0.0, 0.1)(data["pred"]))
    with pytest.raises(ValueError, match=r"shape \(2, 8, 8\); expected one probability map, \(1, H, W\)"):
        CloseCells(0.5, 0.0, 0.1)(torch.zeros(2, 8, 8))
