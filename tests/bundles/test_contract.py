"""What every bundle holds and promises: files, ids that other programs look up, networks, weights, metadata."""

from __future__ import annotations

import configparser
import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, verify_net_in_out
from monai.bundle.scripts import _get_fake_spatial_shape
from monai.utils import ensure_tuple
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from PIL import Image

from bundlekit.files import compute_sha256
from bundlekit.phantoms import KINDS, make_dataset

ROOT = Path(__file__).resolve().parents[2]
MAX_FILE_BYTES = 25 * 2**20
NOT_VERSIONED = {"data", "eval"}
PHANTOM_SIZE_PX = 64
FILES = {
    ".": ["LICENSE"],
    "configs": [
        "metadata.json",
        "train.json",
        "inference.json",
        "evaluate.json",
        "multi_gpu_train.json",
        "logging.conf",
    ],
    "docs": ["README.md", "data_license.txt"],
    "models": ["model.pt", "model.ts", "model.pt2"],
    "scripts": ["prepare_data.py"],
}
OVERRIDES = ["dataset_dir", "output_dir", "ckpt_path", "device", "seed", "amp"]
IDS = {
    "train": ["bundle_root", "val_interval", "network_def", "train::dataset::data", "validate::dataset::data", "run"],
    "inference": ["bundle_root", "network_def", "dataset::data", "run"],
}
REFERENCES = {
    "train": {
        "train::trainer::max_epochs": "@max_epochs",
        "train::trainer::train_handlers": "@train::handlers",
        "train::trainer::inferer": "@train::inferer",
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
METADATA = {
    "versions": ["monai_version", "pytorch_version", "numpy_version", "required_packages_version"],
    "origin": ["schema", "version", "changelog", "name", "authors", "copyright", "references"],
    "use": ["task", "description", "intended_use", "eval_metrics", "network_data_format"],
    "data": ["data_source", "data_type", "image_classes", "label_classes", "pred_classes"],
}


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
    files = [Path(folder, name) for folder, names in FILES.items() for name in names]
    missing = [str(name) for name in files if not (bundle / name).is_file()]
    assert not missing, f"{bundle.name} lacks {missing}: add them"
    large = [path.relative_to(bundle) for path in bundle.rglob("*") if path.stat().st_size > MAX_FILE_BYTES]
    large = [str(path) for path in large if path.parts[0] not in NOT_VERSIONED]
    assert not large, f"{bundle.name}: {large} above {MAX_FILE_BYTES} bytes: make them smaller"


@pytest.mark.parametrize("base", IDS)
def test_ids_that_others_look_up(bundle, base):
    parser = ConfigParser(read(bundle, base))
    wanted = OVERRIDES + IDS[base] + [target.removeprefix("@") for target in REFERENCES[base].values()]
    missing = [name for name in wanted if name not in parser]
    assert not missing, (
        f"{bundle.name}/{base} lacks the ids {missing}, which MONAI, MONAI Label or users name: add them"
    )
    wrong = {name: parser.get(name) for name, target in REFERENCES[base].items() if parser.get(name) != target}
    assert not wrong, f"{bundle.name}/{base} has {wrong}; MONAI finds parts by references: write {REFERENCES[base]}"


def test_training_validates_as_monai_expects(bundle):
    parser = ConfigParser(read(bundle, "train"))
    handlers = parser["train::handlers"]
    assert isinstance(handlers, list), f"{bundle.name}: train::handlers is no literal list, which MONAI Label needs"
    found = [(h.get("validator"), h.get("interval")) for h in handlers if h["_target_"] == "ValidationHandler"]
    wanted = [("@validate::evaluator", "@val_interval")]
    assert found == wanted, f"{bundle.name}: ValidationHandler has (validator, interval) {found}: write {wanted}"


def test_training_and_inference_use_one_network(pair):
    train, inference = (config.parser()["network_def"] for config in pair)
    assert train == inference, f"{pair[0]} and {pair[1]} differ in network_def: make the two alike"


def cut_hole(path: Path) -> None:
    """Set some values of an image to 0, as many as change a mean over all or over all others."""
    hole = np.s_[20:44, 16:40]
    if path.suffix == ".png":
        pixels = np.array(Image.open(path))
        pixels[hole] = 0
        Image.fromarray(pixels).save(path)
    else:
        volume = nibabel.load(path)
        voxels = np.array(volume.dataobj)
        voxels[hole] = 0
        nibabel.save(nibabel.Nifti1Image(voxels, volume.affine), path)


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> dict[str, dict[str, list[str]]]:
    """A phantom of each bundle, made when it is first asked for."""

    class Items(dict):
        def __missing__(self, name: str) -> dict[str, list[str]]:
            folder = tmp_path_factory.mktemp(name)
            make_dataset(name, folder, training=0, validation=1, test=0, size=PHANTOM_SIZE_PX)
            (item,) = json.loads((folder / "dataset.json").read_text())["validation"]
            self[name] = {key: [str(folder / path) for path in ensure_tuple(item[key])] for key in ("image", "label")}
            for path in self[name]["image"]:
                cut_hole(Path(path))
            return self[name]

    return Items()


def test_inference_sees_what_validation_saw(pair, items):
    item = items[pair[0].bundle.name]
    validated = pair[0].parser().get_parsed_content("validate::preprocessing")(dict(item))["image"]
    inferred = pair[1].parser().get_parsed_content("preprocessing")({"image": item["image"]})["image"]
    # float32 of normalised intensities: the order of two scalings may cost some 1e-6
    torch.testing.assert_close(
        inferred.as_tensor(),
        validated.as_tensor(),
        rtol=0,
        atol=1e-4,
        msg=lambda text: f"preprocessing of {pair[0]} and {pair[1]} differ, make them alike: {text}",
    )


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
    # valid convolutions have sizes of their own: the smallest input loses the margin, and nothing else, on each side
    size = network.valid_size(1) if hasattr(network, "valid_size") else 2 * margin + 1
    with torch.no_grad():
        output = network(torch.rand(1, image["num_channels"], *[size] * len(image["spatial_shape"])))
    wanted = (1, pred["num_channels"], *[size - 2 * margin] * len(pred["spatial_shape"])), f"torch.{pred['dtype']}"
    assert (tuple(output.shape), str(output.dtype)) == wanted, f"{config}: network_def is not what metadata.json says"


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
        scripted, expected, rtol=1e-4, atol=1e-4, msg=lambda text: f"{bundle.name}: export model.ts again. {text}"
    )


def test_torchscript_holds_the_configs_as_they_are(bundle):
    """Programs that take only model.ts, such as MONAI Deploy, read them from there."""
    stored = {"inference.json": "", "metadata.json": ""}
    torch.jit.load(bundle / "models/model.ts", map_location="cpu", _extra_files=stored)
    for name, text in stored.items():
        same = json.loads(text) == read(bundle, name.removesuffix(".json"))
        assert same, f"{bundle.name}: the {name} in model.ts is another one: python -m tools.export {bundle.name}"


@pytest.mark.by_example
def test_exported_program_is_the_shipped_network(bundle):
    path = bundle / "models/model.pt2"
    image, _ = tensors(bundle)
    # from n = 2 up: an axis of one voxel is another graph
    sizes = [_get_fake_spatial_shape(image["spatial_shape"], n=n) for n in (2, 3)]
    program, network = torch.export.load(path), shipped_network(bundle)
    assert all(torch.equal(value, program.state_dict[name]) for name, value in network.state_dict().items())
    exported = program.module()
    for batch, size in enumerate(sizes, start=1):
        x = torch.rand(batch, image["num_channels"], *size)
        with torch.no_grad():
            expected, found = network(x), exported(x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_exported_program_holds_the_configs_as_they_are(bundle):
    with ZipFile(bundle / "models/model.pt2") as archive:
        stored = {
            Path(name).name: archive.read(name) for name in archive.namelist() if Path(name).parent.name == "extra"
        }
    for name in ("inference", "metadata"):
        same = json.loads(stored[f"{name}.json"]) == read(bundle, name)
        assert same, f"{bundle.name}: the {name}.json in model.pt2 is another one: python -m tools.export {bundle.name}"


def test_metadata_is_complete(bundle):
    metadata = read(bundle, "metadata")
    missing = [name for names in METADATA.values() for name in names if not metadata.get(name)]
    assert not missing, f"{bundle.name}: metadata.json has nothing for {missing}: fill them in"
    assert metadata["version"] in metadata["changelog"], f"{bundle.name}: {metadata['version']} is not in the changelog"
    banned = [word for word in ("classification", "detection") if word in (bundle.name + metadata["name"]).lower()]
    assert not banned, (
        f"{bundle.name}: MONAI Label takes a bundle with {banned} in its name for another kind: rename it"
    )


def test_metadata_has_the_channels_and_labels_of_the_data(bundle):
    image, pred = tensors(bundle)
    assert len(image["channel_def"]) == image["num_channels"], f"{bundle.name}: {image['channel_def']}"
    kind = KINDS[bundle.name]
    assert image["num_channels"] == len(kind.modality), f"{bundle.name}: phantoms have the channels {kind.modality}"
    # MONAI Label takes the output's for names of the label map's values, which sigmoid channels are not
    labels = {str(value): name for value, name in enumerate(kind.labels)}
    assert pred["channel_def"] == labels, f"{bundle.name}: channel_def of pred and labels in dataset.json differ"
    train = read(bundle, "train")
    if "regions" in train:  # the network's channels are unions of labels
        assert len(train["regions"]) == pred["num_channels"], f"{bundle.name}: {train['regions']}"
        assert {value for values in train["regions"].values() for value in values} == {*map(int, labels)} - {0}


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
    assert "unet-bundles" in stated, f"{bundle.name}: required_packages_version lacks 'unet-bundles': add it"
    for name, version in stated.items():
        assert name.lower() in allowed, f"{bundle.name}: setup.cfg does not require {name!r}: correct one of them"
        wanted = allowed[name.lower()]
        assert version in wanted, f"{bundle.name}: {name} {version} in metadata.json, {wanted} in setup.cfg: write that"


def test_readme_names_every_config(bundle):
    text = (bundle / "docs/README.md").read_text()
    configs = {path.name for path in bundle.glob("configs/*.json")} - {"metadata.json"}
    assert configs, f"{bundle.name} has no configs"
    missing = sorted(name for name in configs if name not in text)
    assert not missing, f"{bundle.name}: docs/README.md does not name {missing}: say what they are for"


def test_weights_from_phantoms_are_known_by_their_checksum(bundle):
    """The text that a user reads at run time is tied to the very file that it speaks of."""
    from_phantoms = read(bundle, "metadata")["data_source"].lower().startswith("phantoms")
    for base in ("train", "inference"):
        known = read(bundle, base).get("phantom_sha256")
        wanted = compute_sha256(bundle / "models/model.pt") if from_phantoms else None
        assert known == wanted, f"{bundle.name}/{base}.json has phantom_sha256 {known}: write {wanted}"


def test_what_outputs_depend_on_decides_whether_a_killed_run_goes_on(bundle):
    config = read(bundle, "inference")
    elsewhere = {"bundle_root", "dataset_dir", "output_dir", "ckpt_path", "seed", "resume", "phantom_sha256", "_desc_"}
    elsewhere |= {"device", "volume_device", "amp"}  # change outputs within rounding
    elsewhere |= {"num_workers"}
    elsewhere |= {"report_nfe", "receptive_field"}  # with them a run does all images
    lists = ("imports", "handlers", "initialize", "run")
    options = {key for key, value in config.items() if not isinstance(value, dict) and key not in lists}
    options -= {key for key in options if str(config[key]).startswith("$") and "@" in str(config[key])}
    tiles = {key: f"@tiles::{key}" for key in ("tile_size", "margin") if key in config.get("tiles", {})}
    settings = config["record"]["settings"]
    assert settings == {key: f"@{key}" for key in options - elsewhere} | tiles
