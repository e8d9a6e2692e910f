"""Localiser and U-Net: what moves between them, what a frozen encoder keeps, and the same maths written differently."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from unet_ode.nets import Encoder, Localizer, LocalizerUNet, UNet, load_localizer, transfer_encoder

CHANNELS = (4, 8, 16)
SIZES = {2: (16, 24), 3: (8, 12, 16)}


def with_statistics(network: nn.Module) -> nn.Module:
    """Batch norms whose statistics are not the initial 0 and 1, and a fully connected layer that is not 0."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network


@pytest.fixture(params=[2, 3])
def dims(request) -> int:
    return request.param


def pair(dims: int) -> tuple[Localizer, LocalizerUNet]:
    localizer = with_statistics(Localizer(dims, 1, SIZES[dims], CHANNELS))
    return localizer, LocalizerUNet(dims, 1, 2, CHANNELS)


def test_transfer_moves_the_whole_encoder_and_nothing_else(dims):
    localizer, network = pair(dims)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    moved = transfer_encoder(localizer.state_dict(), network)
    own = network.state_dict()
    assert moved == [name for name in own if name.startswith("encoder.")]
    # two convolutions and batch norms of five tensors in each of three levels
    assert len(moved) == 3 * 2 * (1 + 5)
    assert all(torch.equal(own[name], localizer.state_dict()[name]) for name in moved)
    assert all(torch.equal(own[name], before[name]) for name in own if name not in moved)
    image = torch.rand(1, 1, *SIZES[dims])
    for a, b in zip(localizer.eval().encoder(image), network.eval().encoder(image), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "other, first",
    [
        (Localizer(2, 1, (16, 16), (4, 8, 32)), "encoder.levels.2.conv1.weight"),
        (Localizer(2, 1, (16, 16), (4, 8)), "encoder.levels.2.conv1.weight"),
        (Localizer(2, 3, (16, 16), CHANNELS), "encoder.levels.0.conv1.weight"),
    ],
)
def test_transfer_is_strict(other, first, tmp_path):
    network = LocalizerUNet(2, 1, 1, CHANNELS)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.save(other.state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=rf"other.pt: \d+ tensors of the two encoders do not match, first {first}"):
        load_localizer(network, tmp_path / "other.pt")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_keeps_weights_and_statistics_after_train(dims, frozen):
    localizer, _ = pair(dims)
    network = LocalizerUNet(dims, 1, 2, CHANNELS, freeze_encoder=frozen)
    transfer_encoder(localizer.state_dict(), network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, weight_decay=0.1)
    network.eval().train()
    network(torch.rand(2, 1, *SIZES[dims])).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    encoder = {name for name in before if name.startswith("encoder.")}
    assert changed & encoder == (set() if frozen else encoder)
    assert changed >= before.keys() - encoder


def test_an_encoder_can_be_unfrozen_and_frozen_again():
    network = LocalizerUNet(2, 1, 1, CHANNELS).train()
    for frozen in (False, True):
        network.set_frozen(frozen)
        assert network.encoder.training != frozen and network.merge.training
        assert all(p.requires_grad != frozen for p in network.encoder.parameters())
    network.eval().set_frozen(False)
    assert not network.encoder.training


def test_phase_two_is_the_u_net_of_the_same_widths(dims):
    """The same weights in UNet, whose forward pass is another program."""
    network = with_statistics(LocalizerUNet(dims, 1, 2, CHANNELS)).eval()
    unet = UNet(dims, 1, 2, CHANNELS, padding="same", norm="batch").eval()
    unet.load_state_dict({k.replace("encoder.levels", "down"): v for k, v in network.state_dict().items()})
    image = torch.rand(2, 1, *SIZES[dims])
    torch.testing.assert_close(network(image), unet(image), rtol=0, atol=1e-6)  # the same float32 operations


def test_phase_one_is_a_fully_connected_layer_on_the_lowest_map(dims):
    localizer, _ = pair(dims)
    image = torch.rand(3, 1, *SIZES[dims])
    localizer.eval().double()
    lowest = localizer.encoder(image.double())[-1].detach().numpy().reshape(3, -1)
    weight, bias = (p.detach().numpy() for p in (localizer.head.weight, localizer.head.bias))
    expected = np.array(SIZES[dims]) * (0.5 + lowest @ weight.T / np.sqrt(lowest.shape[1]) + bias)
    np.testing.assert_allclose(localizer(image.double()).detach().numpy(), expected, rtol=1e-5)  # shares are float32


def test_training_starts_from_the_middle_of_the_image(dims):
    centre = Localizer(dims, 1, SIZES[dims], CHANNELS)(torch.rand(2, 1, *SIZES[dims]))
    assert centre.tolist() == [[size / 2 for size in SIZES[dims]]] * 2


def test_a_constant_shift_of_the_target_is_learnt_within_some_steps():
    """RMSprop moves the centre by less than a pixel a step, and gets there."""
    localizer = Localizer(2, 1, (16, 16), CHANNELS)
    optimizer = torch.optim.RMSprop(localizer.head.parameters(), lr=3e-3)
    image, target = torch.rand(4, 1, 16, 16), torch.full((4, 2), 10.0)
    for _ in range(60):
        loss = nn.functional.mse_loss(localizer.eval()(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1  # from (10 - 8)^2 = 4


@pytest.mark.parametrize("part", ["Localizer", "LocalizerUNet"])
def test_torchscript_and_onnx_equal_eager(part, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    localizer, unet = pair(2)
    network = {"Localizer": localizer, "LocalizerUNet": with_statistics(unet)}[part].eval()
    image = torch.rand(2, 1, 16, 24)
    expected = network(image)
    torch.testing.assert_close(torch.jit.script(network)(image), expected)
    path = tmp_path / "net.onnx"
    torch.onnx.export(network, (image[:1],), path, input_names=["x"], dynamic_axes={"x": {0: "n"}}, dynamo=False)
    (output,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": image.numpy()})
    np.testing.assert_allclose(output, expected.detach().numpy(), atol=1e-4)  # float32, other order of sums


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Encoder(1, 1), "spatial_dims is 1; expected 2 or 3"),
        (lambda: Encoder(2, 1, (4,)), "expected at least two levels"),
        (lambda: Localizer(2, 1, (16, 18), CHANNELS), "expected 2 sizes, each a multiple of 4"),
        (lambda: Localizer(2, 1, (16,), CHANNELS), "expected 2 sizes"),
        (lambda: LocalizerUNet(2, 1, 1, CHANNELS)(torch.zeros(1, 1, 8, 10)), "10 voxels along axis 3.* 8 and 12"),
        (lambda: Localizer(2, 1, (16, 16), CHANNELS)(torch.zeros(1, 1, 16, 8)), r"\[16, 8\] voxels; .*\[16, 16\]"),
    ],
)
def test_wrong_sizes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
