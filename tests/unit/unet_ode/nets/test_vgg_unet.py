"""VGG-16 in a U-Net: 27 convolutions, freezing, sizes, exports."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import nn

from unet_ode.nets import VGGUNet

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
"""Configuration D of Simonyan and Zisserman: widths of the convolutions, M a pooling."""
CONVS_BN = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)  # their places in the published vgg16_bn


@pytest.mark.parametrize("batch_norm", [True, False])
def test_27_convolutions_and_the_parameters_counted_by_hand(batch_norm):
    network = VGGUNet(batch_norm=batch_norm)
    layers = list(network.modules())
    assert sum(isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) for layer in layers) == 27
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == (27 if batch_norm else 0)
    norm = 2 if batch_norm else 0  # a scale and a shift for each channel
    widths = [3, *(out for out in VGG16 if out != "M"), 512, 512, 512, 512]
    count = sum(9 * a * b + b + norm * b for a, b in itertools.pairwise(widths))
    below = 512
    for out in (512, 512, 256, 128, 64):
        count += 4 * below * out + out  # transposed convolution
        count += 9 * 2 * out * out + out + 9 * out * out + out + 2 * norm * out
        below = out
    assert sum(p.numel() for p in network.parameters()) == count + 64 + 1


def test_forward_is_vgg_with_skips():
    """The same weights through plain functional calls: what goes into a pooling is concatenated on the way back."""
    network = VGGUNet(width=1 / 16).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that are not the initial 0 and 1
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    weights = network.state_dict()
    image = torch.rand(2, 3, 64, 32, dtype=torch.float64)

    def unit(x: torch.Tensor, name: str, place: int) -> torch.Tensor:
        x = F.conv2d(x, weights[f"{name}.{place}.weight"], weights[f"{name}.{place}.bias"], padding=1)
        mean, var, scale, shift = (
            weights[f"{name}.{place + 1}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu((x - mean) / torch.sqrt(var + 1e-5) * scale + shift)

    x, skips, places = image, [], iter(CONVS_BN)
    for out in VGG16:
        if out == "M":
            skips.append(x)
            x = F.max_pool2d(x, 2)
        else:
            x = unit(x, "features", next(places))
    for place in (0, 3, 6, 9):
        x = unit(x, "bottom", place)
    for i, skip in enumerate(reversed(skips)):
        x = F.conv_transpose2d(x, weights[f"up.{i}.weight"], weights[f"up.{i}.bias"], stride=2)
        x = torch.cat([skip, x], dim=1)
        for place in (0, 3):
            x = unit(x, f"merge.{i}", place)
    expected = F.conv2d(x, weights["head.weight"], weights["head.bias"])
    torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-10)  # 27 layers in float64


@pytest.mark.parametrize("freeze", [True, False])
def test_a_frozen_encoder_keeps_its_weights_and_statistics(freeze):
    network = VGGUNet(width=1 / 16, freeze_encoder=freeze).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(torch.rand(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {name for name in before if name.startswith("features") and "running" in name}
    encoder = {name for name in changed if name.startswith("features")}
    assert encoder == set() if freeze else statistics <= encoder
    assert changed >= {"bottom.0.weight", "up.4.weight", "merge.4.0.weight", "head.weight"}
    assert not network.eval().training and not network.features.training


def test_wrong_size_names_the_nearest_sizes_that_fit():
    network = VGGUNet(width=1 / 64)
    with pytest.raises(ValueError, match=r"100 voxels along axis 3; the nearest sizes that fit are 96 and 128"):
        network(torch.zeros(1, 3, 64, 100))
    with pytest.raises(ValueError, match=r"20 voxels along axis 2; the smallest size that fits is 32: pad to 32"):
        network(torch.zeros(1, 3, 20, 64))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"spatial_dims": 1}, "spatial_dims is 1; expected 2 or 3"),
        ({"width": 0.005}, "width is 0.005; expected at least 1 / 64"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        VGGUNet(**arguments)


def test_volumes_and_metatensors():
    network = VGGUNet(3, 1, 2, width=1 / 32).eval()
    volume = torch.rand(1, 1, 32, 32, 64)
    torch.testing.assert_close(torch.Tensor(network(MetaTensor(volume))), network(volume))
    assert network(volume).shape == (1, 2, 32, 32, 64)


@torch.no_grad()
@pytest.mark.parametrize("margin", [1, 2, 3, 17, 32, 45, 63, 79])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_middle_alone_equals_the_middle_of_the_whole(margin, memory_format):
    network = VGGUNet(width=1 / 16).double().eval().to(memory_format=memory_format)
    scripted = torch.jit.script(network)
    image = torch.rand(2, 3, 160, 192, dtype=torch.float64).to(memory_format=memory_format)
    wanted = network(image)[..., margin:-margin, margin:-margin]
    for found in (network(image, margin=margin), scripted(image, margin=margin)):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    sizes = {}
    network.merge[4][0].register_forward_hook(lambda _, inputs, __: sizes.update(seen=inputs[0].shape[2:]))
    network(image, margin=margin)
    assert all(
        side - 2 * margin <= seen <= side - 2 * margin + 6 for side, seen in zip((160, 192), sizes["seen"], strict=True)
    )


@torch.no_grad()
def test_the_middle_of_a_volume():
    network = VGGUNet(3, 1, 2, width=1 / 32).eval()
    volume = torch.rand(1, 1, 32, 64, 64)
    torch.testing.assert_close(network(volume, margin=7), network(volume)[..., 7:-7, 7:-7, 7:-7], rtol=0, atol=1e-6)


@pytest.mark.parametrize("margin", [-1, 16, 20])
def test_a_margin_that_leaves_nothing(margin):
    with pytest.raises(
        ValueError, match=rf"margin is {margin}, the input \[1, 3, 32, 64\]; expected less than half of each size"
    ):
        VGGUNet(width=1 / 64)(torch.zeros(1, 3, 32, 64), margin=margin)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_script_equals_eager_on_other_sizes_and_batches(batch_norm):
    network = VGGUNet(width=1 / 16, batch_norm=batch_norm).eval()
    scripted = torch.jit.script(network)
    for batch, size in enumerate([(32, 64), (96, 32)], start=1):
        image = torch.rand(batch, 3, *size)
        torch.testing.assert_close(scripted(image), network(image))


def test_onnx_with_dynamic_axes_equals_eager(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network = VGGUNet(width=1 / 16).eval()
    axes = {"image": {0: "n", 2: "h", 3: "w"}}
    path = tmp_path / "net.onnx"
    image = torch.rand(1, 3, 32, 32)
    torch.onnx.export(network, (image,), path, input_names=["image"], dynamic_axes=axes, dynamo=False)
    session = onnxruntime.InferenceSession(str(path))
    image = torch.rand(3, 3, 64, 32)
    (output,) = session.run(None, {"image": image.numpy()})
    np.testing.assert_allclose(output, network(image).detach().numpy(), atol=1e-5)  # float32, other order of sums
