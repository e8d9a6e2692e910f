"""Bundles through the commands that users type: train, be killed, resume, evaluate, infer, meet bad input."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImage
from monai.utils import ensure_tuple, set_determinism

from bundlekit.phantoms import make_dataset
from tests import commands

SHORT = {"max_epochs": 3, "val_interval": 1, "device": "cpu", "seed": 7}
TIMEOUT_S = 600


def start(bundle: Path, configs: str, **overrides) -> commands.Command:
    """`python -m monai.bundle run` in the bundle's folder, as its documentation says."""
    files = [f"configs/{name}.json" for name in configs.split()]
    options = [text for key, value in overrides.items() for text in (f"--{key}", str(value))]
    return commands.start("-m", "monai.bundle", "run", "--config_file", files, *options, cwd=bundle)


def finish(process: commands.Command, expected_status: int = 0) -> str:
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == expected_status, out[-2000:] + err[-4000:]
    return err


def train(bundle: Path, folder: Path, data: Path, **overrides) -> commands.Command:
    places = {"dataset_dir": data, "output_dir": folder, "ckpt_path": folder / "model.pt"}
    return start(bundle, "train fit_demo", **SHORT, **places, **overrides)


@pytest.fixture(scope="session")
def finished() -> dict[Path, Path]:
    return {}


@pytest.fixture
def folder(bundle, small, finished, tmp_path_factory) -> Path:
    """A folder with the bundle's phantoms in data/ and a finished short training on them in train/; made once."""
    if bundle not in finished:
        folder = tmp_path_factory.mktemp(bundle.name)
        make_dataset(bundle.name, folder / "data", training=4, validation=1, test=2, size=small.size)
        finish(train(bundle, folder / "train", folder / "data", **small.train))
        finished[bundle] = folder
    return finished[bundle]


@pytest.mark.by_example
def test_training_killed_and_resumed_equals_uninterrupted_bit_for_bit(bundle, small, folder, tmp_path):
    process = train(bundle, tmp_path, folder / "data", **small.train)
    commands.wait_for(tmp_path / "state.pt", process)
    process.send_signal(signal.SIGKILL)
    finish(process, expected_status=-signal.SIGKILL)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["epoch"] < SHORT["max_epochs"]
    finish(train(bundle, tmp_path, folder / "data", resume="true", **small.train))

    whole, parts = (torch.load(f / "state.pt", weights_only=True) for f in (folder / "train", tmp_path))
    assert whole["history"] == parts["history"] and whole["epoch"] == parts["epoch"] == SHORT["max_epochs"]
    for name in ("state.pt", "model.pt"):
        states = [torch.load(f / name, weights_only=True) for f in (folder / "train", tmp_path)]
        a, b = (state.get("network", state) for state in states)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    moments = [state["objects"]["optimizer"]["state"] for state in (whole, parts)]
    assert all(torch.equal(value, moments[1][i][key]) for i, kept in moments[0].items() for key, value in kept.items())


def name_and_ending(item: dict) -> tuple[str, str]:
    """Of an image's outputs; what has several files is named by the case, without the modality."""
    files = ensure_tuple(item["image"])
    name, ending = Path(files[0]).name.split(".", 1)
    return name.rpartition("_")[0] if len(files) > 1 else name, ending


@pytest.mark.by_example
def test_evaluate_and_infer_on_every_test_image(bundle, small, folder, tmp_path):
    places = {"dataset_dir": folder / "data", "ckpt_path": folder / "train/model.pt", "device": "cpu"}
    evaluation = start(bundle, "train evaluate", output_dir=tmp_path / "scores", **places, **small.train)
    inference = start(bundle, "inference", output_dir=tmp_path / "out", **places, **small.inference)
    finish(evaluation), finish(inference)

    items = load_decathlon_datalist(folder / "data/dataset.json", data_list_key="test")
    scores = json.loads((tmp_path / "scores/metrics.json").read_text())
    assert scores["num_images"] == len(scores["images"]) == len(items)
    of_images = [name for name in scores["metrics"] if name in scores["images"][0]]  # others are pooled over images
    assert of_images
    for name in of_images:
        mean = np.mean([image[name] for image in scores["images"]])
        assert scores["metrics"][name] == pytest.approx(mean, rel=1e-6, abs=1e-6), name
    labels = {int(value) for value in json.loads((folder / "data/dataset.json").read_text())["labels"]}
    objects = "label_values" not in ConfigParser.load_config_file(bundle / "configs/train.json")["checks"]
    for item in items:
        first = ensure_tuple(item["image"])[0]
        name, ending = name_and_ending(item)
        image, output = LoadImage()(first), LoadImage()(tmp_path / f"out/{name}_seg.{ending}")
        assert output.shape == image.shape[: output.ndim] and torch.allclose(output.affine, image.affine)
        found = {int(value) for value in output.unique()} - {0}
        assert found == set(range(1, len(found) + 1)) if objects else found <= labels


@pytest.mark.by_example
def test_one_bad_image_does_not_stop_the_others(bundle, small, folder, tmp_path):
    items = load_decathlon_datalist(folder / "data/dataset.json", data_list_key="test")
    files = [Path(path) for path in ensure_tuple(items[0]["image"])]
    good = files[0]
    (tmp_path / "in").mkdir()
    for file in files:
        (tmp_path / "in" / file.name).write_bytes(file.read_bytes())
        (tmp_path / "in" / f"cut_{file.name}").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    process = start(
        bundle,
        "inference",
        dataset_dir=tmp_path / "in",
        output_dir=tmp_path / "out",
        ckpt_path=folder / "train/model.pt",
        **small.inference,
    )
    errors = finish(process, expected_status=1)
    name, ending = name_and_ending(items[0])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".finished-0.jsonl", f"{name}_seg.{ending}"]
    assert f"cut_{good.name}: " in errors.strip().splitlines()[-1] and "expected" in errors.strip().splitlines()[-1]
    assert "Traceback" not in errors


def test_missing_weights_and_data_are_named_together_without_a_traceback(bundle, tmp_path):
    process = start(
        bundle, "inference", dataset_dir=tmp_path / "none", output_dir=tmp_path, ckpt_path=tmp_path / "none.pt"
    )
    errors = finish(process, expected_status=1)
    assert f"{tmp_path}/none: " in errors and f"{tmp_path}/none.pt: " in errors and "Traceback" not in errors


def parse(bundle: Path, overlay: Path, data: Path, **overrides) -> ConfigParser:
    set_determinism(0)
    parser = ConfigParser(ConfigParser.load_config_files([bundle / "configs/train.json", overlay]))
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(data), "device": "cpu", "amp": False, **overrides})
    return parser


@pytest.mark.by_example
def test_loss_falls_on_one_fixed_batch(bundle, small, folder):
    """At most thirty steps on the same batch halve its loss."""
    parser = parse(bundle, bundle / "configs/fit_demo.json", folder / "data", **small.train)
    network, loss, optimizer = (parser.get_parsed_content(name) for name in ("network", "loss", "optimizer"))
    batch = next(iter(parser.get_parsed_content("train::dataloader")))
    network.train()
    losses = []
    for _ in range(30):
        value = loss(network(batch["image"]), batch["label"])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
        if losses[-1] < 0.5 * losses[0]:
            break
    assert losses[-1] < 0.5 * losses[0], losses


@pytest.mark.slow
def test_one_epoch_and_validation_under_every_overlay(overlay, small, tmp_path):
    if overlay.base != "train" or overlay.overlay.stem in ("evaluate", "multi_gpu_train"):
        pytest.skip("not a training of its own: other tests run it")
    make_dataset(overlay.bundle.name, tmp_path / "data", training=1, validation=1, test=0, size=small.size)
    parser = parse(overlay.bundle, overlay.overlay, tmp_path / "data", **small.train)
    places = {"output_dir": str(tmp_path), "ckpt_path": str(tmp_path / "model.pt")}
    parser.update({"max_epochs": 1, "val_interval": 1, **places})
    before = {key: value.clone() for key, value in parser.get_parsed_content("network_def").state_dict().items()}
    parser.get_parsed_content("train::trainer").run()
    history = json.loads((tmp_path / "history.json").read_text())
    assert np.isfinite(history["loss"][0][1]) and all(len(values) == 1 for values in history["metrics"].values())
    trained = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(not torch.equal(value, trained[key]) for key, value in before.items() if value.is_floating_point())
