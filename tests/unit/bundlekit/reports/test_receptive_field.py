"""Effective receptive fields against kernels that are known, copies that are counted, and plain autograd."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn
from torch.autograd.functional import jacobian
from torch.nn import functional

from bundlekit.reports.receptive_field import (
    check_pixel,
    draw_receptive_field,
    effective_receptive_field,
    radius_of_share,
)
from unet_ode.nets import UNet, UNode


@pytest.mark.parametrize(("pixel", "kernel_part", "image_part"), [
    ((3, 4), np.s_[:, :], np.s_[2:5, 3:6]),
    ((0, 6), np.s_[1:, :2], np.s_[0:2, 5:7]),  # a corner: the rest of the kernel lies in the zero padding
])  # fmt: skip
def test_one_convolution_gives_its_kernel(pixel, kernel_part, image_part):
    """out[p] = sum_d kernel[d] image[p + d - 1], hence the field around p is |kernel|, summed over the channels."""
    conv = nn.Conv2d(2, 3, 3, padding=1).double()
    kernel = conv.weight.detach().abs().sum(1)[1].numpy()
    wanted = np.zeros((6, 7))
    wanted[image_part] = kernel[kernel_part]
    field = effective_receptive_field(conv, torch.rand(1, 2, 6, 7).double(), pixel, channel=1, divisor=1)
    np.testing.assert_allclose(field.numpy(), wanted, rtol=1e-12)


def test_convolutions_in_space_equal_the_jacobian():
    net = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 2, 3, padding=1)).double()
    image = torch.rand(1, 2, 4, 5, 6).double()
    wanted = jacobian(net, image)[0, 1, 2, 0, 5].abs().sum((0, 1))
    field = effective_receptive_field(net, image, (2, 0, 5), channel=1, divisor=1)
    torch.testing.assert_close(field, wanted, rtol=1e-10, atol=0)  # float64; the sums' order may differ


class Mean(nn.Module):
    """Everywhere the mean of what it gets, so that a voxel's gradient tells how often the network got it."""

    def forward(self, x):
        return x.mean((2, 3), keepdim=True).expand_as(x)


@pytest.mark.parametrize(
    ("shape", "divisor", "copies", "padded_size"),
    [
        ((2, 5), 4, ([2, 2], [1, 2, 2, 2, 1]), 4 * 8),  # rows 0101, columns 01234321
        ((4, 2), 4, ([2, 3, 2, 1], [4, 4]), 8 * 8),  # 4 x 4 is one voxel at the deepest level; 01232101, 01010101
        ((1, 3), 1, ([1], [1, 1, 1]), 3),
    ],
)
def test_gradient_includes_the_reflections(shape, divisor, copies, padded_size):
    field = effective_receptive_field(Mean(), torch.rand(1, 1, *shape), (0, 1), divisor=divisor)
    np.testing.assert_allclose(field.numpy(), np.outer(*copies) / padded_size, rtol=1e-6)  # float32


def test_unode_on_an_odd_size_equals_plain_autograd():
    net = UNode(2, 3, 2, channels=(4, 8, 8), gradient="backprop").double()
    image = torch.rand(1, 3, 13, 18).double().requires_grad_()
    net(functional.pad(image, (0, 2, 0, 3), mode="reflect"))[0, 1, 12, 7].backward()
    net.zero_grad()
    other = UNode(2, 3, 2, channels=(4, 8, 8)).double()
    other.load_state_dict(net.state_dict())
    field = effective_receptive_field(other, MetaTensor(image.detach()), (12, 7), channel=1, divisor=4)
    assert type(field) is torch.Tensor
    # two orders of the same sums of steps, in float64
    torch.testing.assert_close(field, image.grad[0].abs().sum(0), rtol=1e-7, atol=1e-12)


def test_network_and_image_stay_as_they_were():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Conv2d(2, 1, 3, padding=1)
    )
    net[1].eval()
    net[0].weight.grad = torch.full_like(net[0].weight, 7.0)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    image = torch.rand(1, 1, 6, 6)
    fields = [effective_receptive_field(net, image, (2, 3), divisor=1) for _ in range(2)]
    assert torch.equal(*fields)  # no dropout
    assert [module.training for module in net] == [True, False, True, True] and net.training
    assert bool((net[0].weight.grad == 7).all()) and all(p.grad is None for p in [net[0].bias, *net[3].parameters()])
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not image.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_callers_without_gradients(context):
    net = UNode(2, 1, 1, channels=(2, 4))
    image = torch.rand(1, 1, 6, 8)
    wanted = effective_receptive_field(net, image, (2, 3), divisor=2)
    with context():
        field = effective_receptive_field(net, image * 1, (2, 3), divisor=2)
    assert torch.equal(field, wanted) and bool((field > 0).any())


def test_modes_return_after_an_error():
    net = nn.Conv2d(1, 1, 3)
    with pytest.raises(ValueError, match=r"returned \(6, 6\) for an image of \(8, 8\); expected the same size"):
        effective_receptive_field(net, torch.rand(1, 1, 8, 8), (0, 0), divisor=8 // 2)
    assert net.training


@pytest.mark.parametrize(
    ("image", "pixel", "channel", "message"),
    [
        (torch.rand(2, 1, 8, 8), (0, 0), 0, r"image has shape \(2, 1, 8, 8\); expected \(1, C, \*spatial\)"),
        (torch.rand(1, 1, 8, 9), (7, 9), 0, r"pixel is \(7, 9\); expected an index from \(0, 0\) to \(7, 8\)"),
        (torch.rand(1, 1, 8, 9), (-1, 0), 0, r"pixel is \(-1, 0\); expected an index"),
        (torch.rand(1, 1, 8, 9), (1, 1, 1), 0, r"pixel is \(1, 1, 1\); expected an index from \(0, 0\)"),
        (torch.rand(1, 1, 8, 9), (1, 1), 2, "channel is 2; expected 0 to 1"),
        (torch.rand(1, 1, 8, 9), (1, 1), -1, "channel is -1; expected 0 to 1"),
    ],
)
def test_impossible_requests_are_refused(image, pixel, channel, message):
    net = UNet(2, 1, 2, channels=(2, 4), padding="same")
    with pytest.raises(ValueError, match=message):
        effective_receptive_field(net, image, pixel, channel, divisor=2)


def test_check_pixel_names_what_it_checks():
    with pytest.raises(ValueError, match=r"^a\.png: pixel is \(4,\); expected an index from \(0,\) to \(3,\)$"):
        check_pixel([4], [4], "a.png: pixel")


@pytest.mark.parametrize(("share", "radius"), [
    (1 / 29, 0), (2 / 29, 1), (5 / 29, 1), (6 / 29, 2**0.5), (9 / 29, 2**0.5), (10 / 29, 2), (13 / 29, 2),
    (21 / 29, 5**0.5), (25 / 29, 8**0.5), (29 / 29, 3),
])  # fmt: skip
def test_radius_counts_the_grid_points_of_a_disc(share, radius):
    """The squares of the distances 0, 1, 2, 4, 5, 8, 9 occur 1, 4, 4, 4, 8, 4, 4 times: 29 points in all."""
    x, y = torch.meshgrid(torch.arange(9) - 5, torch.arange(8) - 3, indexing="ij")
    disc = 0.25 * (x**2 + y**2 <= 9)  # exact in any order of summing
    assert radius_of_share(disc, (5, 3), share - 1e-9) == pytest.approx(radius, abs=1e-6)


def test_radius_is_of_a_ball_and_not_of_what_lies_elsewhere():
    field = torch.zeros(5, 6, 7)
    field[0, 4, 6] = 1.0
    assert radius_of_share(field, (2, 4, 0)) == pytest.approx(40**0.5)
    assert radius_of_share(torch.zeros(3, 3), (1, 1)) == 0.0


def panels(figure):
    """(what is shown, from where it starts, its extent, cross, the circles' radii) of the image and of the field."""
    for axes in figure.axes[:2]:
        shown = axes.images[0]
        cross = tuple(float(values[0]) for values in axes.lines[0].get_data())
        yield (
            np.asarray(shown.get_array()),
            shown.origin,
            tuple(shown.get_extent()),
            cross,
            {p.radius for p in axes.patches},
        )


def test_picture_shows_columns_rightwards_and_the_field_as_part_of_its_maximum():
    image, field = torch.rand(3, 20, 10), torch.zeros(20, 10)
    field[4, 2:7] = torch.tensor([2.0, 2.0, 2.0, 2.0, 4.0])
    (left, *left_rest), (right, *right_rest) = panels(draw_receptive_field(image, field, (4, 4), start=(100, 50)))
    low, high = image.min(), image.max()
    np.testing.assert_allclose(left, ((image - low) / (high - low)).permute(2, 1, 0), atol=1e-6)
    wanted = np.full((10, 20), 1e-3)  # the darkest colour, as zero has no logarithm
    wanted[2:7, 4] = [0.5, 0.5, 0.5, 0.5, 1.0]
    np.testing.assert_allclose(right, wanted, rtol=1e-6)
    # half of the sum, 6 of 12, is reached at one pixel's distance (2 + 2 + 2)
    assert left_rest == right_rest == ["upper", (99.5, 119.5, 59.5, 49.5), (104.0, 54.0), {1.0, 2.0}]


def test_picture_of_a_volume_is_the_slice_through_the_pixel():
    image, field = torch.rand(2, 6, 8, 4), torch.rand(6, 8, 4)
    field[0, 0, 0] = 2.0  # the maximum lies in another slice
    (left, *rest, _), (right, *_) = panels(draw_receptive_field(image, field, (1, 5, 3)))
    image = (image[..., 3] - image[..., 3].min()) / (image[..., 3].max() - image[..., 3].min())
    np.testing.assert_allclose(left, image.mean(0).T, atol=1e-6)
    np.testing.assert_allclose(right, np.maximum(field[..., 3].T.numpy() / 2, 1e-3), rtol=1e-6)
    assert rest == ["lower", (-0.5, 5.5, -0.5, 7.5), (1.0, 5.0)]


def test_picture_without_any_gradient_or_contrast():
    figure = draw_receptive_field(torch.ones(1, 4, 4), torch.zeros(4, 4), (1, 2))
    (left, *_), (right, *_) = panels(figure)
    assert (left == 0).all() and (right == 1e-3).all()
