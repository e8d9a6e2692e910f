"""UNet3D against a forward pass written out from the paper's operations, against closed forms and across exporters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor

from invres3d.nets import UNet3D

NARROW = (4, 6, 8, 10)


def _conv_norm_act(x, weights):
    kernel, scale, shift = (next(weights) for _ in range(3))
    x = F.conv3d(x, kernel, padding=1)
    centred = x - x.mean((2, 3, 4), keepdim=True)
    x = centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()
    x = x * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1)
    return torch.where(x > 0, x, 0.01 * x)


def _maxpool(x):
    n, c, d, h, w = x.shape
    return x.reshape(n, c, d // 2, 2, h // 2, 2, w // 2, 2).amax((3, 5, 7))


def _trilinear(x):
    """Twice the size along each axis: a fine voxel is 3/4 of the coarse one it lies in and 1/4 of its neighbour."""
    for axis in (2, 3, 4):
        length = x.shape[axis]
        here = torch.arange(length)
        below = x.index_select(axis, (here - 1).clamp(min=0))
        above = x.index_select(axis, (here + 1).clamp(max=length - 1))
        x = torch.stack([0.75 * x + 0.25 * below, 0.75 * x + 0.25 * above], axis + 1).flatten(axis, axis + 1)
    return x


def _reference(x, parameters, num_blocks, depth=3):
    """The forward pass from the parameters in their order: encoder from the top, decoder from the bottom, head."""
    weights = iter(parameters)

    def block(x):
        for _ in range(2 * num_blocks):
            x = _conv_norm_act(x, weights)
        return x

    skips = []
    for level in range(depth + 1):
        x = block(_maxpool(x) if level else x)
        skips.append(x)
    skips.pop()
    while skips:
        x = block(torch.cat([skips.pop(), _trilinear(x)], 1))
    return F.conv3d(x, next(weights), next(weights))


def _random_affine(net):
    """Norms start as scale 1 and shift 0, which would hide a wrong one."""
    for name, parameter in net.named_parameters():
        if ".N." in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return net


def _positive(channels):
    """Without norms and biases and with positive weights, the output is zero exactly where no path reaches."""
    net = UNet3D(1, 1, channels, norm=None).double()
    for name, parameter in net.named_parameters():
        torch.nn.init.zeros_(parameter) if name.endswith("bias") else torch.nn.init.uniform_(parameter, 0.1, 1.0)
    return net


def _support(net, voxel):
    """First and last index, along each axis, that one voxel of the input reaches; asserts that it is a full box."""
    x = torch.zeros(1, 1, 32, 32, 32, dtype=torch.float64)
    x[(0, 0, *voxel)] = 1
    reached = (net(x)[0, 0] != 0).numpy()
    where = np.argwhere(reached)
    low, high = where.min(0), where.max(0)
    assert reached.sum() == np.prod(high - low + 1)
    return list(zip(low.tolist(), high.tolist(), strict=True))


@pytest.mark.parametrize("num_blocks", [1, 3])
def test_forward_and_every_gradient_equal_the_written_out_network(num_blocks):
    torch.manual_seed(0)
    net = _random_affine(UNet3D(2, 3, NARROW, num_blocks=num_blocks)).double()
    x = torch.randn(2, 2, 24, 16, 8, dtype=torch.float64, requires_grad=True)
    parameters = list(net.parameters())
    direction = torch.randn(2, 3, 24, 16, 8, dtype=torch.float64)

    got, want = net(x), _reference(x, parameters, num_blocks)
    # float64 sums of some thousand terms
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    got_grads = torch.autograd.grad((got * direction).sum(), [x, *parameters])
    want_grads = torch.autograd.grad((want * direction).sum(), [x, *parameters])
    for got_grad, want_grad in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(got_grad, want_grad, rtol=1e-8, atol=1e-8)
        assert want_grad.abs().max() > 1e-3


def test_number_of_parameters_of_the_papers_network():
    # 3x3x3 kernels without bias, down: 4-32-32, 32-64-64, 64-128-128, 128-256-256
    down = 4 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 256 * 256
    # up, with the skip: (128 + 256)-128-128, (64 + 128)-64-64, (32 + 64)-32-32
    up = 384 * 128 + 128 * 128 + 192 * 64 + 64 * 64 + 96 * 32 + 32 * 32
    # scale and shift of two norms per level: 32, 64, 128 on both sides, 256 once
    norms = 2 * 2 * (2 * (32 + 64 + 128) + 256)
    for out_channels in (3, 4):
        head = 32 * out_channels + out_channels
        assert sum(p.numel() for p in UNet3D(4, out_channels).parameters()) == 27 * (down + up) + norms + head
    assert 27 * (down + up) + norms + head == 5_840_132


def test_group_without_number_is_affine_instance_norm():
    torch.manual_seed(0)
    net = _random_affine(UNet3D(1, 2, NARROW, norm="GROUP")).double()
    other = UNet3D(1, 2, NARROW, norm=("instance", {"affine": True})).double()
    other.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 8, 16, 8, dtype=torch.float64)
    torch.testing.assert_close(net(x), other(x), rtol=1e-10, atol=1e-10)


def test_number_of_groups_is_kept_when_given():
    net = UNet3D(1, 2, (4, 8), norm=("group", {"num_groups": 2}))
    assert {m.num_groups for m in net.modules() if isinstance(m, torch.nn.GroupNorm)} == {2}


def test_reach_of_a_voxel_in_two_levels():
    # Forward from an even voxel s = 2m: two convolutions reach s-2..s+2, pooling m-1..m+1, two more m-3..m+3.
    # A coarse voxel k reaches 2k-1..2k+2 through trilinear upsampling, so 2m-7..2m+8; two more: s-9..s+10.
    # An odd s = 2m+1: pooling (s-2..s+2 is 2m-1..2m+3) gives m-1..m+1 too, so again 2m-9..2m+10, which is s-10..s+9.
    assert _support(_positive((2, 2)), (14, 15, 16)) == [(5, 24), (5, 24), (7, 26)]


def test_skip_alone_reaches_four_convolutions_far():
    net = _positive((2, 3))
    with torch.no_grad():
        net.decoder[0][0].conv.weight[:, 2:] = 0  # the skip's two channels come first, then the three from below
    assert _support(net, (14, 15, 16)) == [(10, 18), (11, 19), (12, 20)]


@pytest.mark.parametrize(
    ("size", "pad_to"),
    [((20, 16, 30), [24, 16, 32]), ((8, 8, 8), [8, 8, 16]), ((1, 9, 8), [8, 16, 8])],
)
def test_wrong_size_names_the_size_to_pad_to(size, pad_to):
    net = UNet3D(1, 1, NARROW)
    with pytest.raises(ValueError) as error:
        net(torch.zeros(1, 1, *size))
    message = str(error.value)
    assert f"got a volume of {list(size)} voxels" in message
    assert "multiples of 8" in message
    assert message.endswith(f"pad to {pad_to}")
    assert net(torch.zeros(1, 1, *pad_to)).shape[2:] == tuple(pad_to)


@pytest.mark.parametrize("shape", [(2, 2, 16, 16), (1, 3, 16, 16, 16)])
def test_wrong_rank_or_channels_are_named(shape):
    with pytest.raises(ValueError, match=r"got shape \[.*\]; expected \(N, 2, D, H, W\)"):
        UNet3D(2, 1, NARROW)(torch.zeros(shape))


def test_no_block_is_refused():
    with pytest.raises(ValueError, match="num_blocks is 0; expected at least 1"):
        UNet3D(1, 2, num_blocks=0)


def test_one_level_is_refused():
    with pytest.raises(ValueError, match=r"channels is \(8,\); expected at least two levels"):
        UNet3D(1, 1, (8,))


def test_meta_tensor_gives_the_plain_result():
    torch.manual_seed(0)
    net = UNet3D(1, 2, NARROW)
    x = torch.randn(1, 1, 16, 8, 8)
    got = net(MetaTensor(x))
    assert type(got) is torch.Tensor
    assert torch.equal(got, net(x))


def test_scripted_equals_eager_on_two_shapes():
    torch.manual_seed(0)
    net = UNet3D(2, 3, NARROW).eval()
    scripted = torch.jit.script(net)
    for shape in [(1, 2, 16, 8, 8), (2, 2, 8, 24, 16)] * 2:  # again, since the second run of a shape is optimised
        x = torch.randn(shape)
        torch.testing.assert_close(scripted(x), net(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(torch.jit.Error, match=r"pad to \[16, 8, 8\]"):
        scripted(torch.zeros(1, 2, 12, 8, 8))


@pytest.mark.slow
def test_onnx_equals_eager_on_two_shapes(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    net = UNet3D(2, 3, NARROW).eval()
    path = tmp_path / "net.onnx"
    sizes = dict.fromkeys((2, 3, 4), torch.export.Dim.DYNAMIC)
    torch.onnx.export(net, (torch.randn(1, 2, 16, 24, 32),), path, dynamo=True, dynamic_shapes=(sizes,))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in [(16, 24, 32), (32, 8, 16)]:
        x = torch.randn(1, 2, *size)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        # float32, summed in another order
        np.testing.assert_allclose(got, net(x).detach().numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", ("instance", {"track_running_stats": True})])
def test_statistics_that_checkpoints_would_update_twice_are_refused(norm):
    with pytest.raises(ValueError, match="whose running statistics engine 'checkpoint' would update twice; expected a"):
        UNet3D(1, 2, (4, 8), norm=norm, engine="checkpoint")
    UNet3D(1, 2, (4, 8), norm=norm)
    UNet3D(1, 2, (4, 8), norm="instance", engine="checkpoint")
