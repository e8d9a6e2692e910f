"""Pictures of receptive fields against images whose bright pixel is known."""

from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    CropForegroundd,
    Flipd,
    LoadImaged,
    Orientationd,
    Resized,
    Rotate90d,
    ScaleIntensityd,
    SpatialPadd,
)
from PIL import Image
from torch import nn

from bundlekit.reports.receptive_field_picture import ReceptiveFieldPicture


@pytest.mark.parametrize(
    "transforms",
    [
        [],
        [Flipd("image", 0), Rotate90d("image")],
        [SpatialPadd("image", (40, 30))],
        [Resized("image", (24, 8), mode="nearest")],  # keeps the even columns and rows
        [Resized("image", (96, 48), mode="nearest"), Flipd("image", 1)],
        [CropForegroundd("image", "image", select_fn=lambda x: x > 0.5, margin=2, allow_smaller=True)],
    ],
)
def test_pixel_follows_the_preprocessing(tmp_path, transforms):
    """The one bright pixel is where the index says, or one of several where the image became larger."""
    picture = np.zeros((16, 48), np.uint8)
    picture[6, 20] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    load = [LoadImaged("image", ensure_channel_first=True), ScaleIntensityd("image"), *transforms]
    image = Compose(load)({"image": str(tmp_path / "a.png")})["image"]
    index = ReceptiveFieldPicture(nn.Identity(), (20, 6), tmp_path).index(image)
    assert image[(0, *index)] == 1 and image.sum() <= 2 * 3


def test_pixel_of_a_volume_in_another_orientation(tmp_path):
    volume = np.zeros((6, 7, 8), np.float32)
    volume[1, 2, 3] = 1
    nib.save(nib.Nifti1Image(volume, np.diag([-2.0, 1.0, 3.0, 1.0])), tmp_path / "v.nii.gz")
    load = [LoadImaged("image", ensure_channel_first=True), Orientationd("image", axcodes="SRA", labels=None)]
    image = Compose(load)({"image": str(tmp_path / "v.nii.gz")})["image"]
    index = ReceptiveFieldPicture(nn.Identity(), (1, 2, 3), tmp_path).index(image)
    assert image[(0, *index)] == 1 and index == (3, 4, 2)


def test_pixel_outside_the_file_or_its_crop_is_refused(evaluator, items, network, tmp_path, capsys):
    evaluator(items, network, [ReceptiveFieldPicture(network, (30, 2), tmp_path / "out")]).run()
    told = "no receptive field: a.png: pixel is (30, 2); expected an index from (0, 0) to (23, 15)"
    assert told in capsys.readouterr().err and not (tmp_path / "out/a_erf.png").exists()
    cropped = MetaTensor(torch.rand(3, 9, 9), affine=torch.tensor([[1.0, 0, 4], [0, 1, 0], [0, 0, 1]]))
    cropped.meta["spatial_shape"] = torch.tensor([24, 16])
    with pytest.raises(ValueError, match=r"image: pixel, after the preprocessing, is \(-2, 2\); expected an index"):
        ReceptiveFieldPicture(network, (2, 2), tmp_path).index(cropped)
    with pytest.raises(ValueError, match=r"image: pixel is \(2, 2, 0\); expected an index from \(0, 0\) to \(23, 15\)"):
        ReceptiveFieldPicture(network, (2, 2, 0), tmp_path).index(cropped)
    with pytest.raises(ValueError, match="max_size_px is 31; expected at least 32, twice the divisor"):
        ReceptiveFieldPicture(network, (2, 2), tmp_path, max_size_px=31)


@pytest.mark.parametrize("pixel", [(30,), (48, 2)])
def test_pixel_that_no_image_has_ends_the_run_with_an_error(pixel, evaluator, items, network, tmp_path):
    with pytest.raises(ValueError, match=rf"no image has the pixel \({pixel[0]},"):
        evaluator(items, network, [ReceptiveFieldPicture(network, pixel, tmp_path / "out")]).run()


class Pointwise(nn.Module):
    """Output 1 of a pixel sees only that pixel, output 0 nothing. Keeps the sizes that it was given."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape[2:]))
        return torch.cat([0 * x, 2 * x], dim=1)


@pytest.mark.parametrize(
    ("pixel", "columns", "rows"),
    [
        ((0, 0), (0, 16), (0, 10)),
        ((21, 9), (12, 28), (0, 10)),  # 21 - 16 / 2 = 13 is not on the grid
        ((49, 5), (36, 50), (0, 10)),  # the first multiple of 4 that leaves no more than 16
    ],
)
def test_large_images_are_cut_around_the_pixel(tmp_path, pixel, columns, rows):
    network, image = Pointwise(), MetaTensor(torch.rand(1, 50, 10))
    picture = ReceptiveFieldPicture(network, pixel, tmp_path, channel=1, max_size_px=16, divisor=4).figure(image)
    assert network.sizes == [(16, 12)]
    left, right = (axes.images[0] for axes in picture.axes[:2])
    extent = (columns[0] - 0.5, columns[1] - 0.5, rows[1] - 0.5, rows[0] - 0.5)
    assert tuple(left.get_extent()) == tuple(right.get_extent()) == extent
    seen = image[0, slice(*columns), slice(*rows)].numpy().T
    np.testing.assert_allclose(left.get_array(), (seen - seen.min()) / (seen - seen.min()).max(), atol=1e-6)
    (place,) = np.argwhere(right.get_array() == 1)
    assert (place[1] + columns[0], place[0] + rows[0]) == pixel
    assert picture.get_suptitle() == f"image: output 1 at {pixel}"


def test_pictures_of_volumes_and_of_batches(evaluator, tmp_path):
    """One PNG for each image of a batch, named without .nii.gz, with what its figure shows, and no other file."""
    items = []
    for seed, name in enumerate(["v.nii.gz", "w.1.nii"]):
        values = np.random.RandomState(seed).rand(6, 7, 5)
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / name)
        items.append({"image": str(tmp_path / name)})
    network = nn.Conv3d(1, 2, 3, padding=1)
    picture = ReceptiveFieldPicture(network, (1, 2, 3), tmp_path / "out", channel=1, divisor=1)
    engine = evaluator(items, network, [picture], batch_size=2)
    engine.run()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["v_erf.png", "w.1_erf.png"]
    for name, item in zip(["v_erf.png", "w.1_erf.png"], engine.state.batch, strict=True):
        wanted = BytesIO()
        picture.figure(item["image"]).savefig(wanted, dpi=120)
        with Image.open(tmp_path / "out" / name) as png, Image.open(wanted) as other:
            assert png.format == "PNG" and png.width == 11 * 120
            np.testing.assert_array_equal(np.asarray(png), np.asarray(other))
