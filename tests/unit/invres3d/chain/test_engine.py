"""The engines against autograd through everything, in float64; and what may happen to a chain in training."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune

from invres3d.chain.engine import ENGINES
from invres3d.nets import FullyInvertibleUNet, PartiallyInvertibleUNet
from invres3d.plan import list_trainings
from invres3d.plan.live_memory import LiveMemory

NETS = [FullyInvertibleUNet, PartiallyInvertibleUNet]


def _net(cls=FullyInvertibleUNet, engine="native", dtype=torch.float64, **kwargs):
    torch.manual_seed(0)
    net = cls(2, 3, **{"channels": (8, 16, 32), "num_couplings": 2, "engine": engine, **kwargs}).to(dtype)
    for name, parameter in net.named_parameters():
        if name.endswith("angles"):
            torch.nn.init.uniform_(parameter, -1, 1)
        elif ".norm." in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return net


def _image(batch=1, dtype=torch.float64):
    torch.manual_seed(1)
    return torch.randn(batch, 2, 8, 16, 8, dtype=dtype)


def _loss(net, image):
    torch.manual_seed(2)  # of dropout and of the code's noise
    out = net(image)
    terms = out if isinstance(out, tuple) else (out,)
    return sum(term.square().mean() for term in terms)


def _gradients(net, image, loss=None):
    """Loss, and all gradients in a row; zero where there is none."""
    net.zero_grad()
    image = image.clone().requires_grad_()
    total = _loss(net, image) if loss is None else loss(net, image)
    total.backward()
    grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in (image, *net.parameters())]
    return total.item(), torch.cat([grad.flatten() for grad in grads])


def _difference(got, want):
    assert want.norm() > 0
    return ((got - want).norm() / want.norm()).item()


@pytest.mark.parametrize("cls", NETS)
@pytest.mark.parametrize("order", ["pre", "post"])
@pytest.mark.parametrize(("batch", "vae", "dropout"), [(1, False, 0.0), (2, False, 0.3)])
def test_gradients_equal_plain_autograd_in_float64(cls, order, batch, vae, dropout):
    image = _image(batch)
    nets = {e: _net(cls, e, order=order, vae=vae, dropout=dropout) for e in ENGINES}
    want_loss, want = _gradients(nets["none"], image)
    for engine in ("native", "memcnn", "checkpoint"):
        loss, got = _gradients(nets[engine], image)
        assert abs(loss - want_loss) < 1e-12 * want_loss
        assert _difference(got, want) < 1e-12, engine  # sums of some hundred terms in float64


@pytest.mark.parametrize("cls", NETS)
def test_gradients_through_the_vae(cls):
    image = torch.randn(2, 2, 8, 16, 8, dtype=torch.float64)
    want_loss, want = _gradients(_net(cls, "none", vae=True), image)
    for engine in ("native", "memcnn", "checkpoint"):
        loss, got = _gradients(_net(cls, engine, vae=True), image)
        assert abs(loss - want_loss) < 1e-12 * want_loss
        assert _difference(got, want) < 1e-12, engine


@pytest.mark.parametrize("cls", NETS)
def test_gradients_in_float32(cls):
    want = _gradients(_net(cls, "none", torch.float32), _image(2, torch.float32))[1]
    # single elements differ where an activation lies on the other side of the leaky ReLU's kink
    assert _difference(_gradients(_net(cls, "native", torch.float32), _image(2, torch.float32))[1], want) < 4e-5


@pytest.mark.parametrize("cls", NETS)
def test_gradients_equal_finite_differences(cls):
    net, image = _net(cls, vae=False), _image()
    direction, weights = torch.randn_like(image), torch.randn(1, 3, *image.shape[2:], dtype=image.dtype)
    leaf = image.clone().requires_grad_()
    (net(leaf) * weights).sum().backward()
    step = 1e-5
    with torch.no_grad():
        above, below = ((net(image + sign * step * direction) * weights).sum() for sign in (1, -1))
    # central differences: an error of the order of step^2, and 1e-12 from the grid of float64 over the step
    want, got = (above - below) / (2 * step), (leaf.grad * direction).sum()
    assert abs(want) > 1
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)


@pytest.mark.parametrize("cls", NETS)
@pytest.mark.parametrize("engine", ENGINES)
def test_frozen_parameters_change_no_other_gradient(cls, engine):
    image = _image()
    for frozen in ("stem", "chain.steps.0.", "chain.steps", "chain.head", "n1.conv", "norm"):
        nets = [_net(cls, e, vae=False) for e in (engine, "none")]
        for net in nets:
            for name, parameter in net.named_parameters():
                parameter.requires_grad_(not (name.startswith(frozen) or frozen in name))
        got, want = (_gradients(net, image)[1] for net in nets)
        assert _difference(got, want) < 1e-12, frozen
        for name, parameter in nets[0].named_parameters():
            assert (parameter.grad is None) == (not parameter.requires_grad), name


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_accumulate_over_passes_and_over_two_graphs_at_once(engine):
    first, second = _image(), _image().flip(2)
    net = _net(engine=engine)
    want = _gradients(net, first)[1] + _gradients(net, second)[1]
    net.zero_grad()
    for image in (first, second):
        _loss(net, image).backward()
    apart = torch.cat([p.grad.flatten() for p in net.parameters()])
    net.zero_grad()
    (_loss(net, first) + _loss(net, second)).backward()
    together = torch.cat([p.grad.flatten() for p in net.parameters()])
    assert _difference(apart, want[first.numel() :]) < 1e-12
    assert _difference(together, want[first.numel() :]) < 1e-12


@pytest.mark.parametrize("cls", NETS)
@pytest.mark.parametrize("order", ["pre", "post"])
def test_way_back_is_exact_under_autocast(cls, order):
    # at 2x4x2 voxels oneDNN's gradient of bfloat16 weights reads memory that was never written
    image = torch.randn(2, 2, 16, 16, 16)

    def loss(net, image):
        with torch.autocast("cpu", torch.bfloat16):
            return _loss(net, image)

    grads = {e: _gradients(_net(cls, e, torch.float32, order=order), image, loss)[1] for e in ENGINES}
    # an inexact way back raises; what remains are sums in another order, rounded to the 8 bits of bfloat16
    for engine in ("native", "checkpoint"):
        assert _difference(grads[engine], grads["none"]) < 0.02, engine
    # memcnn runs in full precision, so the difference is that of the precisions
    assert _difference(grads["memcnn"], grads["none"]) < 0.2


def test_backward_inside_of_autocast_is_the_same():
    net, image = _net(dtype=torch.float32), _image(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = _loss(net, image)
    loss.backward()
    outside = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        _loss(net, image).backward()
    torch.testing.assert_close([p.grad for p in net.parameters()], outside, rtol=0, atol=0)


def test_state_that_leaves_the_range_is_an_error_that_says_so():
    net = _net(dtype=torch.float32, vae=False)
    loss = _loss(net, 1e5 * _image(dtype=torch.float32))
    with pytest.raises(
        RuntimeError,
        match=r"activation magnitude .*e\+05 exceeds 1024, up to which sums are exact: normalise the images",
    ):
        loss.backward()
    loss = _loss(net, torch.full_like(_image(dtype=torch.float32), torch.nan))
    with pytest.raises(RuntimeError, match="activation magnitude nan exceeds"):
        loss.backward()


@pytest.mark.parametrize("cls", NETS)
@pytest.mark.parametrize("part", ["n1.conv.weight", "head.bias", "angles", "lift.bias"])
def test_parameters_that_change_before_backward_are_an_error(cls, part):
    net = _net(cls, vae=False, dtype=torch.float32)
    parameters = [p for name, p in net.named_parameters() if name.endswith(part)]
    loss = _loss(net, _image(dtype=torch.float32))
    with torch.no_grad():
        for parameter in parameters[-1:]:
            parameter.mul_(1.01)
    if not parameters:
        loss.backward()  # the other network has it
        return
    with pytest.raises(RuntimeError, match=r"parameters have changed between .* expected the same ones"):
        loss.backward()


@pytest.mark.parametrize("factor", [1, 1.01])
def test_parameters_lent_for_a_forward_pass_are_an_error(factor):
    net, image = _net(), _image()
    others = {name: (factor * p.detach()).requires_grad_() for name, p in net.named_parameters()}
    loss = functional_call(net, others, image)[0].mean()
    with pytest.raises(RuntimeError, match=r"parameters have changed between .* expected the same ones"):
        loss.backward()


def _prune(net):
    prune.l1_unstructured(net.chain.steps[0].coupling.n1.conv, "weight", 0.5)


def _parametrize(net):
    parametrizations.weight_norm(net.chain.head)


def _hook(net):
    net.chain.steps[0].coupling.n1.norm.register_forward_hook(lambda module, inputs, output: 2 * output)


def _replica(net):
    net.chain.steps[0]._is_replica = True  # as torch.nn.parallel.replicate leaves them


class _Adapted(torch.nn.Conv3d):
    """As low-rank adapters put them in place of a layer."""

    def forward(self, x):
        return super().forward(x) + x


def _replace(net):
    coupling = net.chain.steps[0].coupling
    for branch in (coupling.n1, coupling.n2):
        adapted = _Adapted(4, 4, 3, padding=1).double()
        adapted.load_state_dict(branch.conv.state_dict())
        branch.conv = adapted


@pytest.mark.parametrize("cls", NETS)
@pytest.mark.parametrize(
    "hide, what",
    [
        (_prune, "a hook"),
        (_parametrize, "a parametrization"),
        (_hook, "a hook"),
        (_replica, "DataParallel"),
        (_replace, r"the class .*_Adapted"),
    ],
)
def test_what_the_engine_would_pass_by_is_an_error(cls, hide, what):
    nets = [_net(cls, e, vae=False) for e in ("native", "checkpoint", "none")]
    for net in nets:
        hide(net)
    with pytest.raises(
        RuntimeError, match=rf"in the chain has {what}.* expected plain modules: .* engine='checkpoint'"
    ):
        nets[0](_image())
    with torch.no_grad():
        assert torch.equal(nets[0](_image()), nets[2](_image()))
    assert _difference(*(_gradients(net, _image())[1] for net in nets[1:])) < 1e-12  # the remedy


def _triple(parameter):
    parameter.grad.mul_(3)


@pytest.mark.parametrize("cls", NETS)
@pytest.mark.parametrize("order", ["pre", "post"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_hook_of_a_gradient_is_called_once_or_refused(cls, order, engine):
    nets = [_net(cls, e, order=order, dropout=0.0, vae=False) for e in (engine, "none")]
    want = _gradients(nets[1], _image())[1]
    handles = [p.register_hook(lambda grad: 3 * grad) for p in nets[0].chain.parameters()]
    if engine in ("native", "memcnn"):
        with pytest.raises(RuntimeError, match=rf"has a hook for its gradient, which the {engine} engine would call"):
            nets[0](_image())
        assert nets[0].eval()(_image()).shape == (1, 3, 8, 16, 8)
        nets[0].train()
        for handle in handles:
            handle.remove()
        for p in nets[0].chain.parameters():  # the remedy
            p.register_post_accumulate_grad_hook(_triple)
    got = _gradients(nets[0], _image())[1]
    factors = [torch.ones(_image().numel())]
    factors += [torch.full((p.numel(),), 3.0 if n.startswith("chain") else 1.0) for n, p in nets[0].named_parameters()]
    assert _difference(got, torch.cat(factors) * want) < 1e-12


@pytest.mark.parametrize("engine", ["checkpoint", "none"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("part", ["stem", "chain.head"])
def test_hooks_of_the_first_and_the_last_layer_are_called(engine, training, part):
    net = _net(engine=engine, vae=False).train(training)
    plain = net(_image()).detach()
    layer = net.get_submodule(part)
    handle = layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    hooked = net(_image()).detach()
    if part == "stem":
        layer.weight.data.mul_(2), layer.bias.data.mul_(2)
    else:
        torch.testing.assert_close(hooked, 2 * plain)
    handle.remove()
    if part == "stem":
        torch.testing.assert_close(hooked, net(_image()).detach())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pruned_stem_trains_with_every_engine(engine):
    """Pruning works out the weight in each call of the layer, so that a layer that is passed by has an old one."""
    nets = [_net(engine=e, vae=False) for e in (engine, "none")]
    for net in nets:
        prune.l1_unstructured(net.stem, "weight", 0.5)
    optimizers = [torch.optim.SGD(net.parameters(), 0.1) for net in nets]
    for _ in range(2):
        assert _difference(*(_gradients(net, _image())[1] for net in nets)) < 1e-12
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad():
        image, nets = _image(), [net.eval() for net in nets]
        prune.remove(nets[1].stem, "weight")
        torch.testing.assert_close(nets[0](image), nets[1](image))


@pytest.mark.parametrize("engine", ["native", "memcnn"])
def test_a_deep_state_out_of_range_is_an_error_however_small_the_one_above(engine):
    """The way back restores the state above by itself; only the deep one tells that its couplings were inexact."""
    net = _net(PartiallyInvertibleUNet, engine, dtype=torch.float32, vae=False)
    with torch.no_grad():
        down, up = (next(s for s in net.chain.steps if hasattr(s, name)) for name in ("lift", "reduce"))
        down.lift.bias.fill_(1e5)
        up.reduce.weight.mul_(1e-6)
    with pytest.raises(RuntimeError, match=rf"the {engine} engine: activation magnitude \d.*e\+05 exceeds 1024"):
        _loss(net, _image(dtype=torch.float32)).backward()


def test_second_backward_is_an_error_that_says_why():
    net = _net()
    logits = net(_image())[0]
    logits.mean().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward pass through one forward pass"):
        logits.sum().backward()


@pytest.mark.parametrize("used", ["logits", "losses"])
def test_backward_from_one_of_the_outputs(used):
    def loss(net, image):
        torch.manual_seed(2)
        logits, l2, kl = net(image)
        return logits.square().mean() if used == "logits" else l2.mean() + kl.mean()

    got, want = (_gradients(_net(engine=e), _image(), loss)[1] for e in ("native", "none"))
    assert _difference(got, want) < 1e-12


@pytest.mark.parametrize("engine", ENGINES)
def test_forward_without_backward_leaves_no_memory(engine):
    net, image = _net(engine=engine, dtype=torch.float32), _image(dtype=torch.float32)
    _loss(net, image).backward()  # what is allocated once, such as the gradients
    gc.collect()
    gc.disable()
    try:
        with LiveMemory() as memory:
            out = net(image)
            assert memory.current_bytes > 2**16
            del out
            assert memory.current_bytes == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("cls", NETS)
def test_evaluation_and_no_grad_bypass_the_engine(cls):
    image = _image()
    nets = [_net(cls, e).eval() for e in ENGINES]
    outs = [net(image) for net in nets]
    for out in outs:
        assert torch.equal(out, outs[-1]) and out.requires_grad
    grads = [torch.autograd.grad(out.sum(), net.stem.weight)[0] for out, net in zip(outs, nets, strict=True)]
    for grad in grads:
        assert torch.equal(grad, grads[-1])
    with torch.no_grad():
        trained = [net.train()(image)[0] for net in nets]
    for out in trained:
        assert torch.equal(out, trained[-1])
        # without rounding in evaluation: the grid of float64, through some layers
        torch.testing.assert_close(out, outs[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("cls", NETS)
def test_one_state_dict_and_copies_for_all_engines(cls):
    nets = [_net(cls, e) for e in ENGINES]
    for net in nets:
        assert list(net.state_dict()) == list(nets[0].state_dict())
    native = nets[0]
    double = copy.deepcopy(native)
    assert _difference(_gradients(double, _image())[1], _gradients(native, _image())[1]) == 0


@pytest.mark.parametrize("cls", NETS)
@pytest.mark.parametrize("engine", ["native", pytest.param("none", marks=pytest.mark.slow)])
def test_compiled_equals_eager(cls, engine):
    net, image = _net(cls, engine), _image()
    want_loss, want = _gradients(net, image)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="aot_eager")
    loss, got = _gradients(compiled, image)
    assert abs(loss - want_loss) < 1e-12 * want_loss
    assert _difference(got, want) < 1e-12


def test_channels_last_gives_the_same():
    want = _gradients(_net(), _image(2))[1]
    got = _gradients(_net().to(memory_format=torch.channels_last_3d), _image(2))[1]
    assert _difference(got, want) < 1e-12


def test_unknown_engine_is_named():
    with pytest.raises(ValueError, match="engine is 'fast'; expected one of native, memcnn, checkpoint, none"):
        _net(engine="fast")


def test_an_engine_whose_package_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="memcnn is not installed; run pip install memcnn") as caught:
        _net(engine="memcnn")
    assert caught.value.name == "memcnn"
    _net(engine="native")
    assert "memcnn" not in {training.engine for training in list_trainings([1], [False], True)}
