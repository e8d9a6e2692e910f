"""Counts of evaluations against the field's calls, and pictures against images whose bright pixel is known."""

import copy
import json
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.transforms import (
    CastToTyped,
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

from unet_ode.handlers import ReceptiveFieldPicture, SolverReport
from unet_ode.inferers import OverlapTileInferer, SymmetryInferer
from unet_ode.nets import UNet, UNode
from unet_ode.ode import ODEBlock

SIZES = {"a.png": (24, 16), "b.c.png": (48, 16)}  # width, height


@pytest.fixture
def items(tmp_path):
    """Smooth and rough pictures: they take different numbers of evaluations."""
    values = np.random.RandomState(0)
    for name, (width, height) in SIZES.items():
        picture = values.randint(0, 256, (height, width, 3)).astype(np.uint8)
        picture[:, : width // 2] = 128
        Image.fromarray(picture).save(tmp_path / name)
    return [{"image": str(tmp_path / name)} for name in SIZES]


def evaluator(items, network, handlers, inferer=None, batch_size=1, transforms=()):
    load = [LoadImaged("image", ensure_channel_first=True), ScaleIntensityd("image"), *transforms]
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, Compose(load)), batch_size=batch_size),
        network=network,
        inferer=inferer,
        val_handlers=handlers,
    )


def num_hooks(network):
    return sum(len(module._forward_hooks) for module in network.modules())


class Recording(SimpleInferer):
    """Keeps every sample that the network gets, image by image."""

    def __init__(self, inferer):
        super().__init__()
        self.inferer = inferer
        self.samples = []

    def __call__(self, inputs, network, *args, **kwargs):
        self.samples.append([])

        def record(x):
            self.samples[-1].extend(x)
            return network(x)

        return self.inferer(inputs, record)


@torch.no_grad()
def count_field_calls(network, samples):
    """(blocks, samples): how often each block called its field for each sample, one sample at a time."""
    calls = []

    def count(field, inputs, output):
        calls[-1][field.block_name] += 1

    network = copy.deepcopy(network).eval()
    blocks = [module for module in network.modules() if isinstance(module, ODEBlock)]
    for block in blocks:
        block.func.block_name = block.name
        block.func.register_forward_hook(count)
    for sample in samples:
        calls.append(dict.fromkeys((block.name for block in blocks), 0))
        network(sample[None])
    return {block.name: [call[block.name] for call in calls] for block in blocks}


@pytest.fixture
def network():
    return UNode(2, 3, 2, channels=(4, 8))


def test_report_counts_every_tile_and_view(items, network, tmp_path):
    """And not the pass of the picture, although its handler comes first."""
    tiles = OverlapTileInferer(tile_size=16, margin=4, batch_size=2, divisor=2)
    inferer = Recording(SymmetryInferer(tiles, symmetries="flips", sigmoid=True))
    handlers = [ReceptiveFieldPicture(network, (3, 5), tmp_path / "out"), SolverReport(network, tmp_path / "out")]
    # in float64, as a sample's steps must not hang on the rounding that its batch brings
    evaluator(items, network.double(), handlers, inferer, transforms=[CastToTyped("image", torch.float64)]).run()
    report = json.loads((tmp_path / "out/nfe.json").read_text())
    assert list(report) == ["images", "mean"] and len(report["images"]) == len(inferer.samples) == 2
    different = 0
    for row, name, samples, num in zip(report["images"], SIZES, inferer.samples, (2 * 3, 3 * 3), strict=True):
        calls = count_field_calls(network, samples)
        assert row["image"] == name and list(row["nfe"]) == ["down1", "embedding", "up1"] == list(calls)
        for block, counts in calls.items():
            # tiles of a picture times views; the calls are whole numbers, so that only the mean is rounded
            assert row["num_samples"][block] == len(counts) == num
            assert row["nfe"][block] == pytest.approx(np.mean(counts), rel=1e-12)
            assert (row["nfe_min"][block], row["nfe_max"][block]) == (min(counts), max(counts))
            different += min(counts) < max(counts)
        assert row["total"] == pytest.approx(sum(map(np.mean, calls.values())), rel=1e-12)
    assert different > 0, "all samples took the same: the test would not notice mixed counts"
    a, b = report["images"]
    assert report["mean"] == pytest.approx(
        {block: (a["nfe"][block] + b["nfe"][block]) / 2 for block in a["nfe"]}
        | {"total": (a["total"] + b["total"]) / 2}
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"nfe.json", "a_erf.png", "b.c_erf.png"}


def test_report_of_equal_steps_is_known_beforehand(items, tmp_path, capsys):
    """Two steps of rk4 are 8 evaluations, in each of three blocks; the second run does not add to the first."""
    network = UNode(2, 3, 2, channels=(4, 8), method="rk4", num_steps=2)
    engine = evaluator(items, nn.DataParallel(network), [SolverReport(nn.DataParallel(network), tmp_path)])
    for _ in range(2):
        engine.run()
        assert num_hooks(network) == 0
    assert capsys.readouterr().out == 2 * (
        "NFE      down1  embedding  up1  total\n"
        "a.png      8.0        8.0  8.0   24.0\n"
        "b.c.png    8.0        8.0  8.0   24.0\n"
        "mean       8.0        8.0  8.0   24.0\n"
    )
    report = json.loads((tmp_path / "nfe.json").read_text())
    assert report["mean"] == {"down1": 8, "embedding": 8, "up1": 8, "total": 24} and len(report["images"]) == 2


def test_hooks_go_and_the_error_comes_through(items, network, tmp_path):
    engine = evaluator(items, network, [SolverReport(network, tmp_path / "out")], transforms=[SpatialPadd("image", 25)])
    running = []
    engine.add_event_handler(Events.ITERATION_STARTED, lambda: running.append(num_hooks(network)))
    with pytest.raises(ValueError, match="the network got 25 voxels along axis 2"):
        engine.run()
    assert (running, num_hooks(network), (tmp_path / "out").exists()) == ([3], 0, False)


def test_what_cannot_be_reported_is_refused(items, network, tmp_path):
    with pytest.raises(ValueError, match="got a UNet without ODE blocks; expected a network such as UNode: disable"):
        SolverReport(UNet(2, 1, 2, channels=(2, 4)), tmp_path)
    blocks = nn.Sequential(*(ODEBlock(nn.Identity(), name="same") for _ in range(2)))
    with pytest.raises(ValueError, match="called same, same; expected names that differ"):
        SolverReport(blocks, tmp_path)
    engine = evaluator([items[0], items[0]], network, [SolverReport(network, tmp_path)], batch_size=2)
    with pytest.raises(ValueError, match=r"the batch holds 2 images; expected 1.*set the dataloader's batch_size to 1"):
        engine.run()
    engine = evaluator(items, network, [SolverReport(copy.deepcopy(network), tmp_path)])
    with pytest.raises(RuntimeError, match=r"a\.png: no pass through the ODE blocks down1, embedding, up1; expected"):
        engine.run()


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


def test_pixel_outside_the_file_or_its_crop_is_refused(items, network, tmp_path, capsys):
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


class Pointwise(nn.Module):
    """Output 1 of a pixel sees that pixel alone, output 0 nothing. Keeps the sizes that it was given."""

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


def test_pictures_of_volumes_and_of_batches(tmp_path):
    """One PNG for each image of a batch, named without .nii.gz, with what its figure shows, and no file besides."""
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
