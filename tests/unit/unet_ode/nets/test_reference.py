"""Weights under the names of the paper's code: converted, loaded strictly, compared with that code's computation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchdiffeq

from unet_ode.nets import PAPER_SOLVER, UNet, UNode, UResNet, from_reference_state_dict

WIDTHS = (4, 5, 6, 7, 8)  # the conversion of the two residual networks does not ask for the paper's
LEVEL_CHANGES = ("conv_down1_2", "conv_down2_3", "conv_down3_4", "conv_down4_embed")
UP_CHANGES = ("conv_up_embed_1", "conv_up1_2", "conv_up2_3", "conv_up3_4")


def _convolution(name: str, out: int, inputs: int, kernel: int, transposed: bool = False) -> dict[str, torch.Tensor]:
    shape = (inputs, out) if transposed else (out, inputs)
    weight = torch.randn(*shape, kernel, kernel) * math.sqrt(2 / (inputs * (1 if transposed else kernel**2)))
    return {f"{name}.weight": weight, f"{name}.bias": 0.1 * torch.randn(out)}


def _residual_state(block: str, conv: str, more: int, widths: tuple[int, ...] = WIDTHS) -> dict[str, torch.Tensor]:
    """Names such as odeblock_down1.odefunc.conv1, with ``more`` input channels than outputs, and 1x1 changes."""
    state = _convolution("input_1x1", widths[0], 3, 1)
    places = [f"down{i}" for i in range(1, 5)] + ["embedding"] + [f"up{i}" for i in range(1, 5)]
    for place, width in zip(places, (*widths, *reversed(widths[:-1])), strict=True):
        for i in (1, 2):
            state |= _convolution(f"{block}_{place}.{conv}{i}", width, width + more, 3)
    for i in range(4):
        state |= _convolution(LEVEL_CHANGES[i], widths[i + 1], widths[i], 1)
        state |= _convolution(UP_CHANGES[3 - i], widths[i], widths[i] + widths[i + 1], 1)
    return state | _convolution("classifier", 2, widths[0], 1)


def _residual_forward(state: dict, image: torch.Tensor, block, blocks_on_the_way_down: bool) -> torch.Tensor:
    def conv(name, x):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x, skips = F.leaky_relu(conv("input_1x1", image)), []
    for i, change in enumerate(LEVEL_CHANGES, start=1):
        skips.append(block(f"down{i}", x))
        x = F.leaky_relu(conv(change, skips[-1] if blocks_on_the_way_down else x))
        x = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    x = block("embedding", x)
    for i, change in enumerate(UP_CHANGES, start=1):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = block(f"up{i}", F.leaky_relu(conv(change, torch.cat([x, skips.pop()], dim=1))))
    return conv("classifier", x)


@torch.no_grad()
def test_unode():
    state = _residual_state("odeblock", "odefunc.conv", more=1)
    image = torch.randn(1, 3, 32, 48)

    def block(place, y):
        def field(t, y):
            for i in (1, 2):
                name = f"odeblock_{place}.odefunc.conv{i}"
                plane = t * torch.ones_like(y[:, :1])
                y = F.leaky_relu(
                    F.conv2d(torch.cat([plane, y], 1), state[f"{name}.weight"], state[f"{name}.bias"], 1, 1)
                )
                y = F.instance_norm(y) if i == 1 else y
            return y

        return torchdiffeq.odeint(field, y, torch.tensor([0.0, 1.0]), rtol=1e-3, atol=1e-3, method="dopri5")[1]

    net = UNode(2, 3, 2, channels=WIDTHS, **PAPER_SOLVER)
    net.load_state_dict(from_reference_state_dict(state))
    expected = _residual_forward(state, image, block, blocks_on_the_way_down=True)
    assert expected.std() > 0.1
    # float32 through nine adaptive solutions; a weight in the wrong place changes the first digit
    torch.testing.assert_close(net(image), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@torch.no_grad()
def test_uresnet():
    state = _residual_state("block", "conv", more=0)
    image = torch.randn(2, 3, 32, 48)

    def block(place, x):
        y = x
        for i in (1, 2):
            name = f"block_{place}.conv{i}"
            y = F.leaky_relu(F.conv2d(y, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
            y = F.instance_norm(y, eps=x.shape[1]) if i == 1 else y
        return x + y

    net = UResNet(2, 3, 2, channels=WIDTHS, reference=True)
    net.load_state_dict(from_reference_state_dict(state))
    expected = _residual_forward(state, image, block, blocks_on_the_way_down=False)
    assert expected.std() > 0.1
    torch.testing.assert_close(net(image), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def _unet_states(up_shift: int, embed_depth: int) -> tuple[dict, list[dict], dict[str, torch.Tensor]]:
    """The state, and its parts by what they do: levels of {"encode", "up", "decode"}, from full resolution down."""
    state, levels, inputs = {}, [], 3
    for level in range(4):
        width, here = 64 * 2**level, "main." + "next." * level
        there = "main." + "next." * (level + up_shift)
        parts = {
            "encode": _convolution(f"{here}encode.0", width, inputs, 3)
            | _convolution(f"{here}encode.2", width, width, 3),
            "up": _convolution(f"{there}up", width, 2 * width, 2, transposed=True),
            "decode": _convolution(f"{here}decode.0", width, 2 * width, 3)
            | _convolution(f"{here}decode.2", width, width, 3),
        }
        state |= parts["encode"] | parts["up"] | parts["decode"]
        levels.append(parts)
        inputs = width
    there = "main." + "next." * embed_depth
    embed = _convolution(f"{there}embed.0", 1024, 512, 3) | _convolution(f"{there}embed.2", 1024, 1024, 3)
    return state | embed | _convolution("out", 2, 64, 1), levels, embed


@torch.no_grad()
@pytest.mark.parametrize("up_shift, embed_depth", [(0, 3), (0, 4), (1, 4)])  # where the nested parts may sit
def test_unet(up_shift, embed_depth):
    state, levels, embed = _unet_states(up_shift, embed_depth)
    image = torch.randn(1, 3, 188, 188)

    def double(part, x):
        first, first_bias, second, second_bias = part.values()
        return F.relu(F.conv2d(F.relu(F.conv2d(x, first, first_bias)), second, second_bias))

    x, skips = image, []
    for parts in levels:
        skips.append(double(parts["encode"], x))
        x = F.max_pool2d(skips[-1], 2)
    x = double(embed, x)
    for parts in reversed(levels):
        x, skip = F.conv_transpose2d(x, *parts["up"].values(), stride=2), skips.pop()
        top = (skip.shape[2] - x.shape[2]) // 2
        x = double(parts["decode"], torch.cat([skip[:, :, top : top + x.shape[2], top : top + x.shape[2]], x], dim=1))
    expected = F.conv2d(x, state["out.weight"], state["out.bias"])

    net = UNet(2, 3, 2)
    net.load_state_dict(from_reference_state_dict(state))
    assert expected.shape == (1, 2, 4, 4) and expected.std() > 0.1
    torch.testing.assert_close(net(image), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_sizes_of_the_published_networks():
    widths = (16, 32, 64, 128, 256)
    for state, net in (
        (_residual_state("odeblock", "odefunc.conv", 1, widths), UNode(2, 3, 2)),
        (_residual_state("block", "conv", 0, widths), UResNet(2, 3, 2)),
    ):
        net.load_state_dict(from_reference_state_dict(state))
        assert sum(value.numel() for value in state.values()) == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    "name",
    [
        "stem.weight",
        "input_1x1.running_mean",
        "odeblock_down1.odefunc.conv3.weight",
        "odeblock_down5.odefunc.conv1.weight",
        "odeblock_up0.odefunc.conv1.weight",
        "odeblock_down.odefunc.conv1.weight",
        "block_embedding1.conv1.bias",
        "main.encode.1.weight",
        "next.encode.0.weight",
        "weight",
    ],
)
def test_unknown_names_are_refused(name):
    state = _residual_state("block", "conv", more=0)
    with pytest.raises(ValueError, match=rf"1 of {len(state) + 1} names are unknown: {name}; expected"):
        from_reference_state_dict(state | {name: torch.zeros(4, 4, 1, 1)})


@pytest.mark.parametrize(
    ("name", "shape"),
    [("main.encode.0.weight", (32, 3, 3, 3)), ("main.decode.0.weight", (2048, 8, 3, 3))],
)
def test_widths_of_no_level_are_unknown(name, shape):
    with pytest.raises(ValueError, match="1 of 1 names are unknown") as caught:
        from_reference_state_dict({name: torch.zeros(shape)})
    assert name in str(caught.value)
