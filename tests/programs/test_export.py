"""The comparison of exported networks with PyTorch's, and the files of a bundle."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest
import torch

from tests.commands import run
from tools.bundle_folder import read_config
from tools.formats import FORMATS, open_exported, write_exported

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "tools/export.py"
SPEC = importlib.util.spec_from_file_location("export", PATH)
export = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(export)
BUNDLES = sorted(path.parent.parent for path in (ROOT / "bundles").glob("*/configs/metadata.json"))
assert BUNDLES


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_sizes_are_two_that_differ_along_every_axis(bundle):
    first, second = export.image_shapes(bundle, torch.nn.Identity())
    image = read_config(bundle / "configs/metadata.json")["network_data_format"]["inputs"]["image"]
    assert first[0] == second[0] == image["num_channels"]
    assert all(a != b for a, b in zip(first[1:], second[1:], strict=True)) and len(set(first[1:])) == len(first) - 1


def test_the_largest_difference_is_a_share_of_the_largest_output():
    def network(image):
        return 4 * image

    def exported(image):
        output = 4 * image
        if len(image) == 3 and image.shape[2] == 8:  # wrong only for one size and a batch of 3
            output[2, 0, 1, 1] += 1
        return output

    image = torch.rand(3, 1, 8, 6, generator=torch.Generator().manual_seed(3))
    wanted = 1 / (4 * image).max().item()
    assert export.largest_difference(exported, network, [(1, 6, 4), (1, 8, 6)]) == pytest.approx(wanted)


def test_what_is_no_number_is_no_small_difference():
    def exported(image):
        return image * (float("nan") if len(image) == 3 else 1)

    assert not export.largest_difference(exported, lambda image: image, [(1, 6, 4), (1, 8, 6)]) <= export.TOLERANCE


@pytest.mark.parametrize("change", [lambda y: torch.cat([y, y], 1), torch.Tensor.double, lambda y: y[:1]])
def test_outputs_of_another_shape_or_type_are_no_small_difference(change):
    assert export.largest_difference(lambda x: change(2 * x), lambda x: 2 * x, [(1, 8, 8)]) == float("inf")


def test_an_image_that_is_written_over_hides_nothing():
    assert export.largest_difference(lambda x: x.mul_(2), lambda x: 3 * x, [(1, 8, 8)]) == pytest.approx(1 / 3)


def test_a_network_of_several_outputs_is_told(tmp_path):
    write_metadata(tmp_path, num_channels=1, spatial_shape=["8*n", "8*n"])
    with pytest.raises(ValueError, match=r"cannot be used \(AttributeError"):
        export.image_shapes(tmp_path, torch.nn.MaxPool2d(2, return_indices=True))


def write_metadata(bundle: Path, **image: object) -> None:
    (bundle / "configs").mkdir(exist_ok=True)
    metadata = {"network_data_format": {"inputs": {"image": image}}}
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata))


@pytest.mark.parametrize("shape", [["32*m", "32*n"], ["32//(n-n)", "32*n"], ["32*n/2", "32*n"], ["-n", "n"], None, 3])
def test_sizes_that_cannot_be_used_are_told(tmp_path, shape):
    write_metadata(tmp_path, num_channels=1, spatial_shape=shape)
    with pytest.raises(
        ValueError,
        match=r"metadata.json: network_data_format cannot be used \(.*\); expected num_channels and spatial_shape of ",
    ):
        export.image_shapes(tmp_path, torch.nn.Identity())


def test_images_that_the_network_does_not_take_are_told(tmp_path):
    write_metadata(tmp_path, num_channels=2, spatial_shape=["8*n", "8*n"])
    with pytest.raises(
        ValueError, match=r"cannot be used \(RuntimeError: .*expected num_channels and spatial_shape of inputs, image"
    ):
        export.image_shapes(tmp_path, torch.nn.Conv2d(1, 1, 3))


def test_weights_that_give_no_numbers_are_told(tmp_path):
    write_metadata(tmp_path, num_channels=1, spatial_shape=["8*n", "8*n"])
    network = torch.nn.Conv2d(1, 1, 1)
    torch.nn.init.constant_(network.bias, float("nan"))
    with pytest.raises(ValueError, match=r"model.pt: the network returns values that are not finite; expected finite"):
        export.image_shapes(tmp_path, network)


class Adaptive(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while float(x.detach().abs().max()) > 1:
            x = x / 2
        return x


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_a_network_whose_steps_depend_on_the_image_is_told(tmp_path, ending):
    told = rf"model.{ending}: the network cannot be exported \(.*\); expected operations that .*net_fixed_step.json"
    with pytest.raises(ValueError, match=told):
        write_exported(tmp_path, Adaptive().eval(), torch.rand(2, 1, 8, 8), tmp_path / f"model.{ending}")


@pytest.mark.parametrize("name", ["out", "out/files"])
def test_an_output_that_is_a_file_is_named(tmp_path, name):
    (tmp_path / "out").touch()
    done = run(PATH, "--output", tmp_path / name)
    assert done.returncode == 2 and f"{tmp_path / name}: cannot be created or written" in done.stderr


@pytest.mark.slow
def test_an_export_that_is_stopped_ends_what_it_started_and_removes_its_folder(tmp_path):
    command = [sys.executable, str(PATH), "lung_ct_segmentation", "--formats", "ts", "--output", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert "ckpt_export" in process.stdout.readline()
        while not (children := psutil.Process(process.pid).children()):
            time.sleep(0.1)
        time.sleep(2)  # it has begun for good
        process.terminate()
        assert process.wait(60) == 1
    assert not any(child.is_running() for child in children) and list(tmp_path.iterdir()) == []


def test_a_bundle_that_does_not_exist_is_named():
    done = run(PATH, "lungs")
    assert done.returncode == 2 and "there is no bundle lungs; expected some of brain_tumor" in done.stderr


def test_an_exported_program_holds_network_and_configs_and_no_path(tmp_path):
    write_metadata(tmp_path, num_channels=1, spatial_shape=["4*n", "4*n"])
    (tmp_path / "configs/inference.json").write_text('{"device": "µ"}')
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.BatchNorm2d(2), torch.nn.Dropout())
    network.eval()
    path = tmp_path / "model.pt2"
    write_exported(tmp_path, network, torch.rand(2, 1, 8, 12), path)
    exported = open_exported(path)
    assert export.largest_difference(exported.network, network, [(1, 8, 12), (1, 20, 4)]) == 0
    assert exported.state_dict.keys() == network.state_dict().keys()
    assert exported.configs == {path.name: path.read_text() for path in (tmp_path / "configs").iterdir()}
    (image,), _ = torch.export.load(path).example_inputs
    assert image.shape == (1, 1, 8, 12)
    with zipfile.ZipFile(path) as archive:  # of the machine that exported it
        assert not any(str(Path(torch.__file__).parent).encode() in archive.read(name) for name in archive.namelist())


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_that_is_no_exported_network_is_named(tmp_path, ending):
    path = tmp_path / f"model.{ending}"
    path.write_bytes(b"none")
    with pytest.raises(ValueError, match=rf"model.{ending}: cannot be loaded \(.*\); expected a network as "):
        open_exported(path)


@pytest.mark.slow
def test_all_files_are_the_shipped_network(tmp_path, monkeypatch):
    bundle = ROOT / "bundles/lung_ct_segmentation"
    rows = export.export(bundle, tmp_path, FORMATS, [])
    assert [row["file"].name for row in rows] == [f"{bundle.name}_model.{ending}" for ending in FORMATS]
    assert all(row["off"] <= export.TOLERANCE for row in rows)
    state = torch.load(bundle / "models/model.pt", weights_only=True)
    other = export.load_network(bundle)
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    for row in rows:
        exported = open_exported(row["file"])
        assert export.largest_difference(exported.network, other, row["sizes"]) > export.TOLERANCE
        if row["file"].suffix != ".onnx":
            assert all(torch.equal(state[name], exported.state_dict[name]) for name in state)
    shutil.copy(rows[-1]["file"], tmp_path / "copy.onnx")  # all of it is in this one file
    assert open_exported(tmp_path / "copy.onnx").network(torch.rand(2, 1, 32, 32)).shape == (2, 1, 32, 32)

    monkeypatch.setattr(export, "TOLERANCE", -1.0)  # nothing is right now
    script = tmp_path / f"{bundle.name}_model.ts"
    before = script.read_bytes()
    (row,) = export.export(bundle, tmp_path, ["ts"], [])
    assert row["file"] == script and row["mib"] > 1
    assert script.read_bytes() == before and not list(tmp_path.glob(".export-*"))
