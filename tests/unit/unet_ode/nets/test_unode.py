"""U-Node: the paper's count of parameters and field, independence of neighbours, and gradients that can be trusted."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
import torchdiffeq
from torch import nn

from tools.bench.unode_reference import AdjointBlock, join_time_weights
from unet_ode.nets import PAPER_SOLVER, UNode
from unet_ode.nets.residual_unet import ResidualUNet
from unet_ode.ode import SolverError

SMALL = {"spatial_dims": 2, "in_channels": 3, "out_channels": 2, "channels": (8, 16)}


def _net(**kwargs) -> UNode:
    """The same weights whatever the solver, with biases that are not zero, so that one that is lost shows."""
    torch.manual_seed(0)
    net = UNode(**{**SMALL, **kwargs})
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p, std=0.1)
    return net


def test_parameter_count_is_the_paper_s():
    net = UNode(2, 3, 2)
    widths = (16, 32, 64, 128, 256)
    count = 3 * 16 + 16 + 16 * 2 + 2  # stem and head
    count += sum(2 * (9 * (c + 1) * c + c) for c in (*widths, *widths[:-1]))  # two convolutions of C + 1 -> C
    count += sum(a * b + b + (a + b) * a + a for a, b in itertools.pairwise(widths))  # 1x1 down and up
    assert sum(p.numel() for p in net.parameters()) == count == 2_087_346


def _reference_field(net: UNode, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """f = a(conv2([t, norm(a(conv1([t, y])))])) with the time as a channel that is really joined, and padded."""
    field = net.down[0].func
    conv = F.conv2d if y.dim() == 4 else F.conv3d
    plane = t.reshape(-1, *[1] * (y.dim() - 1)).expand(len(y), 1, *y.shape[2:])
    for i, part in enumerate((field.conv1, field.conv2)):
        if i == 1:
            axes = tuple(range(2, y.dim()))
            y = y - y.mean(axes, keepdim=True)
            y = y / (y.square().mean(axes, keepdim=True) + 1e-5).sqrt()
        weight = torch.cat([part.weight_time, part.weight], dim=1)
        y = F.leaky_relu(conv(torch.cat([plane, y], dim=1), weight, part.bias, padding=1), 0.01)
    return y


@torch.no_grad()
@pytest.mark.parametrize(
    "size", [(1, 2), (2, 1), (2, 2), (1, 3), (3, 3), (3, 4), (1, 9), (7, 5), (2, 2, 1), (1, 3, 4), (5, 4, 6)]
)
def test_field_is_the_paper_s(size):
    net = _net(spatial_dims=len(size)).double()
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    y = torch.randn(3, 8, *size, dtype=torch.float64)
    expected = _reference_field(net, t, y)
    torch.testing.assert_close(net.down[0].func(t, y), expected, rtol=1e-12, atol=1e-12)  # another order of sums


@torch.no_grad()
def test_network_is_the_u_of_its_blocks():
    """Every layer written out; the blocks are called, as they are tested by themselves."""
    net = _net(channels=(4, 6, 8)).double()
    weights = net.state_dict()

    def conv(name, x):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    image = torch.randn(2, 3, 12, 16, dtype=torch.float64)
    x, skips = F.leaky_relu(conv("stem", image), 0.01), []
    for i in range(2):
        skips.append(net.down[i](x))
        x = F.leaky_relu(conv(f"widen.{i}", skips[-1]), 0.01)
        x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    x = net.embedding(x)
    for i in range(2):
        x = torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear"), skips.pop()], dim=1)
        x = net.up[i](F.leaky_relu(conv(f"merge.{i}", x), 0.01))
    torch.testing.assert_close(net(image), conv("head", x), rtol=1e-10, atol=1e-10)
    assert list(net.last_stats()) == ["down1", "down2", "embedding", "up1", "up2"]
    assert all(stats.nfe.shape == (2,) for stats in net.last_stats().values())


@torch.no_grad()
@pytest.mark.parametrize(
    "dtype, dark, tolerance",
    # Kernels may sum otherwise for another size of the batch, and the norm divides the rounding of an evenly dark tile
    # by next to nothing: that one only in float64.
    [(torch.float64, 0.0, 1e-12), (torch.float32, 0.5, 1e-5)],
)
def test_a_sample_does_not_depend_on_its_batch(dtype, dark, tolerance):
    net = _net().to(dtype)
    images = torch.stack([torch.full((3, 16, 16), dark), 3 * torch.randn(3, 16, 16), torch.ones(3, 16, 16)]).to(dtype)
    together, stats = net(images).sigmoid(), net.last_stats()
    assert any(len(set(s.nfe.tolist())) > 1 for s in stats.values())  # blank and busy tiles take their own steps
    for i in range(3):
        torch.testing.assert_close(net(images[i : i + 1]).sigmoid()[0], together[i], rtol=0, atol=tolerance)
        assert all(s.nfe.item() == stats[name].nfe[i] for name, s in net.last_stats().items())


def _gradient(net: nn.Module, image: torch.Tensor, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a mean loss: for all parameters, and for the image."""
    image = image.clone().requires_grad_()
    target = (image.detach().mean(1, keepdim=True) > 0).to(image.dtype).expand(-1, 2, -1, -1)
    loss = F.binary_cross_entropy_with_logits(net(image), target) * scale
    *params, at_image = torch.autograd.grad(loss, [*net.parameters(), image])
    return torch.cat([p.flatten() for p in params]).double(), at_image.flatten().double()


class _Tight(nn.Module):
    """torchdiffeq's solution of a block, differentiated by plain autograd."""

    def __init__(self, func: nn.Module):
        super().__init__()
        self.func = func

    def forward(self, y):
        times = torch.tensor([0.0, 1.0], dtype=y.dtype)
        field = lambda t, y: self.func(t.expand(len(y)), y)  # noqa: E731
        # a thousandth of the tolerance under test
        return torchdiffeq.odeint(field, y, times, rtol=1e-6, atol=1e-6, method="bosh3")[1]


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.cosine_similarity(a, b, dim=0).item()


def test_gradients_point_where_those_of_a_tight_solution_do():
    image = torch.randn(4, 3, 12, 16)
    tight = _net().double()
    tight.down = nn.ModuleList(_Tight(block.func) for block in tight.down)
    tight.up = nn.ModuleList(_Tight(block.func) for block in tight.up)
    tight.embedding = _Tight(tight.embedding.func)
    expected = _gradient(tight, image.double())
    names = [name for name, _ in _net().named_parameters()]
    assert [name for name, _ in tight.named_parameters()] == names
    found = _gradient(_net(rtol=1e-3), image)
    assert _cosine(found[0], expected[0]) > 0.99 and _cosine(found[1], expected[1]) > 0.99


def test_direction_of_the_gradients_does_not_depend_on_the_loss_s_scale():
    image = torch.randn(1, 3, 12, 16)
    own, adjoint = _net(), _net(**PAPER_SOLVER)
    small, large = _gradient(own, image), _gradient(own, image, scale=100.0)
    assert all(_cosine(a, b) > 1 - 1e-6 for a, b in zip(small, large, strict=True))
    # the adjoint of a mean loss is below the absolute tolerance, which then controls nothing
    small, large = _gradient(adjoint, image), _gradient(adjoint, image, scale=100.0)
    assert any(_cosine(a, b) < 1 - 1e-4 for a, b in zip(small, large, strict=True))


@torch.no_grad()
def test_paper_s_solver_is_torchdiffeq_s_with_one_step_size_for_all():
    net = _net(**PAPER_SOLVER).double()
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    block, y = net.down[0], F.leaky_relu(net.stem(image), 0.01)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    expected = torchdiffeq.odeint(lambda t, y: block.func(t[None], y), y, times, rtol=1e-3, atol=1e-3)[1]
    torch.testing.assert_close(block(y), expected, rtol=1e-10, atol=1e-10)  # sums over broadcast times


def test_paper_s_solver_has_the_gradients_of_the_paper_s_configuration():
    """torchdiffeq's adjoint of a field whose convolutions join time and state, as the published code has them."""
    net = _net(**PAPER_SOLVER).double()
    reference = ResidualUNet(2, 3, 2, SMALL["channels"], lambda width, name: AdjointBlock(width)).double()
    reference.load_state_dict(join_time_weights(net.state_dict()))
    image = torch.randn(2, 3, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    outputs = [network(image) for network in (net, reference)]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    for output in outputs:
        (100 * output.square().mean()).backward()  # below the absolute tolerance any steps would do
    grads = [{name: p.grad for name, p in network.named_parameters()} for network in (net, reference)]
    found = join_time_weights(grads[0])
    assert found.keys() == grads[1].keys()
    for name, expected in grads[1].items():
        assert (found[name] - expected).norm() <= 1e-9 * expected.norm(), name


def test_initial_weights_are_he_normal():
    """Time and state are one convolution of C + 1 channels, whose fan in counts both."""
    net = UNode(2, 3, 2, channels=(8,) * 6)
    parts = [conv for block in (*net.down, net.embedding, *net.up) for conv in (block.func.conv1, block.func.conv2)]
    # 12 672 and 1 584 draws: standard errors of 0.6 and 1.8 %; three times that is allowed; a fan in of 8 channels
    # would give 6 % more
    for name, tolerance in (("weight", 0.02), ("weight_time", 0.055)):
        draws = torch.cat([getattr(conv, name).flatten() for conv in parts])
        assert draws.std().item() == pytest.approx(math.sqrt(2 / (9 * 9)), rel=tolerance)
    assert not any(p.any() for name, p in net.named_parameters() if name.endswith("bias"))
    # 960 draws: 2.3 %
    changes = torch.cat([conv.weight.flatten() for conv in (*net.widen, *net.merge)])
    inputs = torch.cat([torch.full((conv.weight.numel(),), conv.in_channels) for conv in (*net.widen, *net.merge)])
    assert (changes * (inputs / 2).sqrt()).std().item() == pytest.approx(1, rel=0.1)


def test_3d_trains():
    net = _net(spatial_dims=3, in_channels=1, channels=(4, 6))
    out = net(torch.randn(2, 1, 4, 6, 8))
    assert out.shape == (2, 2, 4, 6, 8)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


def test_errors_name_the_block():
    net = _net(channels=(2, 3, 4))
    nn.init.constant_(net.up[0].func.conv2.bias, math.nan)
    with pytest.raises(SolverError, match="block 'up1', sample 0: the field is not finite"):
        net(torch.randn(1, 3, 8, 8))
    with pytest.raises(SolverError, match="block 'down1', sample 0: max_nfe exceeded"):
        _net(max_nfe=5)(torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize(
    "size, message",
    [
        ((20, 18), "got 18 voxels along axis 3; .* 16 and 20: crop to 16 or pad to 20"),
        ((1, 8), "got 1 voxels along axis 2; the smallest size that fits is 4: pad to 4"),
        ((4, 4), "got 4 voxels along every axis; expected at least 8 along one of them: pad to 8"),
    ],
)
def test_sizes_that_do_not_fit(size, message):
    with pytest.raises(ValueError, match=message):
        _net(channels=(2, 3, 4))(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"spatial_dims": 1}, "spatial_dims is 1; expected 2 or 3"),
        ({"channels": (8,)}, r"channels is \(8,\); expected at least two levels"),
        ({"method": "rk4"}, "rk4 has no step size control"),
        ({"rtol": -1.0}, "rtol is -1.0, atol -1.0"),
    ],
)
def test_arguments_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        UNode(**{**SMALL, **kwargs})
