"""Subpixel shifts of functions that are known between the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundlekit.transforms import SubpixelShift, SubpixelShiftd


def test_a_cubic_is_moved_exactly():
    """Cubic splines reproduce polynomials of degree 3; the mirrored border is left out, where it is none."""
    y, x = np.mgrid[:60.0, :60.0] / 60
    surface = lambda y, x: 2 * x**3 - y**3 + x * y + 0.3 * x  # noqa: E731
    moved = SubpixelShift([-0.15, -0.45])(surface(y, x)[None])[0]
    expected = surface(y + 0.15 / 60, x + 0.45 / 60)
    # a spline forgets its border by a factor of 0.27 a pixel: 1e-8 after 14 pixels; the rest is float32
    np.testing.assert_allclose(moved[14:-14, 14:-14], expected[14:-14, 14:-14], atol=3e-7)


def test_a_smooth_wave_is_moved_by_its_phase():
    x = np.arange(128)
    wave = lambda shift: np.cos(2 * np.pi * (x - shift) / 16)[None].repeat(8, 0)  # noqa: E731
    moved = SubpixelShift([0, 0.45])(wave(0)[None])[0]
    # the error of cubic interpolation of a wave of 16 px is about (2 pi / 16)^4 / 384 per unit of curvature
    np.testing.assert_allclose(moved[:, 16:-16], wave(0.45)[:, 16:-16], atol=3e-4)


def test_whole_pixels_are_moved_and_the_border_is_mirrored():
    image = np.random.default_rng(0).normal(size=(2, 6, 7))
    moved = SubpixelShift([1, 0])(image)
    np.testing.assert_allclose(moved[:, 1:], image[:, :-1], atol=1e-6)
    np.testing.assert_allclose(moved[:, 0], image[:, 1], atol=1e-6)  # mirrored about the centre of row 0


def test_grid_and_metadata_stay():
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
    image = MetaTensor(torch.rand(1, 9, 9), affine=affine, meta={"filename_or_obj": "a.png"})
    moved = SubpixelShiftd("image", [0.2, -0.4])({"image": image, "label": 1})["image"]
    assert torch.equal(moved.affine, image.affine) and moved.meta["filename_or_obj"] == "a.png"
    assert moved.dtype == torch.float32 and not torch.equal(moved.as_tensor(), image.as_tensor())


def test_a_shift_for_each_axis_is_wanted():
    with pytest.raises(ValueError, match=r"shift_px is \(0.5,\) and the image \(1, 4, 4\); expected a shift for each"):
        SubpixelShift([0.5])(np.zeros((1, 4, 4)))


@pytest.mark.parametrize("shift_px", [(float("nan"), 0), (0, float("inf"))])
def test_shifts_that_are_not_finite_are_refused(shift_px):
    with pytest.raises(ValueError, match="expected finite numbers"):
        SubpixelShift(shift_px)
