"""The invertible U-Nets against forward passes written out, across exporters, and what training them takes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.losses import DiceCELoss

from invres3d.chain.engine import ENGINES
from invres3d.losses import RegularizedLoss
from invres3d.nets import FullyInvertibleUNet, PartiallyInvertibleUNet, UNet3D
from invres3d.plan.live_memory import LiveMemory

NETS = [FullyInvertibleUNet, PartiallyInvertibleUNet]


def _net(cls, **kwargs):
    net = cls(2, 3, **{"channels": (8, 16, 24), "num_couplings": 2, **kwargs})
    for name, parameter in net.named_parameters():
        if name.endswith("angles"):
            torch.nn.init.uniform_(parameter, -1, 1)
        elif ".norm." in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return net


class _WrittenOut:
    """The networks as functions of their weights, by name, with states in one piece."""

    def __init__(self, net):
        self.w = dict(net.named_parameters())
        self.i = 0

    def take(self, name):
        self.i += 1
        prefix = f"chain.steps.{self.i - 1}.{name}"
        return {key[len(prefix) :]: value for key, value in self.w.items() if key.startswith(prefix)}

    def couplings(self, x, num):
        def branch(w, n, x):
            x = F.instance_norm(x, weight=w[f"n{n}.norm.weight"], bias=w[f"n{n}.norm.bias"])
            return F.conv3d(F.leaky_relu(x, 0.01), w[f"n{n}.conv.weight"], w[f"n{n}.conv.bias"], padding=1)

        for _ in range(num):
            w = self.take("coupling.")
            x1, x2 = x.chunk(2, 1)
            x1 = x1 + branch(w, 1, x2)
            x = torch.cat([x1, x2 + branch(w, 2, x1)], 1)
        return x

    def stem(self, x):
        return F.conv3d(x, self.w["stem.weight"], self.w["stem.bias"], padding=1)

    def head(self, x):
        return F.conv3d(x, self.w["chain.head.weight"], self.w["chain.head.bias"])

    def partially(self, x, num, depth=2):
        x, skips = self.stem(x), []
        for _ in range(depth):
            x = self.couplings(x, num)
            skips.append(x)
            w = self.take("lift.")
            x = F.conv3d(F.max_pool3d(x, 2), w["weight"], w["bias"])
        x = self.couplings(x, num)
        for _ in range(depth):
            w = self.take("reduce.")
            x = F.conv3d(F.interpolate(x, scale_factor=2, mode="trilinear"), w["weight"], w["bias"])
            x = self.couplings(x + skips.pop(), num)
        return self.head(x)

    @staticmethod
    def kernel(angles):
        """(c, 8, 8): columns are the images of the block's voxels, by the same plane rotations."""
        blocks = torch.eye(8, dtype=angles.dtype).view(8, 1, 2, 2, 2).repeat(1, len(angles), 1, 1, 1)
        t = blocks.clone()
        n = 0
        for axis, others in ((2, (3, 4)), (3, (2, 4)), (4, (2, 3))):
            for i in range(2):
                for j in range(2):
                    a, b = [slice(None)] * 5, [slice(None)] * 5
                    for place in (a, b):
                        place[others[0]], place[others[1]] = i, j
                    a[axis], b[axis] = 0, 1
                    cos, sin = angles[:, n].cos(), angles[:, n].sin()
                    first, second = t[tuple(a)].clone(), t[tuple(b)].clone()
                    t[tuple(a)], t[tuple(b)] = cos * first - sin * second, sin * first + cos * second
                    n += 1
        return t.flatten(2).permute(1, 2, 0)

    def fully(self, x, num, depth=2):
        x, skips = self.stem(x), []
        for _ in range(depth):
            x = self.couplings(x, num)
            kernel = self.kernel(self.take("squeeze.")["angles"])
            c = len(kernel)
            skips.append(x[:, :-c])
            weight = kernel.reshape(8 * c, 1, 2, 2, 2)
            y = F.conv3d(x[:, -c:], weight, stride=2, groups=c).unflatten(1, (c, 2, 4))
            x = y.transpose(1, 2).flatten(1, 3)  # even planes of all channels first
        x = self.couplings(x, num)
        for _ in range(depth):
            kernel = self.kernel(self.take("squeeze.")["angles"])
            c = len(kernel)
            y = x.unflatten(1, (2, c, 4)).transpose(1, 2).flatten(1, 3)
            up = F.conv_transpose3d(y, kernel.reshape(8 * c, 1, 2, 2, 2), stride=2, groups=c)
            x = self.couplings(torch.cat([skips.pop(), up], 1), num)
        return self.head(x)


@pytest.mark.parametrize("cls", NETS)
def test_logits_equal_the_written_out_network(cls):
    net = _net(cls).double().eval()
    x = torch.randn(2, 2, 8, 12, 4, dtype=torch.float64)
    written_out = _WrittenOut(net)
    want = (written_out.fully if cls is FullyInvertibleUNet else written_out.partially)(x, 2)
    assert written_out.i == len(net.chain.steps)
    torch.testing.assert_close(net(x), want, rtol=1e-9, atol=1e-9)  # float64 sums of some hundred terms


def test_number_of_parameters_of_the_papers_networks():
    channels = (32, 64, 128, 256)
    # a coupling: two norms (scale, shift) and two convolutions with bias of half of the channels
    couplings = sum(
        sides * 4 * 2 * (2 * c // 2 + 27 * (c // 2) ** 2 + c // 2)
        for sides, c in zip((2, 2, 2, 1), channels, strict=True)
    )
    ends = 27 * 4 * 32 + 32 + 32 * 3 + 3
    steps = sum(2 * a * b + a + b for a, b in pairwise(channels))
    angles = 2 * 12 * (8 + 16 + 32)
    partially, fully = couplings + ends + steps, couplings + ends + angles
    assert sum(p.numel() for p in PartiallyInvertibleUNet(4, 3, vae=False).parameters()) == partially == 5_960_099
    assert sum(p.numel() for p in FullyInvertibleUNet(4, 3, vae=False).parameters()) == fully == 5_874_755


@pytest.mark.parametrize("cls", [*NETS, UNet3D])
def test_training_gives_the_losses_of_the_vae_and_evaluation_logits(cls):
    net = cls(1, 2, channels=(8, 16), vae=True)
    image = torch.randn(3, 1, 8, 4, 4)
    logits, l2, kl = net(MetaTensor(image))
    assert logits.shape == (3, 2, 8, 4, 4) and l2.shape == kl.shape == (3,)
    out = net.eval()(MetaTensor(image[:, :, :, :2]))  # half of what the VAE takes
    assert type(out) is type(logits) is torch.Tensor
    assert torch.equal(out, net(image[:, :, :, :2]))
    trained = cls(1, 2, channels=(8, 16), vae=False)(image[:, :, :, :2])
    assert type(trained) is torch.Tensor


@pytest.mark.parametrize("cls", [*NETS, UNet3D])
@pytest.mark.parametrize(
    ("training", "size", "divisor", "pad_to"),
    [
        (True, (16, 8, 9), 8, [16, 8, 16]),
        (True, (4, 12, 8), 8, [8, 16, 8]),
        (False, (4, 5, 8), 4, [4, 8, 8]),
        (False, (4, 4, 4), 4, [4, 4, 8]),
    ],
)
def test_wrong_size_names_the_size_to_pad_to(cls, training, size, divisor, pad_to):
    net = cls(1, 2, channels=(8, 16, 32), vae=True).train(training)
    with pytest.raises(ValueError) as error:
        net(torch.zeros(1, 1, *size))
    assert f"{cls.__name__} got a volume of {list(size)} voxels; expected multiples of {divisor}" in str(error.value)
    assert str(error.value).endswith(f"pad to {pad_to}")
    net(torch.zeros(1, 1, *pad_to))


@pytest.mark.parametrize("cls", NETS)
def test_wrong_arguments_are_named(cls):
    with pytest.raises(ValueError, match=r"channels is \(8,\); expected at least two levels"):
        cls(1, 1, (8,))
    with pytest.raises(ValueError, match="got 9 channels; expected an even number"):
        cls(1, 1, (9, 16))
    with pytest.raises(ValueError, match=r"got shape \[1, 2, 8, 8, 8\]; expected \(N, 1, D, H, W\)"):
        cls(1, 1, (8, 16))(torch.zeros(1, 2, 8, 8, 8))
    with pytest.raises(ValueError, match=r"got shape \[0, 1, 8, 8, 8\]; expected .* with N of at least 1"):
        cls(1, 1, (8, 16))(torch.zeros(0, 1, 8, 8, 8))


@pytest.mark.parametrize("cls", [*NETS, UNet3D])
@pytest.mark.parametrize("name", ["in_channels", "out_channels", "channels", "num_couplings"])
@pytest.mark.parametrize("number", [0, -3])
def test_numbers_that_make_no_network_are_named(cls, name, number):
    name = "num_blocks" if cls is UNet3D and name == "num_couplings" else name
    value = (number, number) if name == "channels" else number
    with pytest.raises(ValueError, match=f"{name} is {number}; expected at least 1"):
        cls(**{"in_channels": 1, "out_channels": 1, "channels": (8, 16), name: value})


@pytest.mark.parametrize("channels", [(8, 12), (8, 32), (8, 16, 64)])
def test_channels_that_cannot_be_squeezed_are_named(channels):
    with pytest.raises(ValueError, match=rf"channels\[{len(channels) - 1}\] is {channels[-1]} after .*multiple of 8"):
        FullyInvertibleUNet(1, 1, channels)


@pytest.mark.parametrize("engine", ["native", "memcnn"])
def test_plain_unet_refuses_engines_that_invert(engine):
    with pytest.raises(
        ValueError, match=f"engine is '{engine}'; expected none or checkpoint: the layers of UNet3D cannot"
    ):
        UNet3D(1, 1, engine=engine)


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_checkpointed_plain_unet_has_the_same_gradients(num_blocks):
    grads = []
    for engine in ("none", "checkpoint"):
        torch.manual_seed(0)
        net = UNet3D(1, 2, (4, 8), engine=engine, num_blocks=num_blocks).double()
        net(torch.randn(1, 1, 8, 8, 8, dtype=torch.float64)).square().mean().backward()
        grads.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("cls", NETS)
@pytest.mark.parametrize("order", ["pre", "post"])
def test_scripted_equals_eager_on_two_shapes(cls, order):
    net = _net(cls, order=order, dropout=0.2).eval()
    scripted = torch.jit.script(net)
    for shape in [(1, 2, 16, 8, 8), (2, 2, 8, 12, 4)] * 2:  # again, since the second run of a shape is optimised
        x = torch.randn(shape)
        torch.testing.assert_close(scripted(x), net(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(torch.jit.Error, match=r"pad to \[16, 8, 8\]"):
        scripted(torch.zeros(1, 2, 14, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize("cls", NETS)
def test_onnx_equals_eager_on_two_shapes(cls, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = _net(cls, num_couplings=1).eval()
    path = tmp_path / "net.onnx"
    sizes = dict.fromkeys((2, 3, 4), torch.export.Dim.DYNAMIC)
    torch.onnx.export(net, (torch.randn(1, 2, 16, 24, 32),), path, dynamo=True, dynamic_shapes=(sizes,))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in [(16, 24, 32), (32, 8, 16)]:
        x = torch.randn(1, 2, *size)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        # float32, summed in another order
        np.testing.assert_allclose(got, net(x).detach().numpy(), rtol=0, atol=1e-4)


def _peak_bytes(net, size):
    """Live bytes of one training step, activations and gradients of parameters, computed without values."""
    net = net.to("meta").train()
    loss = RegularizedLoss(DiceCELoss(softmax=True, to_onehot_y=True))
    image, label = torch.empty(1, 4, *[size] * 3, device="meta"), torch.empty(1, 1, *[size] * 3, device="meta")
    with LiveMemory() as memory:
        loss(net(image), label).backward()
    return memory.peak_bytes


@pytest.mark.parametrize(
    ("size", "fully", "partially"), [(64, 0.21, 0.24), pytest.param(128, 0.165, 0.195, marks=pytest.mark.slow)]
)
def test_memory_as_a_share_of_the_plain_unets(size, fully, partially):
    """The plain U-Net has no VAE, the others have; the parameters are equally many."""
    plain = _peak_bytes(UNet3D(4, 4), size)
    assert _peak_bytes(FullyInvertibleUNet(4, 4), size) < fully * plain
    assert _peak_bytes(PartiallyInvertibleUNet(4, 4), size) < partially * plain


@pytest.mark.parametrize("cls", NETS)
def test_memory_grows_with_depth_by_the_gradients_of_the_parameters_alone(cls):
    nets = [cls(4, 4, num_couplings=num) for num in (1, 4)]
    shallow, deep = (sum(p.numel() * p.element_size() for p in net.parameters()) for net in nets)
    gradients = deep - shallow
    shallow, deep = (_peak_bytes(net, size=64) for net in nets)
    assert deep - shallow <= 1.001 * gradients  # one state of the first level kept would be twice that


@pytest.mark.slow
@pytest.mark.parametrize("cls", NETS)
def test_memory_hardly_grows_with_depth(cls):
    shallow, deep = (_peak_bytes(cls(4, 4, num_couplings=num), size=128) for num in (1, 8))
    assert deep < 1.05 * shallow  # what grows is the gradients of the parameters


@pytest.mark.slow
@pytest.mark.parametrize("cls", NETS)
def test_engines_train_alike_on_a_fixed_batch(cls):
    image = torch.randn(1, 2, 16, 16, 16)
    label = (image.sum(1, keepdim=True) > 0).float()
    curves = {}
    for engine in ENGINES:
        torch.manual_seed(0)
        net = cls(2, 2, (8, 16, 24), num_couplings=1, engine=engine)
        loss, optimizer = (
            RegularizedLoss(DiceCELoss(softmax=True, to_onehot_y=True)),
            torch.optim.Adam(net.parameters(), 2e-4),
        )
        curve = []
        for _ in range(100):
            optimizer.zero_grad()
            total = loss(net(image), label)
            total.backward()
            optimizer.step()
            curve.append(total.item())
        curves[engine] = np.array(curve)
    assert curves["none"][-1] < 0.9 * curves["none"][0]
    for engine in ENGINES:
        # Adam divides by the gradient's size, so that noise of float32 in small gradients makes whole steps of 2e-4
        np.testing.assert_allclose(curves[engine], curves["none"], rtol=2e-3, atol=0, err_msg=engine)
