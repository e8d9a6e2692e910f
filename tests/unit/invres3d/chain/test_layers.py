"""Layers with other settings or of other kinds in a chain: the same function with every engine, or an error."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from invres3d.nets import FullyInvertibleUNet, PartiallyInvertibleUNet

NETS = [FullyInvertibleUNet, PartiallyInvertibleUNet]
ENGINES = ("none", "native", "memcnn", "checkpoint")
WIDTH = 4
"""Channels of a branch of the first level."""


def build(cls, engine: str, place: str, make) -> nn.Module:
    """A network with one layer replaced, in float64, with the same weights for every engine."""
    torch.manual_seed(0)
    net = cls(2, 3, channels=(2 * WIDTH, 16), num_couplings=1, engine=engine, vae=False)
    parent, _, name = place.rpartition(".")
    setattr(net.get_submodule(parent), name, make())
    net = net.double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


def outcome(net: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and all gradients of one training pass."""
    image = torch.randn(2, 2, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    image.requires_grad_()
    torch.manual_seed(2)  # of layers that draw
    output = net(image)
    output.square().mean().backward()
    grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in (image, *net.parameters())]
    return output.detach(), torch.cat([grad.flatten() for grad in grads])


N1 = "chain.steps.0.coupling.n1"


def conv(channels: int = WIDTH, out_channels: int = WIDTH, kernel: int = 3, **settings) -> nn.Conv3d:
    return nn.Conv3d(channels, out_channels, kernel, **{"padding": kernel // 2, **settings})


def one_voxel() -> nn.Conv3d:
    """The weights' own size is what counts."""
    layer = conv(padding=0)
    layer.weight = nn.Parameter(torch.ones(WIDTH, WIDTH, 1, 1, 1))
    return layer


def with_unused() -> nn.Conv3d:
    layer = conv(padding_mode="reflect")
    layer.unused = nn.Parameter(torch.zeros(3))
    return layer


LAYERS = {
    "reflected": (f"{N1}.conv", lambda: conv(padding_mode="reflect")),
    "circular": (f"{N1}.conv", lambda: conv(padding_mode="circular")),
    "dilated": (f"{N1}.conv", lambda: conv(padding=2, dilation=2)),
    "grouped": (f"{N1}.conv", lambda: conv(groups=2)),
    "of one voxel": (f"{N1}.conv", one_voxel),
    "padding by name": (f"{N1}.conv", lambda: conv(padding="same")),
    "without bias": (f"{N1}.conv", lambda: conv(bias=False)),
    "transposed": (
        f"{N1}.conv",
        lambda: nn.ConvTranspose3d(WIDTH, WIDTH, 2, padding=2, dilation=3, output_padding=1),
    ),
    "sequence": (f"{N1}.conv", lambda: nn.Sequential(conv(WIDTH, 2, 1), conv(2))),
    "two groups": (f"{N1}.norm", lambda: nn.GroupNorm(2, WIDTH)),
    "norm without weights": (f"{N1}.norm", lambda: nn.GroupNorm(WIDTH, WIDTH, affine=False)),
    "large eps": (f"{N1}.norm", lambda: nn.GroupNorm(WIDTH, WIDTH, eps=0.3)),
    "instance norm": (f"{N1}.norm", lambda: nn.InstanceNorm3d(WIDTH, affine=True)),
    "norm over the batch": (f"{N1}.norm", lambda: nn.BatchNorm3d(WIDTH, track_running_stats=False)),
    "frozen statistics": (f"{N1}.norm", lambda: nn.BatchNorm3d(WIDTH).eval()),
    "gelu": (f"{N1}.act", nn.GELU),
    "steep": (f"{N1}.act", lambda: nn.LeakyReLU(0.4)),
    "falling": (f"{N1}.act", lambda: nn.LeakyReLU(-0.4)),
    "learned slope": (f"{N1}.act", nn.PReLU),
    "no activation": (f"{N1}.act", nn.Identity),
    "dropout that is off": (f"{N1}.act", lambda: nn.Sequential(nn.SiLU(), nn.Dropout(0.5).eval())),
    "second branch": ("chain.steps.0.coupling.n2.act", nn.SiLU),
    "replicated stem": ("stem", lambda: conv(2, 2 * WIDTH, padding_mode="replicate")),
    "dilated stem": ("stem", lambda: conv(2, 2 * WIDTH, padding=2, dilation=2)),
    "stem without bias": ("stem", lambda: conv(2, 2 * WIDTH, bias=False)),
    "stem of one voxel": ("stem", lambda: conv(2, 2 * WIDTH, 1)),
    "grouped stem": ("stem", lambda: conv(2, 2 * WIDTH, groups=2)),
    "stem in parts": ("stem", lambda: nn.Sequential(conv(2, 2), nn.Dropout(0.5).eval(), conv(2, 2 * WIDTH, 1))),
    "wide head": ("chain.head", lambda: conv(2 * WIDTH, 3, padding_mode="replicate")),
    "head without bias": ("chain.head", lambda: conv(2 * WIDTH, 3, 1, bias=False)),
    "grouped head": ("chain.head", lambda: conv(2 * WIDTH, 2, 1, groups=2)),
    "strided head": ("chain.head", lambda: conv(2 * WIDTH, 3, 1, stride=2)),
    "head in parts": ("chain.head", lambda: nn.Sequential(conv(2 * WIDTH, 4, 1), nn.GELU(), conv(4, 3, 1))),
}


@pytest.mark.parametrize(("place", "make"), LAYERS.values(), ids=LAYERS)
def test_every_engine_computes_what_the_layers_do(place, make):
    for cls in NETS:
        wanted = outcome(build(cls, "none", place, make))
        for engine in ("native", "memcnn", "checkpoint"):
            for found, expected in zip(outcome(build(cls, engine, place, make)), wanted, strict=True):
                assert expected.norm() > 0
                assert (found - expected).norm() <= 1e-11 * expected.norm(), (cls.__name__, engine)


@pytest.mark.parametrize("engine", ["native", "checkpoint"])
def test_a_parameter_that_its_layer_does_not_use_has_no_gradient(engine):
    nets = [build(FullyInvertibleUNet, e, f"{N1}.conv", with_unused) for e in ("none", engine)]
    torch.testing.assert_close(*map(outcome, nets), rtol=1e-11, atol=1e-11)
    assert nets[1].get_submodule(f"{N1}.conv").unused.grad is None


@pytest.mark.parametrize(
    "make", [lambda: conv(8, 16, padding_mode="reflect"), lambda: nn.Sequential(conv(8, 2), conv(2, 16))]
)
def test_layers_between_the_levels(make):
    wanted, *others = (
        outcome(build(PartiallyInvertibleUNet, engine, "chain.steps.1.lift", make)) for engine in ENGINES
    )
    for other in others:
        for found, expected in zip(other, wanted, strict=True):
            assert (found - expected).norm() <= 1e-11 * expected.norm()


@pytest.mark.parametrize(("place", "make"), LAYERS.values(), ids=LAYERS)
def test_evaluation_is_the_layers_one_after_the_other(place, make):
    """Written out for the fully invertible network of two levels, whose resampling is pixel unshuffle here."""
    net = build(FullyInvertibleUNet, "native", place, make).eval()
    for name, parameter in net.named_parameters():
        if name.endswith("angles"):
            nn.init.zeros_(parameter)
    image = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x1, x2 = net.stem(image).chunk(2, 1)
        x1, x2 = couple(net.chain.steps[0], x1, x2)
        skip, down = x2[:, :2], x2[:, 2:]
        places = [down[:, :, i::2, j::2, k::2] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
        z1, z2 = (torch.stack(part, 2).flatten(1, 2) for part in (places[:4], places[4:]))
        z1, z2 = couple(net.chain.steps[2], z1, z2)
        up = torch.empty_like(down)
        for n, (i, j, k) in enumerate((i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)):
            up[:, :, i::2, j::2, k::2] = (z1, z2)[n // 4].unflatten(1, (2, 4))[:, :, n % 4]
        x2 = torch.cat([skip, up], 1)
        wanted = net.chain.head(torch.cat(couple(net.chain.steps[4], x1, x2), 1))
        torch.testing.assert_close(net(image), wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "name", ["replicated stem", "stem in parts", "grouped head", "head in parts", "wide head", "gelu"]
)
def test_torchscript_calls_the_layers(name):
    net = build(FullyInvertibleUNet, "native", *LAYERS[name]).eval()
    image = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(torch.jit.script(net)(image), net(image), rtol=1e-11, atol=1e-11)


def couple(step, x1, x2):
    def branch(layers, x):
        return layers.conv(layers.act(layers.norm(x)))

    y1 = x1 + branch(step.coupling.n1, x2)
    return y1, x2 + branch(step.coupling.n2, y1)


@pytest.mark.parametrize("place", ["stem", "chain.head", f"{N1}.conv"])
def test_evaluation_calls_every_layer(place):
    """A forward method that was replaced on one layer is what counts."""
    net = build(FullyInvertibleUNet, "native", place, lambda: nn.Conv3d(*SIZES[place])).eval()
    layer = net.get_submodule(place)
    image = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layer.weight.data.mul_(2), layer.bias.data.mul_(2)
    wanted = net(image)
    layer.weight.data.div_(2), layer.bias.data.div_(2)
    forward = layer.forward
    layer.forward = lambda x: 2 * forward(x)
    torch.testing.assert_close(net(image), wanted)
    net.train()
    if place == "stem":  # is called in training, too
        torch.testing.assert_close(net(image), wanted, rtol=1e-9, atol=1e-9)
    else:
        with pytest.raises(RuntimeError, match="has a forward method that was replaced, which the native engine"):
            net(image)


SIZES = {"stem": (2, 2 * WIDTH, 3, 1, 1), "chain.head": (2 * WIDTH, 3, 1), f"{N1}.conv": (WIDTH, WIDTH, 3, 1, 1)}


REFUSED = {
    "draws": (f"{N1}.act", lambda: nn.Dropout3d(0.5), r"n1\.act in the chain is a Dropout3d, whose random numbers"),
    "draws slopes": (f"{N1}.act", nn.RReLU, r"n1\.act in the chain is a RReLU, whose random numbers"),
    "counts": (f"{N1}.norm", lambda: nn.BatchNorm3d(WIDTH), r"BatchNorm3d with track_running_stats=True, whose stat"),
    "counts by sample": (
        f"{N1}.norm",
        lambda: nn.InstanceNorm3d(WIDTH, track_running_stats=True),
        r"InstanceNorm3d with track_running_stats=True, whose stat",
    ),
    "stride": (
        f"{N1}.conv",
        lambda: conv(stride=2),
        r"made shape \[2, 4, 2, 2, 2\] of \[2, 4, 4, 4, 4\]; expected the same",
    ),
    "no padding": (f"{N1}.conv", lambda: conv(padding=0), r"made shape .*; expected the same shape"),
    "one channel": (
        f"{N1}.conv",
        lambda: conv(WIDTH, 1),
        r"made shape \[2, 1, 4, 4, 4\] of .*; expected the same shape",
    ),
    "in place": (f"{N1}.norm", nn.Identity, r"changed its input in place; expected it unchanged"),
}


@pytest.mark.parametrize("engine", ["native", "memcnn", "checkpoint"])
@pytest.mark.parametrize(("place", "make", "message"), REFUSED.values(), ids=REFUSED)
def test_layers_that_an_engine_would_repeat_wrongly_are_refused(engine, place, make, message):
    net = build(PartiallyInvertibleUNet, engine, place, make)
    if engine == "checkpoint" and "random numbers" in message:
        found, wanted = outcome(net), outcome(build(PartiallyInvertibleUNet, "none", place, make))
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    else:
        with pytest.raises(RuntimeError, match=message):
            outcome(net)


@pytest.mark.parametrize("engine", ["memcnn", "checkpoint"])
def test_layers_that_an_engine_calls_once_may_draw_and_count(engine):
    """The head is not repeated by these two."""

    def make():
        return nn.Sequential(nn.BatchNorm3d(2 * WIDTH), nn.Dropout(0.5), conv(2 * WIDTH, 3, 1))

    nets = [build(PartiallyInvertibleUNet, e, "chain.head", make) for e in (engine, "none")]
    torch.testing.assert_close(*map(outcome, nets), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(*(net.chain.head[0].running_var for net in nets), rtol=1e-11, atol=0)
    with pytest.raises(RuntimeError, match=r"head\.0 in the chain is a BatchNorm3d .* the native engine would update"):
        outcome(build(PartiallyInvertibleUNet, "native", "chain.head", make))


def test_a_hook_of_all_modules_is_called_or_refused():
    called = []
    nets = [build(FullyInvertibleUNet, engine, "stem", lambda: conv(2, 2 * WIDTH)) for engine in ("none", "native")]
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: called.append(module))
    try:
        outcome(nets[0])
        with pytest.raises(RuntimeError, match="in the chain has a hook of all modules, which the native engine"):
            nets[1](torch.zeros(1, 2, 4, 4, 4, dtype=torch.float64))
        assert {nets[0].stem, nets[0].chain.head, nets[1].stem} <= set(called)
    finally:
        handle.remove()


@pytest.mark.parametrize("cls", NETS)
def test_a_part_in_evaluation_mode(cls):
    """Couplings round only in training; engines that compute back round all, or refuse."""
    nets = [build(cls, engine, "stem", lambda: conv(2, 2 * WIDTH)) for engine in ENGINES]
    for net in nets:
        net.chain.steps[0].eval()
    wanted = outcome(nets[0])
    for net in nets[1:]:
        if net.chain.engine == "memcnn":
            with pytest.raises(RuntimeError, match=r"steps\.0 in the chain is in evaluation mode, .*'native'"):
                outcome(net)
        else:
            torch.testing.assert_close(outcome(net), wanted, rtol=1e-10, atol=1e-10)
