"""Each trap of memcnn: that it is there, where it can be shown without a crash, and that the networks avoid it."""

from __future__ import annotations

import warnings

import pytest
import torch
from monai.data import MetaTensor

from invres3d.nets import FullyInvertibleUNet, PartiallyInvertibleUNet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    memcnn = pytest.importorskip("memcnn", reason="memcnn is not installed: pip install 'unet-bundles[memcnn]'")

NETS = [FullyInvertibleUNet, PartiallyInvertibleUNet]


def _net(cls, engine="memcnn", **kwargs):
    torch.manual_seed(0)
    return cls(2, 3, **{"channels": (8, 16), "num_couplings": 2, "engine": engine, "vae": False, **kwargs})


def _image(batch=1):
    torch.manual_seed(1)
    return torch.randn(batch, 2, 8, 8, 8)


def _step(net, image):
    torch.manual_seed(2)
    out = net(image)
    loss = out.square().mean() if isinstance(out, torch.Tensor) else sum(term.square().mean() for term in out)
    loss.backward()
    return [p.grad for p in net.parameters() if p.requires_grad]


def _assert_trains_like_none(cls, image=None, prepare=lambda net: None, **kwargs):
    grads = []
    for engine in ("memcnn", "none"):
        net = _net(cls, engine, **kwargs)
        prepare(net)
        grads.append(_step(net, _image() if image is None else image))
    # float32, the same operations in the same order but for the sums of gradients
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


class _Plus(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return x + self.function(x)

    def inverse(self, y):
        return y - self.function(y)


def _bare(keep_input=False):
    return memcnn.InvertibleModuleWrapper(
        memcnn.AdditiveCoupling(torch.nn.Conv3d(4, 4, 3, padding=1)),
        keep_input=keep_input,
        keep_input_inverse=keep_input,
    )


@pytest.mark.parametrize("cls", NETS)
@pytest.mark.parametrize("image_needs_gradient", [False, True])
def test_the_image_keeps_its_voxels(cls, image_needs_gradient):
    x = torch.randn(1, 8, 4, 4, 4, requires_grad=True).clone()
    _bare()(x)
    assert x.untyped_storage().nbytes() == 0  # the trap
    image = _image().requires_grad_(image_needs_gradient)
    before = image.detach().clone()
    net = _net(cls)
    out = net(image)
    assert torch.equal(image.detach(), before)
    out.sum().backward()
    assert torch.equal(image.detach(), before)


@pytest.mark.parametrize("cls", NETS)
def test_a_slice_of_the_image_frees_nothing_else(cls):
    both = torch.randn(1, 4, 8, 8, 8)
    before = both.clone()
    _step(_net(cls), both[:, :2])
    assert torch.equal(both, before)


@pytest.mark.parametrize("cls", NETS)
def test_every_hidden_state_that_is_read_later_is_whole(cls):
    """Skips, the bottleneck for the VAE and the head's input: each is read after blocks have used its neighbours."""
    _assert_trains_like_none(cls, vae=True, image=torch.randn(2, 2, 8, 8, 8))


@pytest.mark.parametrize("cls", NETS)
@pytest.mark.parametrize("how", ["eval", "no_grad", "frozen", "frozen_stem", "frozen_couplings"])
def test_no_block_frees_a_tensor_without_gradients(cls, how):
    def prepare(net):
        for name, parameter in net.named_parameters():
            gone = {"frozen_stem": "stem", "frozen_couplings": "coupling"}.get(how)
            parameter.requires_grad_(gone is None or gone not in name)

    if how in ("frozen_stem", "frozen_couplings"):
        _assert_trains_like_none(cls, prepare=prepare)
        return
    outs = []
    for engine in ("memcnn", "none"):
        net = _net(cls, engine).train(how != "eval")
        net.requires_grad_(how != "frozen")
        with torch.set_grad_enabled(how != "no_grad"):
            outs.append(net(_image()))
    assert torch.equal(*outs)


@pytest.mark.parametrize("cls", NETS)
def test_meta_tensors_are_stripped(cls):
    assert all(type(grad) is torch.Tensor for grad in _step(_net(cls), MetaTensor(_image())))
    _assert_trains_like_none(cls, image=MetaTensor(_image()))


@pytest.mark.parametrize("cls", NETS)
@pytest.mark.parametrize("backward_inside", [False, True])
def test_blocks_run_in_full_precision_under_autocast(cls, backward_inside):
    net, plain = _net(cls), _net(cls)
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(_image()).float().square().mean()
        if backward_inside:
            loss.backward()
    if not backward_inside:
        loss.backward()
    _step(plain, _image())
    for got, want in zip(net.parameters(), plain.parameters(), strict=True):
        # stem and head run in bfloat16, whose relative precision is 2^-8; through two levels
        assert (got.grad - want.grad).norm() < 0.2 * want.grad.norm() + 1e-4


@pytest.mark.parametrize("cls", NETS)
def test_dropout_is_the_same_on_the_way_back(cls):
    dropping = memcnn.InvertibleModuleWrapper(_Plus(torch.nn.Dropout(0.5)))
    x = torch.ones(1, 8, 4, 4, 4, requires_grad=True)
    inner = x.clone()
    dropping(inner).sum().backward()
    assert not torch.equal(inner, x)  # the trap
    _assert_trains_like_none(cls, dropout=0.4)


@pytest.mark.parametrize("cls", NETS)
def test_second_backward_is_refused(cls):
    out = _net(cls)(_image())
    out.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="perform backward on the InvertibleCheckpointFunction"):
        out.sum().backward()


@pytest.mark.parametrize("cls", NETS)
def test_layers_in_place_may_stand_on_both_sides(cls):
    x = torch.randn(1, 8, 4, 4, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):  # the trap
        _bare()(_bare()(torch.relu_(x.clone())).relu_()).sum().backward()
    grads = []
    for engine in ("memcnn", "none"):
        between = torch.nn.LeakyReLU(inplace=True)
        nets = torch.nn.Sequential(_net(cls, engine), between, torch.nn.Conv3d(3, 2, 1), between, _net(cls, engine))
        torch.nn.init.ones_(nets[2].weight)
        torch.nn.init.zeros_(nets[2].bias)
        grads.append(_step(nets, _image()))
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", NETS)
def test_output_and_image_may_go_to_several_networks(cls):
    inner = torch.randn(1, 8, 4, 4, 4, requires_grad=True).clone()
    first, second = _bare(), _bare()
    with pytest.raises(RuntimeError):  # the trap: the first has freed what the second would read
        (first(inner) + second(inner)).sum().backward()

    def three(engine):
        a, b, c = (_net(cls, engine, **{"num_couplings": n}) for n in (1, 1, 2))
        widen = torch.nn.Conv3d(3, 2, 1)
        torch.nn.init.ones_(widen.weight)
        image = _image().requires_grad_()
        middle = widen(a(image))
        (b(middle) + c(middle) + b(image)).square().mean().backward()
        return [image.grad, *(p.grad for net in (a, b, c) for p in net.parameters())]

    torch.testing.assert_close(three("memcnn"), three("none"), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", NETS)
def test_gradients_by_other_ways_than_backward_are_refused(cls):
    """memcnn cannot do without backward(); an error, not wrong numbers."""
    net = _net(cls).double()
    parameters = dict(net.named_parameters())
    with pytest.raises(RuntimeError, match=r"not compatible with \.grad\(\)"):
        torch.autograd.grad(net(_image().double()).sum(), list(net.parameters()))
    with pytest.raises(RuntimeError, match=r"not compatible with \.grad\(\)"):
        torch.autograd.gradcheck(net, (_image().double().requires_grad_(),), fast_mode=True)
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda p: torch.func.functional_call(net, p, _image().double()).sum())(parameters)


@pytest.mark.parametrize("cls", NETS)
def test_scripting_and_tracing_see_the_plain_network(cls):
    net = _net(cls).eval()
    image = _image()
    assert torch.equal(torch.jit.script(net)(image), net(image))
    assert torch.equal(torch.jit.trace(net, image)(image), net(image))


def test_nothing_is_normalised_by_statistics_of_the_batch():
    """memcnn would update them three times per step."""
    for cls in NETS:
        assert not list(_net(cls, vae=True).buffers())
