"""Types of weights and images: equal ones work to the accuracy that they have, others are refused by name."""

from __future__ import annotations

import copy

import pytest
import torch

from invres3d.nets import FullyInvertibleUNet, PartiallyInvertibleUNet, UNet3D

NETWORKS = {
    "FullyInvertibleUNet": lambda: FullyInvertibleUNet(2, 3, (8, 16), num_couplings=1),
    "PartiallyInvertibleUNet": lambda: PartiallyInvertibleUNet(2, 3, (8, 16), num_couplings=1),
    "UNet3D": lambda: UNet3D(2, 3, (4, 8), vae=True),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval()


IMAGE = torch.randn(1, 2, 8, 8, 8, generator=torch.Generator().manual_seed(1))


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
        if not isinstance(network, UNet3D):
            for image in (IMAGE, IMAGE.to(dtype)):
                with pytest.raises(
                    TypeError, match=rf"has weights of {dtype}; .* call float\(\) .* use torch.autocast"
                ):
                    short(image)
                with pytest.raises(TypeError, match=rf"has weights of {dtype}; expected 32 bits at least"):
                    short.train()(image)
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


@pytest.mark.parametrize("cls", [FullyInvertibleUNet, PartiallyInvertibleUNet])
@pytest.mark.parametrize("part", ["stem", "chain.head", "vae.mean"])
def test_one_part_of_16_bits_is_named(cls, part):
    network = cls(2, 3, (8, 16), num_couplings=1)
    network.get_submodule(part).bfloat16()
    with pytest.raises(TypeError, match=rf"{cls.__name__} has weights of torch.bfloat16; expected 32 bits at least"):
        network(IMAGE)


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float16, 0.03), (torch.bfloat16, 0.15)])
def test_the_plain_network_trains_with_weights_of_16_bits(dtype, accuracy):
    grads = []
    for t in (torch.float32, dtype):
        torch.manual_seed(0)
        network = UNet3D(2, 3, (4, 8), vae=True).to(t)
        logits, l2, _ = network(IMAGE.to(t))
        (logits.float().square().mean() + l2.mean()).backward()
        grads.append(torch.cat([p.grad.float().flatten() for p in network.parameters() if p.grad is not None]))
    assert 0 < relative_error(grads[1], grads[0]) < accuracy
