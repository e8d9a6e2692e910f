"""The network of a bundle's folder, and what is wrong with a folder that has none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from bundlekit.errors import InputError
from tools.bundle_folder import load_network

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/nuclei_microscopy_segmentation"


def test_the_shipped_weights_and_others(tmp_path):
    network = load_network(BUNDLE)
    saved = torch.load(BUNDLE / "models/model.pt", weights_only=True)
    assert not network.training
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())
    zeros = {name: torch.zeros_like(value) for name, value in saved.items()}
    torch.save(zeros, tmp_path / "zeros.pt")
    other = load_network(BUNDLE, ckpt_path=tmp_path / "zeros.pt")
    assert not any(value.any() for value in other.state_dict().values())


def test_an_overlay_changes_the_network_and_so_the_weights_that_fit():
    with pytest.raises(InputError, match=r"model\.pt: tensors do not match"):
        load_network(BUNDLE, "net_no_batch_norm")
    with pytest.raises(InputError, match=r"net_none\.json: cannot be read .*; expected a JSON object"):
        load_network(BUNDLE, "net_none")


@pytest.mark.parametrize(
    ("network_def", "told"),
    [
        ({"_target_": "unet_ode.nets.VGGUNet", "width": "broad"}, "network_def cannot be built"),
        ({"_target_": "unet_ode.nets.None"}, "network_def cannot be built"),
        (3, "network_def is a int; expected a torch.nn.Module"),
    ],
)
def test_a_network_that_cannot_be_built(tmp_path, network_def, told):
    (tmp_path / "configs").mkdir()
    shutil.copy(BUNDLE / "configs/metadata.json", tmp_path / "configs")
    (tmp_path / "configs/inference.json").write_text(json.dumps({"network_def": network_def}))
    with pytest.raises(InputError, match=told):
        load_network(tmp_path)
