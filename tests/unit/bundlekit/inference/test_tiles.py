"""Overlap tiles against one pass over the whole image."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundlekit.inference.tiles import OverlapTileInferer
from unet_ode.nets import UNet, VGGUNet


def whole_image(net: UNet, image: torch.Tensor) -> torch.Tensor:
    """Mirror the image by the margin, and on the right as far as the network's sizes need, and predict it at once."""
    pads = [(0, 0), (0, 0)]
    for side in image.shape[2:]:
        pads.append((net.margin, net.valid_size(side + 2 * net.margin) - side - net.margin))
    padded = torch.from_numpy(np.pad(image.numpy(), pads, mode="reflect"))
    return net(padded)[:, :, : image.shape[2], : image.shape[3]]


@pytest.fixture
def net():
    return UNet(2, 1, 2, channels=(4, 8, 8, 8, 8)).eval()


@torch.no_grad()
@pytest.mark.parametrize("shape", [(70, 131), (20, 52), (33, 200), (1, 4), (5, 40)])
@pytest.mark.parametrize("tile_size", [52, (36, 84)])
def test_tiles_equal_one_pass_of_a_valid_unet(net, shape, tile_size):
    image = torch.rand(2, 1, *shape)
    tiled = OverlapTileInferer(tile_size, net.margin, batch_size=3)(image, net)
    torch.testing.assert_close(tiled, whole_image(net, image), rtol=0, atol=1e-5)


@torch.no_grad()
def test_result_does_not_depend_on_the_batch_size(net):
    image = torch.rand(2, 1, 90, 70)
    one, many = (OverlapTileInferer(36, net.margin, batch_size=n)(image, net) for n in (1, 7))
    torch.testing.assert_close(one, many, rtol=0, atol=1e-6)  # float32 sums in another order


@torch.no_grad()
def test_same_padding_with_enough_margin_equals_the_middle_of_a_wider_pass():
    net = UNet(2, 1, 2, channels=(4, 8), padding="same").eval()
    image = torch.rand(1, 1, 40, 40)
    # the receptive field of two levels reaches 8 pixels; zero padding beyond a margin of 8 is not seen
    padded = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), (8, 8), (8, 8)], mode="reflect"))
    whole = net(padded)[:, :, 8:-8, 8:-8]
    tiled = OverlapTileInferer(16, margin=8, divisor=2)(image, net)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_network_that_crops_is_told_the_margin_and_gives_the_same():
    net = VGGUNet(width=1 / 16).eval()
    image = torch.rand(1, 3, 70, 130)
    plain, crops = (OverlapTileInferer(64, 32, divisor=32, network_crops=on)(image, net) for on in (False, True))
    torch.testing.assert_close(crops, plain, rtol=0, atol=1e-5)

    def network(tiles: torch.Tensor, margin: int) -> torch.Tensor:
        assert margin == 32 and tiles.shape[2:] == (64 + 64, 64 + 64)
        return tiles[..., margin:-margin, margin:-margin]

    assert torch.equal(
        OverlapTileInferer(64, 32, network_crops=True)(image[..., :64, :64], network), image[..., :64, :64]
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (17, 16)])
def test_any_size_comes_back_with_identity(shape):
    image = torch.rand(1, 2, *shape)
    assert torch.equal(OverlapTileInferer(16, margin=20, divisor=4)(image, torch.nn.Identity()), image)


@pytest.mark.parametrize(
    ("size", "tile_size", "seen"),
    [
        (640, 512, [320 + 128] * 2),  # 512 and 128 would be of two sizes, 512 and 512 twice the image
        (1280, 512, [432 + 128] * 3),
        (1024, 512, [512 + 128] * 2),
        (100, 512, [112 + 128]),
        (1040, 500, [352 + 4 + 128] * 3),  # 500 is 4 more than a multiple of 16
    ],
)
def test_tiles_are_few_and_no_larger_than_needed(size, tile_size, seen):
    sides = []

    def network(tile: torch.Tensor) -> torch.Tensor:
        sides.append(tile.shape[2])
        return tile

    OverlapTileInferer(tile_size, margin=64)(torch.zeros(1, 1, size, 16), network)
    assert sides == seen


def test_volumes_and_metatensors():
    volume = MetaTensor(torch.rand(1, 1, 9, 10, 11), affine=torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0])))
    output = OverlapTileInferer(4, margin=1, divisor=2)(volume, torch.nn.Identity())
    assert torch.equal(output.as_tensor(), volume.as_tensor()) and torch.equal(output.affine, volume.affine)


class SeveralOutputs(torch.nn.Module):
    """A local network with outputs of four sizes: each is what one pass over the whole image gives, tiled or not."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.blur = torch.nn.Conv2d(1, 3, 3, padding=1, bias=False)

    def forward(self, image: torch.Tensor, margin: int = 0) -> object:
        if margin:
            image = image[..., margin - 4 : 4 - margin, margin - 4 : 4 - margin]
        blurred = self.blur(image)
        blurred = blurred[..., 4:-4, 4:-4] if margin else blurred
        half = torch.nn.functional.avg_pool2d(blurred, 2)
        parts = {
            "half": half,
            "mask": blurred,
            "quarter": half[..., ::2, ::2],
            "double": blurred.repeat_interleave(2, 3),
        }
        parts["double"] = parts["double"].repeat_interleave(2, 2)
        return parts if self.layout == "dict" else (tuple if self.layout == "tuple" else list)(parts.values())


@torch.no_grad()
@pytest.mark.parametrize("layout", ["dict", "tuple", "list"])
@pytest.mark.parametrize(("crops", "tile_size", "margin"), [(False, 8, 4), (False, 16, 8), (True, 16, 8)])
def test_several_outputs_of_several_sizes(layout, crops, tile_size, margin):
    """With 16 and 8 the half of a whole tile is as large as a tile without its margin."""
    net = SeveralOutputs(layout).eval()
    image = torch.rand(2, 1, 20, 36)
    padded = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), (8, 8), (8, 8)], mode="reflect"))
    inferer = OverlapTileInferer(tile_size, margin, batch_size=3, divisor=4, network_crops=crops)
    tiled, whole = inferer(image, net), net(padded)
    assert type(tiled) is (dict if layout == "dict" else tuple)
    keys = ["half", "mask", "quarter", "double"]
    tiled, whole = (value if layout == "dict" else dict(zip(keys, value, strict=True)) for value in (tiled, whole))
    for key, pixels in zip(keys, (4, 8, 2, 16), strict=True):  # of 8 of the image's
        wanted = whole[key][..., pixels:-pixels, pixels:-pixels]
        torch.testing.assert_close(tiled[key], wanted, rtol=0, atol=1e-6)


def test_metadata_of_several_outputs():
    image = MetaTensor(torch.rand(1, 1, 8, 8), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])))
    inferer = OverlapTileInferer(4, margin=4, divisor=4)
    full, half = inferer(image, lambda tile: (tile, tile[..., ::2, ::2]))
    assert torch.equal(full.affine, image.affine) and torch.equal(full.as_tensor(), image.as_tensor())
    assert not isinstance(half, MetaTensor) and torch.equal(half, image.as_tensor()[..., ::2, ::2])
    assert isinstance(inferer(image, lambda tile: [tile]), MetaTensor)  # as MONAI's sliding window returns one output


@pytest.mark.parametrize(
    ("size", "network", "message"),
    [
        (
            32,
            lambda tile: (tile, tile[..., :-1, :-1]),
            r"returned \(23, 23\) for \(24, 24\); expected multiples or whole",
        ),
        (32, lambda tile: {"a": tile[..., ::2, ::2]}, r"returned \(12, 12\) for tiles of \(24, 24\).*set margin"),
        (
            30,
            lambda tile: (tile, tile[..., ::4, ::4]),
            r"1/4 of the image's size, .* for \(30, 30\); expected an image",
        ),
        (32, lambda tile: (tile, tile[..., ::8, ::8]), r"1/8 of the image's size, .* for \(4, 4\); expected an image"),
        (32, lambda tile: (tile, None), "the network returned a tuple; expected a tensor, or several of them"),
        (32, lambda tile: (), "the network returned a tuple; expected a tensor, or several of them"),
    ],
)
def test_outputs_that_do_not_fit_the_image(size, network, message):
    with pytest.raises(ValueError, match=message):
        OverlapTileInferer(16, margin=4, divisor=4)(torch.rand(1, 1, size, size), network)


def test_wrong_margin_is_named(net):
    with pytest.raises(ValueError, match=r"the network returned \(52, 52\) for tiles of \(236, 236\).*set margin"):
        OverlapTileInferer(52 + 2 * net.margin - 2 * 10, margin=10)(torch.rand(1, 1, 200, 200), net)


def test_wrong_tiles_are_named():
    with pytest.raises(ValueError, match="tile_size is 15; expected at least the divisor, 16"):
        OverlapTileInferer(15, 4)
    with pytest.raises(ValueError, match="margin is -3; expected 0 or more"):
        OverlapTileInferer(64, -3)


@pytest.mark.parametrize(("progress", "size", "shown"), [(True, 96, True), (True, 32, False), (False, 96, False)])
def test_progress_over_several_tiles(capsys, progress, size, shown):
    OverlapTileInferer(32, 8, divisor=8, progress=progress)(torch.rand(1, 1, size, size), torch.nn.Identity())
    bar = capsys.readouterr().err
    assert ("tiles:" in bar and "/9" in bar) if shown else bar == ""
