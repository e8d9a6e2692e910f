"""The average over symmetries against the mean of turned and mirrored images."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer

from bundlekit.inference.symmetries import SymmetryInferer
from unet_ode.nets import UNet


def test_symmetry_average_is_the_mean_over_turned_and_mirrored_images():
    net = UNet(2, 1, 3, channels=(4, 8), padding="same").eval()
    image = torch.rand(1, 1, 12, 20)
    views = []
    for turns in range(4):
        for flip in (False, True):
            view = np.rot90(np.flip(image.numpy(), 3) if flip else image.numpy(), turns, (2, 3))
            output = torch.softmax(net(torch.from_numpy(view.copy())), 1).detach().numpy()
            output = np.rot90(output, -turns, (2, 3))
            views.append(np.flip(output, 3) if flip else output)
    average = torch.softmax(SymmetryInferer(SimpleInferer())(image, net), 1)
    np.testing.assert_allclose(average.detach().numpy(), np.mean(views, 0), atol=1e-6)


def test_symmetry_average_commutes_with_turning():
    net = UNet(2, 1, 2, channels=(4, 8), padding="same").eval()
    image, inferer = torch.rand(1, 1, 8, 12), SymmetryInferer(SimpleInferer())
    turned = inferer(torch.rot90(image, 1, (2, 3)), net)
    torch.testing.assert_close(turned, torch.rot90(inferer(image, net), 1, (2, 3)), rtol=0, atol=1e-5)


def test_symmetries_off_is_the_inferer_alone():
    net = UNet(2, 1, 2, channels=(4, 8), padding="same").eval()
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(SymmetryInferer(SimpleInferer(), enabled=False)(image, net), net(image))


def rows_and_columns(image: torch.Tensor) -> torch.Tensor:
    """Two channels that tell where a pixel is, whatever the image holds: a function of the row, one of the column."""
    row = torch.linspace(-3, 2, image.shape[2])[:, None].expand(image.shape[2:])
    column = torch.linspace(-2, 4, image.shape[3]).expand(image.shape[2:])
    return torch.stack([row, column]).expand(image.shape[0], -1, -1, -1)


def test_flips_average_each_place_with_its_mirror_images():
    """Only the mirrored rows change the row that the network sees, only the mirrored columns its column."""
    p = torch.sigmoid(rows_and_columns(torch.zeros(1, 1, 5, 8)))
    wanted = torch.stack([2 * p[:, 0] + p[:, 0].flip(1), 2 * p[:, 1] + p[:, 1].flip(2)], dim=1) / 3
    inferer = SymmetryInferer(SimpleInferer(), symmetries="flips", sigmoid=True)
    output = inferer(torch.zeros(2, 1, 5, 8), rows_and_columns)
    torch.testing.assert_close(torch.sigmoid(output), wanted.expand(2, -1, -1, -1), rtol=0, atol=1e-6)


def test_flips_of_classes_that_exclude_each_other():
    logits = rows_and_columns(torch.zeros(1, 1, 5, 8))
    row, column = logits[:, :1], logits[:, 1:]
    views = [torch.cat(view, 1) for view in ((row, column), (row.flip(2), column), (row, column.flip(3)))]
    wanted = torch.stack([torch.softmax(view, 1) for view in views]).mean(0)
    output = SymmetryInferer(SimpleInferer(), symmetries="flips")(torch.zeros(1, 1, 5, 8), rows_and_columns)
    torch.testing.assert_close(output.exp(), wanted, rtol=0, atol=1e-6)


def test_square_with_sigmoid_sees_every_row_and_column_from_both_ends():
    """Two of the eight views have a pixel's row as row, two mirrored; four have its column there, as often mirrored."""
    row, column = torch.sigmoid(rows_and_columns(torch.zeros(1, 1, 6, 6)))[0]
    first = (row + row.flip(0) + row.T + row.T.flip(1)) / 4
    second = (column + column.flip(1) + column.T + column.T.flip(0)) / 4
    output = SymmetryInferer(SimpleInferer(), sigmoid=True)(torch.zeros(1, 1, 6, 6), rows_and_columns)
    torch.testing.assert_close(torch.sigmoid(output[0]), torch.stack([first, second]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("symmetries", ["square", "flips"])
def test_sigmoid_of_a_network_without_preferred_places_returns_its_logits(symmetries):
    image = MetaTensor(torch.randn(2, 3, 6, 9), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])))
    output = SymmetryInferer(SimpleInferer(), symmetries=symmetries, sigmoid=True)(image, torch.nn.Identity())
    assert torch.equal(output.affine, image.affine)
    torch.testing.assert_close(output.as_tensor(), image.as_tensor(), rtol=0, atol=1e-5)  # near 1, 1 - p is coarse


def test_certain_probabilities_give_finite_logits():
    image = torch.tensor([-1000.0, 1000.0]).reshape(1, 1, 1, 2)
    output = SymmetryInferer(SimpleInferer(), symmetries="flips", sigmoid=True)(image, torch.nn.Identity())
    assert output.isfinite().all()
    torch.testing.assert_close(torch.sigmoid(output), torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2), rtol=0, atol=2e-7)


def test_other_symmetries_are_refused():
    with pytest.raises(ValueError, match="symmetries is 'cube'; expected one of square, flips"):
        SymmetryInferer(SimpleInferer(), symmetries="cube")


@pytest.mark.parametrize("sigmoid", [False, True])
def test_double_precision_is_kept(sigmoid):
    image = torch.randn(1, 3, 6, 9, dtype=torch.float64)
    output = SymmetryInferer(SimpleInferer(), sigmoid=sigmoid)(image, torch.nn.Identity())
    assert output.dtype == torch.float64
    wanted = image if sigmoid else torch.log_softmax(image, 1)
    torch.testing.assert_close(output, wanted, rtol=0, atol=1e-13)  # 4e5 times as close as float32 could be


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_half_precision_is_averaged_in_single(dtype, rounding, sigmoid):
    """The average is that of the float32 values, rounded once."""
    image = rows_and_columns(torch.zeros(1, 1, 5, 8)).to(dtype)
    inferer = SymmetryInferer(SimpleInferer(), symmetries="flips", sigmoid=sigmoid)
    output, single = inferer(image, torch.nn.Identity()), inferer(image.float(), torch.nn.Identity())
    assert output.dtype == dtype and torch.equal(output, single.to(dtype))
    torch.testing.assert_close(output.float(), single, rtol=rounding, atol=0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_what_is_not_finite_is_not_averaged_away(value, sigmoid):
    image = torch.zeros(1, 2, 4, 4)
    image[0, 1, 2, 3] = value
    assert not SymmetryInferer(SimpleInferer(), sigmoid=sigmoid)(image, torch.nn.Identity()).isfinite().all()
