"""What every bundle holds and promises: files, ids that other programs look up, networks, weights, metadata."""

from __future__ import annotations

import configparser
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bundlekit.phantoms import KINDS, make_dataset
from monai.bundle import ConfigParser, verify_net_in_out
from monai.bundle.scripts import _get_fake_spatial_shape
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
MAX_FILE_BYTES = 25 * 2**20
PHANTOM_SIZE_PX = 64
FILES = """
    LICENSE configs/metadata.json configs/train.json configs/inference.json configs/evaluate.json
    configs/multi_gpu_train.json configs/logging.conf docs/README.md docs/data_license.txt scripts/prepare_data.py
    models/model.pt models/model.ts
""".split()
OVERRIDES = ["dataset_dir", "output_dir", "ckpt_path", "device", "seed", "amp"]
IDS = {
    "train": """
        bundle_root max_epochs val_interval network_def initialize run train::trainer train::trainer::max_epochs
        train::dataset train::dataset::data train::inferer train::handlers train::preprocessing validate::evaluator
        validate::handlers validate::dataset validate::dataset::data validate::preprocessing validate::postprocessing
        validate::inferer validate::key_metric
    """.split(),
    "inference": """
        bundle_root network_def initialize run dataset dataset::data evaluator inferer handlers preprocessing
        postprocessing
    """.split(),
}
REFERENCES = {
    "train": {
        "train::trainer::max_epochs": "@max_epochs",
        "train::trainer::train_handlers": "@train::handlers",
        "train::dataset::transform": "@train::preprocessing",
        "validate::dataset::transform": "@validate::preprocessing",
        "validate::dataloader::dataset": "@validate::dataset",
        "validate::evaluator::key_val_metric": "@validate::key_metric",
        "validate::evaluator::val_handlers": "@validate::handlers",
        "validate::evaluator::postprocessing": "@validate::postprocessing",
        "validate::evaluator::inferer": "@validate::inferer",
    },
    "inference": {
        "dataset::transform": "@preprocessing",
        "evaluator::val_handlers": "@handlers",
        "evaluator::postprocessing": "@postprocessing",
        "evaluator::inferer": "@inferer",
    },
}
METADATA = """
    schema version changelog monai_version pytorch_version numpy_version required_packages_version name task description
    authors copyright intended_use data_source data_type image_classes label_classes pred_classes eval_metrics references
    network_data_format
""".split()


def read(bundle: Path, name: str) -> dict[str, Any]:
    return ConfigParser.load_config_file(bundle / f"configs/{name}.json")


def tensors(bundle: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata of the network's first input and first output, under the names that MONAI Label looks for."""
    formats = read(bundle, "metadata")["network_data_format"]
    assert next(iter(formats["inputs"])) == "image", f"{bundle.name}: the first input of the metadata is not 'image'"
    assert next(iter(formats["outputs"])) == "pred", f"{bundle.name}: the first output of the metadata is not 'pred'"
    return formats["inputs"]["image"], formats["outputs"]["pred"]


def shipped_network(bundle: Path) -> torch.nn.Module:
    weights = torch.load(bundle / "models/model.pt", map_location="cpu", weights_only=True)
    nested = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    assert not nested, f"{bundle.name}: model.pt holds {nested}, expected tensors only: save network.state_dict()"
    network = ConfigParser(read(bundle, "inference")).get_parsed_content("network_def")
    network.load_state_dict(weights, strict=True)
    return network.eval()


def test_files(bundle):
    missing = [name for name in FILES if not (bundle / name).is_file()]
    assert not missing, f"{bundle.name} lacks {missing}: add them"
    versioned = [path for path in bundle.rglob("*") if path.is_file() and not {"data", "eval"} & {*path.parts}]
    large = [str(path.relative_to(bundle)) for path in versioned if path.stat().st_size > MAX_FILE_BYTES]
    assert not large, f"{bundle.name}: {large} above {MAX_FILE_BYTES} bytes: make them smaller"


@pytest.mark.parametrize("base", IDS)
def test_ids_that_others_look_up(bundle, base):
    parser = ConfigParser(read(bundle, base))
    missing = [name for name in OVERRIDES + IDS[base] if name not in parser]
    assert not missing, (
        f"{bundle.name}/{base} lacks the ids {missing}, which MONAI, MONAI Label or users name: add them"
    )
    wrong = {name: parser.get(name) for name, target in REFERENCES[base].items() if parser.get(name) != target}
    assert not wrong, f"{bundle.name}/{base} has {wrong}; MONAI finds parts by references: write {REFERENCES[base]}"


def test_training_validates_as_monai_expects(bundle):
    parser = ConfigParser(read(bundle, "train"))
    handlers = parser["train::handlers"]
    assert isinstance(handlers, list), f"{bundle.name}: train::handlers is no literal list, which MONAI Label needs"
    (validation,) = (handler for handler in handlers if handler["_target_"] == "ValidationHandler")
    assert (validation["interval"], validation["validator"]) == ("@val_interval", "@validate::evaluator")


def test_training_and_inference_use_one_network(pair):
    train, inference = (config.parser()["network_def"] for config in pair)
    assert train == inference, f"{pair[0]} and {pair[1]} differ in network_def: make the two alike"


def test_inference_sees_what_validation_saw(pair, tmp_path):
    name = pair[0].bundle.name
    make_dataset(name, tmp_path, training=0, validation=1, test=0, size=PHANTOM_SIZE_PX)
    (item,) = json.loads((tmp_path / "dataset.json").read_text())["validation"]
    item = {key: str(tmp_path / path) for key, path in item.items()}
    validated = pair[0].parser().get_parsed_content("validate::preprocessing")(dict(item))["image"]
    inferred = pair[1].parser().get_parsed_content("preprocessing")({"image": item["image"]})["image"]
    # float32 of normalised intensities: the order of two scalings may cost some 1e-6
    torch.testing.assert_close(inferred.as_tensor(), validated.as_tensor(), rtol=0, atol=1e-4)


def test_network_keeps_the_metadata(pair):
    config = pair[1]
    image, pred = tensors(config.bundle)
    network = config.parser().get_parsed_content("network_def").eval()
    margin = getattr(network, "margin", 0)
    if margin == 0:
        files = [str(path) for path in config.files]
        meta = str(config.bundle / "configs/metadata.json")
        verify_net_in_out("network_def", meta_file=meta, config_file=files, device="cpu", n=1)
        return
    # valid convolutions have sizes of their own: the smallest input has to lose the margin, and nothing else, on each side
    size = network.valid_size(1) if hasattr(network, "valid_size") else 2 * margin + 1
    with torch.no_grad():
        output = network(torch.rand(1, image["num_channels"], *[size] * len(image["spatial_shape"])))
    assert output.shape == (1, pred["num_channels"], *[size - 2 * margin] * len(pred["spatial_shape"])), str(config)
    assert str(output.dtype) == f"torch.{pred['dtype']}", f"{config}: {output.dtype}, metadata says {pred['dtype']}"


def test_weights_fit_the_network(bundle):
    shipped_network(bundle)


def test_torchscript_is_the_shipped_network(bundle):
    image, pred = tensors(bundle)
    x = torch.rand(1, image["num_channels"], *_get_fake_spatial_shape(image["spatial_shape"]))
    with torch.no_grad():
        expected = shipped_network(bundle)(x)
        scripted = torch.jit.load(bundle / "models/model.ts", map_location="cpu").eval()(x)
    assert expected.shape == (1, pred["num_channels"], *_get_fake_spatial_shape(pred["spatial_shape"]))
    # the same float32 operations; fused ones may round differently
    torch.testing.assert_close(
        scripted, expected, rtol=1e-4, atol=1e-4, msg=lambda text: f"{bundle.name}: export model.ts anew. {text}"
    )


def test_metadata_is_complete(bundle):
    metadata = read(bundle, "metadata")
    missing = [name for name in METADATA if not metadata.get(name)]
    assert not missing, f"{bundle.name}: metadata.json has nothing for {missing}: fill them in"
    assert metadata["version"] in metadata["changelog"], f"{bundle.name}: {metadata['version']} is not in the changelog"
    banned = [word for word in ("classification", "detection") if word in (bundle.name + metadata["name"]).lower()]
    assert not banned, (
        f"{bundle.name}: MONAI Label takes a bundle with {banned} in its name for another kind: rename it"
    )


def test_metadata_has_the_channels_of_the_data(bundle):
    image, pred = tensors(bundle)
    for tensor in (image, pred):
        assert len(tensor["channel_def"]) == tensor["num_channels"], f"{bundle.name}: {tensor['channel_def']}"
    kind = KINDS[bundle.name]
    assert image["num_channels"] == len(kind.modality), f"{bundle.name}: phantoms have the channels {kind.modality}"
    labels = {str(value): name for value, name in enumerate(kind.labels)}
    assert pred["channel_def"] == labels, f"{bundle.name}: channel_def of pred, and labels in dataset.json, must agree"


def test_metadata_versions_are_true(bundle):
    metadata = read(bundle, "metadata")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    for name, package in (("monai_version", "monai"), ("pytorch_version", "torch")):
        got, wanted = Version(metadata[name]).release[:2], Version(tested[package]).release[:2]
        assert got == wanted, f"{bundle.name}: {name} is {metadata[name]}, tested with {tested[package]}: write that"
    # the zoo installs the bundle under Python 3.10, for which numpy 2.2 is the last
    assert Version(metadata["numpy_version"]) < Version("2.3"), f"{bundle.name}: numpy_version is not for Python 3.10"

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needs = [Requirement(line) for line in setup["options"]["install_requires"].split("\n") if line]
    allowed = {need.name.lower(): need.specifier for need in needs}
    allowed["unet-bundles"] = SpecifierSet(f"=={setup['metadata']['version']}")
    stated = {**metadata["required_packages_version"], "numpy": metadata["numpy_version"]}
    wrong = {name: text for name, text in stated.items() if text not in allowed.get(name.lower(), SpecifierSet("==0"))}
    assert not wrong, f"{bundle.name}: versions {wrong} are not what setup.cfg allows: {wrong.keys() & allowed.keys()}"


def test_readme_names_every_overlay(bundle):
    text = (bundle / "docs/README.md").read_text()
    configs = sorted(path.name for path in bundle.glob("configs/*.json"))
    assert configs, f"{bundle.name} has no configs"
    missing = [name for name in configs if name not in text]
    assert not missing, f"{bundle.name}: docs/README.md does not name {missing}: say what they are for"
