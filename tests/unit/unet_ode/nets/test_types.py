"""Types of weights and images: equal ones work to the accuracy that they have, others are refused by name."""

from __future__ import annotations

import copy

import pytest
import torch

from unet_ode.nets import Localizer, LocalizerUNet, PixelClassifier, UNet, UNode, UResNet, VGGUNet

NETWORKS = {
    "UNet": lambda: UNet(2, 3, 2, (4, 8), padding="same"),
    "UResNet": lambda: UResNet(2, 3, 2, (4, 8)),
    "UNode": lambda: UNode(2, 3, 2, (4, 8), method="rk4", num_steps=2),
    "VGGUNet": lambda: VGGUNet(2, 3, 1, width=0.125, batch_norm=True),
    "LocalizerUNet": lambda: LocalizerUNet(2, 3, 1, (4, 8)),
    "Localizer": lambda: Localizer(2, 3, (64, 64), (4, 8)),
    "PixelClassifier": lambda: PixelClassifier(2, 3, 2),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    network = NETWORKS[request.param]().eval()
    if isinstance(network, Localizer):
        torch.nn.init.normal_(network.head.weight, std=10)  # starts from zero
    return network


IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def relative_error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.uint8])
def test_an_image_of_another_type_is_refused(network, dtype, training):
    with pytest.raises(
        TypeError, match=rf"image of {dtype} and has weights of torch.float32; .* image.to\(torch.float32\)"
    ):
        network.train(training)(IMAGE.to(dtype))


def test_weights_of_64_bits_take_images_of_64_bits_and_agree(network):
    with torch.no_grad():
        expected = network(IMAGE)
        found = network.double()(IMAGE.double())
        assert found.dtype == torch.float64 and relative_error(found, expected) < 1e-4
        assert relative_error(found.float(), found) > 0
        with pytest.raises(
            TypeError, match=r"image of torch.float32 and has weights of torch.float64; .*\(torch.float64"
        ):
            network(IMAGE)


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float16, 0.01), (torch.bfloat16, 0.06)])
def test_weights_of_16_bits(network, dtype, accuracy):
    """A rounding of 2^-11 or 2^-8 in each of some ten layers; refused where small steps add up to the output."""
    with torch.no_grad():
        expected = network(IMAGE)
        short = copy.deepcopy(network).to(dtype)
        if isinstance(network, UNode):
            with pytest.raises(TypeError, match=rf"block 'down1': .*{dtype}.* use torch.autocast"):
                short(IMAGE.to(dtype))
            with pytest.raises(TypeError, match=rf"weights of {dtype}; .* call float\(\) .* use torch.autocast"):
                short(IMAGE)
        else:
            assert 0 < relative_error(short(IMAGE.to(dtype)), expected) < accuracy
            with pytest.raises(TypeError, match=rf"weights of {dtype}; .* call float\(\) .* use torch.autocast"):
                short(IMAGE)
        with torch.autocast("cpu", dtype=dtype):
            assert relative_error(network(IMAGE), expected) < accuracy
            assert relative_error(network(IMAGE.to(dtype)), expected) < accuracy
            with pytest.raises(TypeError, match=r"image of torch\.float64"):
                network(IMAGE.double())


def test_a_state_dict_saved_in_16_bits_loads_into_32(network):
    with torch.no_grad():
        expected = network(IMAGE)
        network.load_state_dict(
            {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
        )
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        assert 0 < relative_error(network(IMAGE), expected) < 0.005
