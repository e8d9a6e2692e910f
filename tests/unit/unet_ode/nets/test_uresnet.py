"""U-ResNet against a functional form of its own, repaired and as the authors' code computes it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unet_ode.nets import UResNet


def _net(**kwargs) -> UResNet:
    torch.manual_seed(0)
    net = UResNet(**{"spatial_dims": 2, "in_channels": 3, "out_channels": 2, "channels": (4, 6, 8), **kwargs})
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p)
    return net


def test_parameter_count_is_the_paper_s():
    widths = (16, 32, 64, 128, 256)
    count = 3 * 16 + 16 + 16 * 2 + 2  # stem and head
    count += sum(2 * (9 * c * c + c) for c in (*widths, *widths[:-1]))  # two convolutions in a block
    count += sum(a * b + b + (a + b) * a + a for a, b in itertools.pairwise(widths))  # 1x1 down and up
    assert sum(p.numel() for p in UResNet(2, 3, 2).parameters()) == count == 2_074_098


def _forward(weights: dict, x: torch.Tensor, widths: tuple[int, ...], reference: bool) -> torch.Tensor:
    dims = x.dim() - 2
    conv_nd, pool = (F.conv2d, F.avg_pool2d) if dims == 2 else (F.conv3d, F.avg_pool3d)

    def conv(name, x, padding=0):
        return conv_nd(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    def block(name, x):
        inner = F.leaky_relu(conv(f"{name}.conv1", x, 1), 0.01)
        variance, mean = torch.var_mean(inner, tuple(range(2, x.dim())), correction=0, keepdim=True)
        inner = (inner - mean) / (variance + (x.shape[1] if reference else 1e-5)).sqrt()
        return x + F.leaky_relu(conv(f"{name}.conv2", inner, 1), 0.01)

    x, skips = F.leaky_relu(conv("stem", x), 0.01), []
    for i in range(len(widths) - 1):
        skips.append(block(f"down.{i}", x))
        x = pool(F.leaky_relu(conv(f"widen.{i}", x if reference else skips[-1]), 0.01), 2)
    x = block("embedding", x)
    for i in range(len(widths) - 1):
        x = F.interpolate(x, scale_factor=2, mode="bilinear" if dims == 2 else "trilinear")
        x = block(f"up.{i}", F.leaky_relu(conv(f"merge.{i}", torch.cat([x, skips.pop()], dim=1)), 0.01))
    return conv("head", x)


@torch.no_grad()
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("size", [(8, 12), (20, 4), (4, 8, 8)])
def test_forward_is_the_paper_s_computation(size, reference):
    net = _net(spatial_dims=len(size), reference=reference).double()
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = _forward(net.state_dict(), image, (4, 6, 8), reference)
    torch.testing.assert_close(net(image), expected, rtol=1e-11, atol=1e-11)  # another order of sums
    assert (expected - _forward(net.state_dict(), image, (4, 6, 8), not reference)).abs().max() > 0.1


def test_initial_weights_are_he_normal():
    net = UResNet(2, 3, 2, channels=(64, 128))
    for conv, fan_in in ((net.down[0].conv1, 64 * 9), (net.embedding.conv2, 128 * 9), (net.merge[0], 192)):
        # 12 288 draws or more: the standard error is 0.6 % at most; three times that is allowed
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.02)
        assert not conv.bias.any()


@torch.no_grad()
@pytest.mark.parametrize("reference", [False, True])
def test_script_and_trace_hold_for_another_shape(reference):
    net = _net(reference=reference).eval()
    image = torch.randn(2, 3, 16, 12)
    for compiled in (torch.jit.script(net), torch.jit.trace(net, torch.randn(1, 3, 8, 8))):
        torch.testing.assert_close(compiled(image), net(image), rtol=1e-6, atol=1e-6)
    with pytest.raises(Exception, match=r"got 10 voxels along axis 2; .* crop to 8 or pad to 12"):
        torch.jit.script(net)(torch.zeros(1, 3, 10, 12))


@pytest.mark.parametrize(
    "size, message",
    [
        ((8, 10), "got 10 voxels along axis 3; .* 8 and 12: crop to 8 or pad to 12"),
        ((4, 4), "got 4 voxels along every axis; expected at least 8 along one of them"),
    ],
)
def test_sizes_that_do_not_fit(size, message):
    with pytest.raises(ValueError, match=message):
        _net()(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    "kwargs, message",
    [({"spatial_dims": 4}, "spatial_dims is 4; expected 2 or 3"), ({"channels": ()}, r"channels is \(\); expected at")],
)
def test_arguments_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        _net(**kwargs)
