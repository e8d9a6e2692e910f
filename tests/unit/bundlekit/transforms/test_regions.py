"""Regions and labels of BraTS: there and back, and what the probabilities leave open."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from bundlekit.transforms.regions import LabelsToRegionsd, RegionsToLabelsd

REGIONS = {"whole": [1, 2, 3, 4], "core": [1, 3, 4], "enhancing": [4]}
VALUES = [2, 1, 4]


def cube(values: list[float]) -> MetaTensor:
    return MetaTensor(torch.tensor(values).reshape(1, 1, 1, -1), affine=torch.diag(torch.tensor([1.0, 2, 3, 1])))


def test_labels_become_nested_regions_and_come_back():
    labels = cube([0, 1, 2, 4, 0, 4])
    regions = LabelsToRegionsd("x", REGIONS)({"x": labels})["x"]
    assert regions[:, 0, 0].tolist() == [[0, 1, 1, 1, 0, 1], [0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 0, 1]]
    assert torch.equal(regions.affine, labels.affine)
    back = RegionsToLabelsd("x", VALUES)({"x": regions})["x"]
    assert torch.equal(back.as_tensor(), labels.as_tensor()) and torch.equal(back.affine, labels.affine)


def test_a_label_of_older_data_belongs_to_the_core():
    assert LabelsToRegionsd("x", REGIONS)({"x": cube([3])})["x"].flatten().tolist() == [1, 1, 0]


def test_all_probabilities_give_nested_regions():
    grid = torch.cartesian_prod(*[torch.tensor([0.2, 0.5, 0.8])] * 3).T.reshape(3, 1, 1, -1)
    labels = RegionsToLabelsd("x", VALUES)({"x": grid})["x"]
    whole, core, enhancing = LabelsToRegionsd("x", REGIONS)({"x": labels})["x"].bool()
    assert (enhancing <= core).all() and (core <= whole).all()
    assert torch.equal(enhancing, grid[2] > 0.5) and torch.equal(whole, (grid > 0.5).any(dim=0))  # 0.5 is not above


def test_channels_that_do_not_fit():
    with pytest.raises(ValueError, match="'x' has 2 channels; expected a label map of 1 channel"):
        LabelsToRegionsd("x", REGIONS)({"x": torch.zeros(2, 1, 1, 1)})
    with pytest.raises(ValueError, match=r"'x' has 1 channels; expected one for each of \[2, 1, 4\]"):
        RegionsToLabelsd("x", VALUES)({"x": torch.zeros(1, 1, 1, 1)})
