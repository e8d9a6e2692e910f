"""Weights of VGG-16 for the encoder: the published names and shapes, and what is reported where they do not fit."""

from __future__ import annotations

import pytest
import torch

from unet_ode.nets import VGGUNet, load_encoder, vgg_weights

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
"""Configuration D of Simonyan and Zisserman: widths of the convolutions, M a pooling."""
# places of the convolutions in the published vgg16_bn and vgg16, read off their state dicts
CONVS_BN = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def published(batch_norm: bool, width: float = 1.0) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's state dict, classifier included."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 3
    widths = [round(width * out) for out in VGG16 if out != "M"]
    for place, out in zip(CONVS_BN if batch_norm else CONVS, widths, strict=True):
        shapes |= {f"features.{place}.weight": (out, channels, 3, 3), f"features.{place}.bias": (out,)}
        if batch_norm:
            names = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"features.{place + 1}.{name}": (out,) for name in names}
            shapes[f"features.{place + 1}.num_batches_tracked"] = ()
        channels = out
    return shapes | {"classifier.0.weight": (8, 8), "classifier.0.bias": (8,)}


def random_state(batch_norm: bool, width: float = 1.0) -> dict[str, torch.Tensor]:
    def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(7) if name.endswith("tracked") else torch.rand(shape)

    return {name: tensor(name, shape) for name, shape in published(batch_norm, width).items()}


@pytest.mark.parametrize("batch_norm", [True, False])
def test_names_and_shapes_of_the_encoder_are_the_published_ones(batch_norm):
    own = {k: tuple(v.shape) for k, v in VGGUNet(batch_norm=batch_norm).state_dict().items() if k.startswith("feat")}
    wanted = {name: shape for name, shape in published(batch_norm).items() if name.startswith("features")}
    assert own == wanted and len(own) == (91 if batch_norm else 26)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_published_weights_load_from_a_file(tmp_path, batch_norm):
    state = random_state(batch_norm)
    torch.save(state, tmp_path / "vgg.pth")
    network = VGGUNet(batch_norm=batch_norm)
    before = network.bottom[0].weight.clone()
    assert load_encoder(network, tmp_path / "vgg.pth") is network
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items() if name.startswith("features"))
    assert torch.equal(network.bottom[0].weight, before)


def test_published_weights_come_from_the_hub_when_asked_for(tmp_path, monkeypatch):
    """The cache that torch.hub looks in first holds the file under its published name."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    for batch_norm, name in ((True, "vgg16_bn-6c64b313.pth"), (False, "vgg16-397923af.pth")):
        state = random_state(batch_norm)
        torch.save(state, tmp_path / "hub/checkpoints" / name)
        network = load_encoder(VGGUNet(batch_norm=batch_norm), "imagenet")
        assert torch.equal(network.features[0].weight, state["features.0.weight"])


def test_no_source_leaves_the_network_alone():
    network = VGGUNet(width=1 / 64)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert load_encoder(network, None) is network
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (lambda state: state.pop("features.3.bias"), "1 tensors do not match, first features.3.bias"),
        (lambda state: state.update({"features.50.weight": torch.zeros(1)}), "1 tensors.*first features.50.weight"),
        (lambda state: state.update({"features.7.bias": torch.zeros(3)}), "1 tensors.*first features.7.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, first):
    state = random_state(True, width=1 / 16)
    change(state)
    torch.save(state, tmp_path / "vgg.pth")
    with pytest.raises(ValueError, match=f"{first}; expected the 91 of VGG-16 with batch norm.*width 1"):
        load_encoder(VGGUNet(width=1 / 16), tmp_path / "vgg.pth")


def test_weights_that_are_not_finite_are_named(tmp_path):
    state = random_state(True, width=1 / 16)
    state["features.4.running_var"][::2] = torch.nan
    state["features.7.weight"][0, 0, 0, 0] = torch.inf
    torch.save(state, tmp_path / "vgg.pth")
    found = (
        "2 of 91 tensors have values that are NaN or infinite, first features.4.running_var; expected finite weights"
    )
    with pytest.raises(ValueError, match=found):
        load_encoder(VGGUNet(width=1 / 16), tmp_path / "vgg.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none.pth: does not exist; expected weights of VGG-16, or 'imagenet'"):
        load_encoder(VGGUNet(width=1 / 64), tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("content", "told"), [(b"junk", "cannot be loaded with weights_only=True"), ([1.0], "is a list; expected a state")]
)
def test_what_holds_no_weights_is_named(tmp_path, content, told):
    path = tmp_path / "vgg.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=f"vgg.pth: {told}"):
        load_encoder(VGGUNet(width=1 / 64), path)


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # where nothing was downloaded before
    monkeypatch.setattr(vgg_weights, "_URLS", {True: "http://127.0.0.1:9/vgg.pth"})  # nobody listens
    with pytest.raises(ValueError, match=r"imagenet: .* cannot be downloaded .*; expected access to it: try again, or"):
        load_encoder(VGGUNet(width=1 / 64), "imagenet")
