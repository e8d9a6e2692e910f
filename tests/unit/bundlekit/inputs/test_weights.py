"""Weights that do not belong to a network; names and shapes follow from the layers' definitions."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from bundlekit.errors import InputError
from bundlekit.inputs.weights import check_weights


def network(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.Conv2d(width, 2, 1))


def message(path, model=None) -> str:
    with pytest.raises(InputError) as caught:
        check_weights(path, model)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line[len(f"{path}: ") :]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pt"


def test_own_weights(path):
    torch.save(network().state_dict(), path)
    check_weights(path, network())
    check_weights(path)


def test_no_file(path):
    found, _, remedy = message(path).split("; ")
    assert found == "cannot be opened (No such file or directory)"
    assert remedy == "train the network first, or pass a file of weights with --ckpt_path"


def test_a_folder(path):
    path.mkdir()
    assert message(path).startswith("cannot be opened (Is a directory)")


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_no_weights_inside(path, damage):
    torch.save(network().state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"version 1, not a zip file")
    line = message(path)
    assert line.startswith("cannot be loaded with weights_only=True (")
    assert line.endswith("; copy it again, or save it again with torch.save(network.state_dict(), FILE)")


def test_the_reason_names_the_exception(path):
    path.write_bytes(b"hello")  # to pickle "h" means: fetch object number ord("e") = 101, of which there is none
    assert message(path).startswith("cannot be loaded with weights_only=True (KeyError: 101); expected")


def test_a_pickled_network(path):
    torch.save(network(), path)
    assert message(path).startswith(
        "cannot be loaded with weights_only=True (UnpicklingError: Weights only load failed."
    )


def test_a_whole_checkpoint(path):
    torch.save({"model": network().state_dict(), "epoch": 3}, path)
    assert message(path, network()) == (
        "its entry 'model' is of type OrderedDict; expected a flat state_dict (name -> tensor); "
        "save only network.state_dict(), not a whole checkpoint"
    )


def test_a_list(path):
    torch.save([torch.zeros(1)], path)
    assert message(path).startswith("is of type list; expected a flat state_dict")


def test_weights_of_another_width(path):
    torch.save(network(5).state_dict(), path)
    # 3 of the 4 tensors depend on the width: both of the first layer, and the second layer's weight
    assert message(path, network(4)) == (
        "tensors do not match: 3 of other shape (first 0.weight: (5, 1, 3, 3) in the file, (4, 1, 3, 3) in the "
        "network); expected the 4 tensors of Sequential; pass weights of this network with --ckpt_path, or append the "
        "overlays that the weights were trained with"
    )


def test_weights_with_other_names(path):
    state = network().state_dict()
    state["2.weight"] = state.pop("1.weight").flatten()
    torch.save(state, path)
    assert message(path, network()).startswith(
        "tensors do not match: 1 missing (first 1.weight: (2, 4, 1, 1) in the network), "
        "1 unexpected (first 2.weight: (8,) in the file); expected"
    )


def test_a_network_spread_over_processes(path, tmp_path):
    torch.save(network().state_dict(), path)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting_point", rank=0, world_size=1)
    try:
        check_weights(path, nn.parallel.DistributedDataParallel(network()))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_and_buffers_that_are_not_finite(path, dtype, value):
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)).to(dtype)
    torch.save(model.state_dict(), path)
    check_weights(path, model)
    state = model.state_dict()
    state["1.running_var"][::2] = value  # half of them
    torch.save(state, path)
    line = (
        "1 of 7 tensors have values that are NaN or infinite (first 1.running_var: 4 of 8); expected finite weights; "
        "pass weights of a training that did not diverge"
    )
    assert message(path, model) == message(path) == line
    state["0.weight"][3, 0, 1, 1] = value
    torch.save(state, path)
    assert message(path).startswith("2 of 7 tensors have values that are NaN or infinite (first 0.weight: 1 of 72); ")
