"""Eroded targets against boxes derived by hand and an erosion of one object at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from bundlekit.transforms import ErodedTargets, ErodedTargetsd


def test_two_touching_objects_lose_six_pixels_on_every_side():
    label = np.zeros((1, 30, 60), dtype=np.int32)
    label[0, 4:26, 5:26] = 1  # 21 columns
    label[0, 4:26, 26:48] = 2  # 22 columns, next to them
    wanted = np.zeros((2, 30, 60), dtype=np.float32)
    wanted[0, 10:20, 11:20] = 1  # 4 + 6 to 26 - 6, 5 + 6 to 26 - 6
    wanted[0, 10:20, 32:42] = 1  # 26 + 6 to 48 - 6
    wanted[1, 4:26, 5:48] = 1
    targets = ErodedTargets(13)(label)
    assert targets.dtype == np.float32 and np.array_equal(targets, wanted)


def test_an_object_is_not_eroded_where_the_border_cuts_it():
    label = np.zeros((1, 10, 12))
    label[0, :4, 7:] = 9  # in a corner: only the sides towards row 4 and column 6 lie in the image
    wanted = np.zeros((10, 12))
    wanted[:3, 8:] = 1
    assert np.array_equal(ErodedTargets(3)(label)[0], wanted)


@pytest.mark.parametrize("shape, size_px", [((60, 47), 5), ((60, 47), 9), ((14, 20, 17), 3)])
def test_targets_equal_the_erosion_of_one_object_after_another(shape, size_px):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, [-(-n // 8) for n in shape])  # blocks of 8 pixels, many of which touch
    label = np.kron(coarse, np.ones((8,) * len(shape), dtype=int))[tuple(slice(n) for n in shape)]
    box = np.ones((size_px,) * len(shape))
    eroded = [ndimage.binary_erosion(label == number, box, border_value=1) for number in (1, 2, 3)]
    targets = ErodedTargets(size_px)(label[None])
    assert 0 < targets[0].sum() < targets[1].sum()
    assert np.array_equal(targets, [np.any(eroded, axis=0), label > 0])


def test_a_box_of_one_pixel_takes_nothing():
    label = np.random.default_rng(0).integers(0, 3, (1, 8, 9))
    assert np.array_equal(ErodedTargets(1)(label), np.concatenate([label > 0, label > 0]))


def test_dictionary_keeps_type_and_metadata():
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0]))
    label = MetaTensor(torch.ones(1, 6, 6, dtype=torch.int32), affine=affine, meta={"filename_or_obj": "a.png"})
    items = ErodedTargetsd(["label"], 3, ["target"])({"label": label})
    assert items["label"] is label
    target = items["target"]
    assert isinstance(target, MetaTensor) and target.dtype == torch.float32 and target.shape == (2, 6, 6)
    assert torch.equal(target.affine, affine) and target.meta["filename_or_obj"] == "a.png"
    assert torch.equal(ErodedTargetsd("label", 3)({"label": label})["label"], target)


@pytest.mark.parametrize("size_px", [0, 4, -3])
def test_sizes_that_are_refused(size_px):
    with pytest.raises(ValueError, match=f"size_px is {size_px}; expected an odd number > 0"):
        ErodedTargets(size_px)


def test_several_channels_are_refused():
    with pytest.raises(ValueError, match="the label has 2 channels; expected one map"):
        ErodedTargets(3)(np.zeros((2, 4, 4)))
