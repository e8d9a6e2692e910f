"""Compiled and exported U-Nodes against eager ones, on images of other sizes, batches and contents."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from unet_ode.nets import UNode
from unet_ode.ode import ODEBlock, SolverError

# maps of one, two and three voxels at the deepest level among them
SIZES = [(1, 16, 12), (3, 8, 20), (2, 2, 6), (1, 4, 2), (1, 6, 6)]


def _net(**kwargs) -> UNode:
    torch.manual_seed(0)
    return UNode(**{"spatial_dims": 2, "in_channels": 3, "out_channels": 2, "channels": (4, 8), **kwargs}).eval()


def _images() -> list[torch.Tensor]:
    images = [torch.randn(batch, 3, *size) for batch, *size in SIZES]
    return [*images, 5 * images[0], torch.full((2, 3, 8, 8), 0.1)]


def _assert_equal(compiled, net: UNode, tolerance: float, num: int | None = None) -> None:
    for image in _images()[:num]:
        torch.testing.assert_close(compiled(image), net(image), rtol=tolerance, atol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("kwargs", [{}, {"method": "dopri5", "first_step": 0.2}, {"method": "rk4", "num_steps": 2}])
def test_script_equals_eager(kwargs):
    net = _net(**kwargs)
    net(torch.randn(1, 3, 8, 8))  # what it keeps of a pass must not hinder
    scripted, file = torch.jit.script(net), io.BytesIO()
    _assert_equal(scripted, net, tolerance=0)  # the same kernels in the same order
    torch.jit.save(scripted, file)
    file.seek(0)
    _assert_equal(torch.jit.load(file), net, tolerance=0, num=2)


@torch.no_grad()
def test_script_equals_eager_in_3d():
    net = _net(spatial_dims=3)
    scripted = torch.jit.script(net)
    for size in ((1, 4, 6, 8), (2, 8, 2, 4)):
        image = torch.randn(size[0], 3, *size[1:])
        assert torch.equal(scripted(image), net(image))


@torch.no_grad()
def test_script_refuses_what_eager_refuses():
    scripted = torch.jit.script(_net(max_nfe=30))
    for image, message in (
        (torch.full((1, 3, 8, 8), torch.nan), "block 'down1', sample 0: the state is too large or not finite"),
        (torch.randn(1, 3, 8, 9), "got 9 voxels along axis 3"),
    ):
        with pytest.raises(torch.jit.Error, match=message):
            scripted(image)
    with pytest.raises(torch.jit.Error, match="block 'down1', sample 0: max_nfe exceeded"):
        torch.jit.script(_net(max_nfe=5))(torch.randn(1, 3, 8, 8))
    with pytest.raises(SolverError, match="block 'down1', sample 0: max_nfe exceeded"):
        _net(max_nfe=5)(torch.randn(1, 3, 8, 8))


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 8, 8), (2, 16, 12), (1, 2, 4)])
def test_trace_of_equal_steps_equals_eager(size):
    net = _net(method="midpoint", num_steps=2)
    traced = torch.jit.trace(net, torch.randn(size[0], 3, *size[1:]))
    # the trace fuses and broadcasts otherwise: roundings of logits of size ten
    _assert_equal(traced, net, tolerance=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("method", ["bosh3", "dopri5"])
def test_controlled_steps_are_not_traced(method):
    net, image = _net(method=method), torch.randn(1, 3, 8, 8)
    with pytest.raises(RuntimeError, match=rf"block 'down1': {method} .* cannot be traced.*use torch.jit.script"):
        torch.jit.trace(net, image)
    with pytest.raises(RuntimeError, match="cannot be traced"):
        torch.onnx.export(net, (image,), io.BytesIO(), dynamo=False)


class Field(torch.nn.Module):
    """Turns and damps the state, faster with time, by parameters that the graph has to keep."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, t, y):
        return 8 * torch.tanh(self.conv(y)) * (1 + t)[:, None, None, None]


@torch.no_grad()
@pytest.mark.parametrize("kwargs", [{}, pytest.param({"method": "dopri5", "first_step": 0.2}, marks=pytest.mark.slow)])
def test_export_of_controlled_steps_equals_eager(kwargs):
    torch.manual_seed(0)
    block, file = ODEBlock(Field(), rtol=1e-4, atol=1e-4, **kwargs), io.BytesIO()
    axes = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    torch.export.save(torch.export.export(block, (torch.randn(2, 2, 8, 12),), dynamic_shapes=axes), file)
    file.seek(0)
    exported = torch.export.load(file).module()
    for shape in [(1, 2, 12, 8), (4, 2, 5, 7)]:
        y = torch.randn(shape) * torch.tensor([10.0, 1.0, 0.1, 0.0])[: shape[0], None, None, None]
        # other kernels for other batches: samples that have arrived stay in this one
        torch.testing.assert_close(exported(y), block(y), rtol=1e-5, atol=1e-5)
    assert len(set(block.last_stats().nfe.tolist())) > 1  # samples took steps of their own


@torch.no_grad()
def test_an_exported_sample_that_does_not_arrive_is_nan():
    class Decay(torch.nn.Module):
        def forward(self, t, y):
            return -y * y.abs().amax(1, keepdim=True)  # steeper, the larger the sample

    block = ODEBlock(Decay(), rtol=1e-5, max_nfe=40)
    exported = torch.export.export(block, (torch.ones(3, 2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    y = torch.tensor([[1.0, 0.5], [1e9, 1.0], [float("inf"), 1.0], [0.0, 0.0]])
    with pytest.raises(SolverError, match="sample 1"):
        block(y[:2])
    found = exported(y)
    assert found[1:3].isnan().all()
    torch.testing.assert_close(found[[0, 3]], block(y[[0, 3]]), rtol=0, atol=0)


def _dynamic() -> dict:
    """Any batch; sizes are multiples of 2, the number that this network halves by."""
    height, width = (torch.export.Dim(name, min=2) for name in ("half_height", "half_width"))
    return {"x": {0: torch.export.Dim("batch"), 2: 2 * height, 3: 2 * width}}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # of the exporter itself
def test_export_and_onnx_of_equal_steps_equal_eager():
    net, file = _net(channels=(2, 4), method="midpoint", num_steps=1), io.BytesIO()
    program = torch.export.export(net, (torch.randn(2, 3, 8, 12),), dynamic_shapes=_dynamic())
    images = [image for image in _images() if min(image.shape[2:]) >= 4]  # a map of one voxel is another program
    assert len({image.shape for image in images}) > 3
    for image in images:
        torch.testing.assert_close(program.module()(image), net(image), rtol=1e-5, atol=1e-5)
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.onnx.export(program, dynamo=True, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for image in images:
        (out,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        # other kernels; the norm of an even image divides their roundings by next to nothing
        np.testing.assert_allclose(out, net(image).numpy(), rtol=1e-4, atol=1e-4)
