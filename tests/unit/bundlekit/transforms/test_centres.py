"""Centres and diameters in world coordinates, and centres that follow an image through MONAI's transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ApplyTransformToPoints, Compose, Flip, RandAffine, Resize, SpatialPad
from scipy import ndimage

from bundlekit.transforms import CentreOfMassd, EquivalentDiameterd


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    x, y = np.mgrid[: shape[0], : shape[1]]
    return (np.hypot(x - centre[0], y - centre[1]) <= radius).astype(np.float32)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_centre_of_mass_is_scipy_s_taken_through_the_affine(spatial_dims):
    rng = np.random.default_rng(spatial_dims)
    label = rng.integers(0, 3, (7, 9, 8)[:spatial_dims])
    affine = np.eye(4)
    affine[:spatial_dims, :spatial_dims] = rng.normal(size=(spatial_dims, spatial_dims))
    affine[:spatial_dims, 3] = rng.normal(size=spatial_dims)
    expected = affine[:spatial_dims, :spatial_dims] @ ndimage.center_of_mass(label > 0) + affine[:spatial_dims, 3]
    found = CentreOfMassd("label", "centre")({"label": MetaTensor(label[None], affine=affine)})["centre"]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_no_voxel_no_centre_and_no_diameter():
    item = {"label": torch.zeros(1, 4, 4)}
    assert CentreOfMassd("label", "centre")(item)["centre"].isnan().all()
    assert EquivalentDiameterd("label", "diameter")(item)["diameter"].isnan().all()


def test_diameters_of_a_disc_and_of_a_ball_in_mm():
    label = disc((60, 60), (30, 30), 20.0)
    found = EquivalentDiameterd("label", "diameter")({"label": torch.from_numpy(label)[None]})["diameter"]
    assert found.item() == pytest.approx(40, abs=0.1)
    x, y, z = np.mgrid[:24, :24, :24]
    ball = (np.sqrt((x - 12) ** 2 + (y - 12) ** 2 + (z - 12) ** 2) <= 9).astype(np.float32)
    # voxels of 2 x 2 x 2 mm
    label = MetaTensor(ball[None], affine=np.diag([-2.0, 2, 2, 1]))
    assert EquivalentDiameterd("label", "diameter")({"label": label})["diameter"].item() == pytest.approx(36, abs=0.2)


@pytest.mark.parametrize("shape", [(120, 80), (80, 120)], ids=["landscape", "portrait"])
@pytest.mark.parametrize("prob", [0, 1])
def test_a_centre_follows_its_image_to_the_network_s_size_and_back(shape, prob):
    image = MetaTensor(disc(shape, (47.0, 36.0), 15)[None])
    transform = Compose(
        [
            Resize(64, size_mode="longest", mode="bilinear", anti_aliasing=True),
            SpatialPad((64, 64)),
            RandAffine(prob=prob, rotate_range=1, translate_range=6, scale_range=0.2, padding_mode="zeros"),
            Flip(0),
        ]
    ).set_random_state(1)
    small = transform(image)
    assert small.shape == (1, 64, 64)
    point = torch.tensor([[[47.0, 36.0]]], dtype=torch.float64)
    found = ApplyTransformToPoints()(point, small.affine).flatten()
    # the soft disc's centre of mass: a twentieth of a pixel for interpolation
    np.testing.assert_allclose(found, ndimage.center_of_mass(small.numpy()[0]), atol=0.05)
    back = ApplyTransformToPoints(invert_affine=False)(torch.Tensor(found).double().reshape(1, 1, 2), small.affine)
    np.testing.assert_allclose(torch.Tensor(back).flatten(), [47, 36], atol=1e-5)


def test_keys_are_paired():
    with pytest.raises(ValueError, match="got 2 output keys for 1 keys"):
        CentreOfMassd("label", ["a", "b"])
