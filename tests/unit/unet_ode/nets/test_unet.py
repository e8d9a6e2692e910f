"""U-Net: the paper's sizes and parameter count, and the sizes it must refuse."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor

from unet_ode.nets import UNet


def trace_sizes(size: int, depth: int = 4) -> list[int]:
    """The map sizes of figure 1, read off the arrows: each 3x3 convolution loses 2, pooling halves, "up" doubles."""
    sizes = [size]
    for level in range(depth + 1):
        if level:
            assert sizes[-1] % 2 == 0
            sizes.append(sizes[-1] // 2)
        sizes += [sizes[-1] - 2, sizes[-1] - 4]
    for _ in range(depth):
        sizes += [2 * sizes[-1], 2 * sizes[-1] - 2, 2 * sizes[-1] - 4]
    assert min(sizes) > 0
    return sizes


def parameters(in_channels: int, out_channels: int, channels: tuple[int, ...]) -> int:
    """Weights and biases counted from the figure, layer by layer."""
    widths = [in_channels, *channels]
    count = sum(9 * a * b + b + 9 * b * b + b for a, b in zip(widths, channels, strict=False))
    for small, large in itertools.pairwise(channels):
        count += 4 * large * small + small  # transposed convolution
        count += 9 * 2 * small * small + small + 9 * small * small + small
    return count + channels[0] * out_channels + out_channels


def test_parameter_count_is_the_paper_s():
    count = sum(p.numel() for p in UNet(2, 3, 2).parameters())
    assert count == parameters(3, 2, (64, 128, 256, 512, 1024)) == 31_031_810


def test_size_table_of_figure_1():
    printed = [572, 570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28]
    printed += [56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388]
    assert trace_sizes(572) == printed
    net = UNet(2, 1, 2, channels=(1, 1, 1, 1, 1)).eval()
    seen = [572]
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)) and module is not net.head:
            module.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-1]))
    net.pool.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-1]))
    with torch.no_grad():
        assert net(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert seen == printed


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_valid_sizes_are_those_that_the_arrows_allow(depth):
    net = UNet(2, 1, 1, channels=(1,) * (depth + 1)).eval()
    fitting = []
    for size in range(1, 260):
        try:
            fitting.append((size, trace_sizes(size, depth)[-1]))
        except AssertionError:
            continue
    assert [net.valid_size(size) for size, _ in fitting] == [size for size, _ in fitting]
    assert {net.valid_size(size) for size in range(1, fitting[-1][0] + 1)} == {size for size, _ in fitting}
    assert {size - out for size, out in fitting} == {2 * net.margin}


def test_wrong_size_names_the_nearest_sizes_that_fit():
    with pytest.raises(ValueError, match=r"512 voxels along axis 2; .* 508 and 524: crop to 508 or pad to 524"):
        UNet(2, 1, 2, channels=(1, 1, 1, 1, 1))(torch.zeros(1, 1, 512, 572))
    with pytest.raises(ValueError, match=r"30 voxels along axis 3.*16 and 32: crop to 16 or pad to 32"):
        UNet(2, 1, 2, channels=(1, 1, 1, 1, 1), padding="same")(torch.zeros(1, 1, 32, 30))
    with pytest.raises(ValueError, match=r"10 voxels along axis 2; the smallest size that fits is 188: pad to 188"):
        UNet(2, 1, 2, channels=(1, 1, 1, 1, 1))(torch.zeros(1, 1, 10, 10))


def test_instance_norm_needs_two_elements_at_the_bottom():
    net = UNet(2, 1, 2, channels=(2, 4, 8), padding="same", norm="instance")
    assert net.valid_size(1) == 8 and net(torch.zeros(1, 1, 8, 8)).shape == (1, 2, 8, 8)
    with pytest.raises(ValueError, match=r"4 voxels along axis 2; the smallest size that fits is 8: pad to 8"):
        net(torch.zeros(1, 1, 4, 8))


def test_forward_is_the_paper_s_computation():
    """The same weights through plain functional calls: convolution-ReLU twice, pool, up, crop, concatenate."""
    net = UNet(2, 2, 3, channels=(4, 8, 16)).double().eval()
    weights = net.state_dict()
    image = torch.rand(2, 2, 52, 60, dtype=torch.float64)

    def double(x, name):
        for i in (1, 2):
            x = F.relu(F.conv2d(x, weights[f"{name}.conv{i}.weight"], weights[f"{name}.conv{i}.bias"]))
        return x

    first = double(image, "down.0")
    second = double(F.max_pool2d(first, 2), "down.1")
    x = double(F.max_pool2d(second, 2), "down.2")
    for i, skip in enumerate((second, first)):
        x = F.conv_transpose2d(x, weights[f"up.{i}.weight"], weights[f"up.{i}.bias"], stride=2)
        top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
        x = double(torch.cat([skip[:, :, top : top + x.shape[2], left : left + x.shape[3]], x], 1), f"merge.{i}")
    expected = F.conv2d(x, weights["head.weight"], weights["head.bias"])
    torch.testing.assert_close(net(image), expected, rtol=0, atol=1e-12)  # the same operations in the same order


def test_initial_weights_are_he_normal():
    weights = UNet(2, 1, 2, channels=(64, 256)).down[1].conv2.weight
    # std sqrt(2 / fan_in) (section 3); the sample of 590 k weights has a standard error of 0.1 %
    assert weights.std().item() == pytest.approx(np.sqrt(2 / (256 * 9)), rel=5e-3)


def test_same_padding_keeps_the_size_in_3d_and_norm_replaces_the_bias():
    net = UNet(3, 1, 2, channels=(2, 4, 8), padding="same", norm="batch")
    assert net(torch.zeros(2, 1, 8, 12, 16)).shape == (2, 2, 8, 12, 16)
    assert net.down[0].conv1.bias is None and net.margin == 0


def test_dropout_acts_at_the_end_of_the_contracting_path_only():
    net = UNet(2, 1, 2, channels=(2, 4, 8, 16), dropout=0.5)
    holders = [name for name, m in net.named_modules() if isinstance(m, torch.nn.Dropout2d)]
    assert holders and {name.rsplit(".", 2)[0] for name in holders} == {"down.2", "down.3"}


@pytest.mark.parametrize("padding, sizes", [("valid", [(44, 44), (60, 48)]), ("same", [(16, 8), (20, 32)])])
def test_script_equals_eager_on_other_sizes_and_batches(padding, sizes):
    net = UNet(2, 1, 2, channels=(4, 8, 16), padding=padding, norm="batch").eval()
    scripted = torch.jit.script(net)
    for batch, size in enumerate(sizes, start=1):
        image = torch.rand(batch, 1, *size)
        torch.testing.assert_close(scripted(image), net(image))


def test_onnx_with_dynamic_axes_equals_eager(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    net = UNet(2, 1, 2, channels=(4, 8), padding="same", norm="batch").eval()
    axes = {"image": {0: "n", 2: "h", 3: "w"}}
    torch.onnx.export(
        net, (torch.rand(1, 1, 8, 8),), tmp_path / "net.onnx", input_names=["image"], dynamic_axes=axes, dynamo=False
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    image = torch.rand(3, 1, 12, 10)
    (output,) = session.run(None, {"image": image.numpy()})
    np.testing.assert_allclose(output, net(image).detach().numpy(), atol=1e-5)  # float32, other order of sums


def test_metatensor_is_accepted():
    net = UNet(2, 1, 2, channels=(4, 8), padding="same").eval()
    image = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(torch.Tensor(net(MetaTensor(image))), net(image))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"spatial_dims": 1}, "spatial_dims is 1; expected 2 or 3"),
        ({"padding": "full"}, "padding is 'full'; expected 'valid' or 'same'"),
        ({"channels": (8,)}, r"channels is \(8,\); expected at least two levels"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(**{"spatial_dims": 2, "in_channels": 1, "out_channels": 2, **arguments})
