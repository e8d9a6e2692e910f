"""The dense pass of the pixel classifier against its literal, strided form on windows."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from unet_ode.nets.pixel_classifier import PixelClassifier


def _net(*args, **kwargs) -> PixelClassifier:
    """A network whose biases are not zero, so that a bias that is lost shows."""
    torch.manual_seed(0)
    net = PixelClassifier(*args, **kwargs).eval()
    for module in net.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias)
    return net


def _image(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def _logits_of_all_windows(net: PixelClassifier, image: torch.Tensor) -> torch.Tensor:
    """numpy's reflection mirrors any number of times; one window per pixel, in reading order."""
    dims, half = image.dim() - 2, net.window // 2
    padded = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), *[(half, half)] * dims], mode="reflect"))
    for axis in range(2, image.dim()):
        padded = padded.unfold(axis, net.window, 1)
    windows = padded[0].movedim(0, dims).flatten(0, dims - 1)
    logits = torch.cat([net.classify_windows(some) for some in windows.split(16)])  # a few at a time, for memory
    return logits.T.reshape(1, -1, *image.shape[2:])


@torch.no_grad()
@pytest.mark.parametrize(
    "dtype, channels, tolerance",
    # The order of summation differs; 1e-5 and 1e-12 are a few hundred roundings of logits of size ten.
    [(torch.float32, (48, 48, 48, 48), 1e-5), (torch.float64, (8, 8, 8, 8), 1e-12)],
)
def test_every_pixel_equals_its_window(dtype, channels, tolerance):
    net, image = _net(2, 1, 2, channels=channels).to(dtype), _image(1, 1, 24, 20, dtype=dtype)
    windows = _logits_of_all_windows(net, image)
    assert windows.std() > 0.1  # the logits differ from pixel to pixel, or equality would say little
    torch.testing.assert_close(net(image), windows, rtol=tolerance, atol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize(
    "spatial_dims, kernel_sizes, window, size",
    # Back from a last map of 3: 2 * 3 + 2 - 1 = 7; 2 * 3 + 3 - 1 = 8, 2 * 8 + 4 - 1 = 19; 7, 2 * 7 + 2 - 1 = 15.
    [(2, (2,), 7, (9, 12)), (2, (4, 3), 19, (11, 2)), (2, (2, 2), 15, (40, 3)), (3, (2, 2), 15, (5, 4, 6))],
)
def test_window_follows_from_the_kernels(spatial_dims, kernel_sizes, window, size):
    net = _net(spatial_dims, 3, 4, (5,) * len(kernel_sizes), kernel_sizes, hidden=6, act="prelu").double()
    image = _image(1, 3, *size, dtype=torch.float64)
    assert net.window == window
    torch.testing.assert_close(net(image), _logits_of_all_windows(net, image), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_windows_go_through_the_layers_of_table_1():
    net = _net(2, 1, 2)
    layers: list[nn.Module] = []
    for width, kernel in zip((1, 48, 48, 48), (4, 5, 4, 4), strict=True):
        layers += [nn.Conv2d(width, 48, kernel), nn.ReLU(), nn.MaxPool2d(2)]
    literal = nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 9, 200), nn.ReLU(), nn.Linear(200, 2))
    state = zip(literal.state_dict(), net.state_dict().values(), strict=True)
    shapes = literal.state_dict()
    literal.load_state_dict({name: weight.reshape(shapes[name].shape) for name, weight in state})
    windows = _image(2, 1, 95, 95)
    sides, x = [], windows
    for layer in literal[:12]:
        x = layer(x)
        sides.append(x.shape[-1])
    assert [s for i, s in enumerate(sides) if i % 3 != 1] == [92, 46, 42, 21, 18, 9, 6, 3]
    torch.testing.assert_close(net.classify_windows(windows), literal(windows), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_windows_see_the_weights_that_the_layers_have():
    """Also where a layer has no bias, or a parametrization works out its weight."""
    net = _net(2, 1, 2, channels=(4,) * 4).double()
    net.hidden.bias = None
    torch.nn.utils.parametrizations.weight_norm(net.stages[1][0])
    image = _image(1, 1, 24, 20, dtype=torch.float64)
    torch.testing.assert_close(net(image), _logits_of_all_windows(net, image), rtol=1e-11, atol=1e-11)


def test_number_of_parameters():
    convolutions = 48 * (1 * 16 + 1) + 48 * (48 * 25 + 1) + 2 * 48 * (48 * 16 + 1)  # 816 + 57 648 + 2 * 36 912
    connected = 200 * (48 * 3 * 3 + 1) + 2 * (200 + 1)  # 86 600 + 402
    assert convolutions + connected == 219_290
    assert sum(p.numel() for p in PixelClassifier(2, 1, 2).parameters()) == 219_290


@torch.no_grad()
def test_valid_is_the_interior_of_reflect():
    image = _image(1, 1, 100, 97, dtype=torch.float64)
    reflect, valid = _net(2, 1, 2, (4,) * 4).double(), _net(2, 1, 2, (4,) * 4, padding="valid").double()
    assert (reflect.window, reflect.margin, valid.window, valid.margin) == (95, 0, 95, 47)
    out = valid(image)
    assert out.shape == (1, 2, 6, 3)
    torch.testing.assert_close(out, reflect(image)[..., 47:-47, 47:-47], rtol=1e-12, atol=1e-12)


def test_weights_are_drawn_by_he():
    net = PixelClassifier(2, 1, 2)
    for layer, fan_in in ((net.stages[1][0], 48 * 25), (net.hidden, 48 * 9)):
        # 57 600 and 86 400 draws: the standard deviation is known to 0.3 %, five times that is allowed.
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.015)
        assert not layer.bias.any()


@torch.no_grad()
def test_dropout_is_on_the_hidden_neurons():
    net = _net(2, 1, 2, (3, 3), (2, 2), hidden=5, dropout=1.0).train()
    out = net(_image(1, 1, 6, 6))
    torch.testing.assert_close(out, net.classify[-1].bias[:, None, None].expand(1, 2, 6, 6), rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("padding", ["reflect", "valid"])
def test_script_and_trace_hold_for_another_shape(padding):
    net = _net(2, 1, 2, (3, 3), (2, 4), padding=padding)
    image = _image(2, 1, 31, 24)
    for compiled in (torch.jit.script(net), torch.jit.trace(net, _image(1, 1, 25, 25))):
        torch.testing.assert_close(compiled(image), net(image), rtol=1e-6, atol=1e-6)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # of the exporter itself
def test_onnx_holds_for_another_shape():
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, file = _net(2, 1, 2, (3, 3), (2, 2)), io.BytesIO()
    free = {0: "batch", 2: "height", 3: "width"}
    dims = {"x": {axis: torch.export.Dim(name) for axis, name in free.items()}}
    program = torch.onnx.export(net, (_image(2, 1, 20, 30),), dynamo=True, dynamic_shapes=dims, verbose=False)
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    image = _image(1, 1, 5, 17)  # smaller than the reflection, too
    (out,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    np.testing.assert_allclose(out, net(image).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"spatial_dims": 1}, "spatial_dims is 1"),
        ({"padding": "same"}, "padding is 'same'"),
        ({"kernel_sizes": (4, 5)}, "one positive kernel size for each"),
        ({"channels": (), "kernel_sizes": ()}, "at least one stage"),
        ({"kernel_sizes": (4, 5, 4, 0)}, "one positive kernel size"),
        ({"kernel_sizes": (5, 5, 4, 4)}, "window of 96 pixels.*make the first kernel size even, 5 is odd"),
    ],
)
def test_arguments_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PixelClassifier(**{"spatial_dims": 2, "in_channels": 1, "out_channels": 2, **kwargs})


@pytest.mark.parametrize(
    "padding, size, message",
    [
        ("reflect", (1, 9), "got 1 pixels along axis 2; expected at least 2: pad"),
        ("valid", (95, 94), "got 94 pixels along axis 3; expected at least 95: pad"),
    ],
)
def test_images_that_are_too_small(padding, size, message):
    with pytest.raises(ValueError, match=message):
        PixelClassifier(2, 1, 2, (1,) * 4, padding=padding)(torch.zeros(1, 1, *size))


def test_windows_of_the_wrong_side():
    with pytest.raises(ValueError, match=r"windows are \(95, 96\); expected 95 pixels a side"):
        PixelClassifier(2, 1, 2, (1,) * 4).classify_windows(torch.zeros(1, 1, 95, 96))
