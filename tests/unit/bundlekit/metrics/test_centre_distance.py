"""Distances worked out by hand, and images whose diameter is not known."""

from __future__ import annotations

import pytest
import torch

from bundlekit.metrics import CentreDistance


def test_mean_over_batches_and_lists():
    metric = CentreDistance()
    metric(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    metric([torch.tensor([0.0, 2.0])], [torch.tensor([0.0, 1.0])])
    assert metric.aggregate() == 3.0
    assert metric.get_buffer().tolist() == [[5.0], [1.0]]


def test_unknown_lengths_are_left_out_of_the_mean():
    metric = CentreDistance()
    truth = torch.tensor([[0.0, 0, 10], [0, 0, torch.nan]])
    assert metric(torch.tensor([[3.0, 4.0]] * 2), truth).flatten()[1].isnan()
    assert metric.aggregate() == 0.5


def test_wrong_shapes_and_no_image():
    with pytest.raises(ValueError, match=r"y is \(1, 4\); expected \(1, 2\), or one column more"):
        CentreDistance()(torch.zeros(1, 2), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="got no image"):
        CentreDistance().aggregate()
