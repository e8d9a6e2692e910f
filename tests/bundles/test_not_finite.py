"""What is not finite, in weights, images and outputs, and paths that a command line changes: a line each, exit 1."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.data import load_decathlon_datalist
from monai.utils import ensure_tuple
from PIL import Image

from bundlekit.phantoms import make_dataset
from tests import commands

TIMEOUT_S = 600


def run(bundle: Path, configs: str, status: int, **options) -> list[str]:
    """The lines on stderr of ``python -m monai.bundle run``, without the progress bars and without notes."""
    files = [f"configs/{name}.json" for name in configs.split()]
    words = [text for key, value in options.items() for text in (f"--{key}", value)]
    done = commands.run("-m", "monai.bundle", "run", "--config_file", files, *words, cwd=bundle, timeout=TIMEOUT_S)
    assert done.returncode == status and "Traceback" not in done.stderr, done.stdout[-2000:] + done.stderr[-4000:]
    return [line for line in done.stderr.replace("\r", "\n").splitlines() if line.startswith(("error: ", "left out: "))]


def shipped(bundle: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    path = bundle / "models/model.pt"
    return path, torch.load(path, weights_only=True)


@pytest.fixture
def data(bundle, small, tmp_path) -> Path:
    make_dataset(bundle.name, tmp_path / "data", training=1, validation=1, test=2, size=small.size)
    return tmp_path / "data"


def test_a_folder_that_would_get_another_name(tmp_path):
    [nuclei] = (Path(__file__).parents[2] / "bundles").glob("nuclei*")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "a.png")
    for word, misread in (("1.10", "1.1"), ("@rel", "a reference")):
        lines = run(nuclei, "inference", 1, dataset_dir=tmp_path, output_dir=word, bundle_root=nuclei)
        assert lines == [
            f"error: --output_dir {word}: is taken for {misread}; expected a path that is taken as it is typed; "
            f"write --output_dir ./{word}"
        ]


def test_missing_data_in_a_float_tiff(tmp_path):
    [membranes] = (Path(__file__).parents[2] / "bundles").glob("membrane*")
    make_dataset(membranes.name, tmp_path / "data", training=1, validation=1, test=1, size=96)
    (tmp_path / "in").mkdir()
    [item] = load_decathlon_datalist(tmp_path / "data/dataset.json", data_list_key="test")
    values = np.asarray(Image.open(item["image"]))
    Image.fromarray(values).save(tmp_path / "in/b.png")
    values = values.astype(np.float32)
    values[:9] = np.finfo(np.float32).min
    tifffile.imwrite(tmp_path / "in/a.tif", values)
    lines = run(membranes, "inference", 1, dataset_dir=tmp_path / "in", output_dir=tmp_path / "out", device="cpu")
    found = f"has values beyond 1.8e+19, the first -3.40282e+38 ({9 * 96} of {96 * 96} values"
    assert lines[0] == lines[-1] and lines[0].startswith(f"left out: {tmp_path}/in/a.tif: {found}")
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["b_seg.png"]


@pytest.mark.slow
def test_weights_that_are_not_finite_are_refused(bundle, data, small, tmp_path):
    _, state = shipped(bundle)
    name = next(reversed([key for key, value in state.items() if value.is_floating_point()]))
    state[name].view(-1)[::2] = torch.nan
    torch.save(state, tmp_path / "model.pt")
    places = {"dataset_dir": data, "ckpt_path": tmp_path / "model.pt", "output_dir": tmp_path / "out", "device": "cpu"}
    for configs, options in (("inference", small.inference), ("train evaluate", small.train)):
        [line] = run(bundle, configs, 1, **places, **options)
        assert line.startswith(f"error: {tmp_path}/model.pt: 1 of {len(state)} tensors have values that are NaN or ")
    assert not list((tmp_path / "out").glob("*.*"))


@pytest.mark.slow
def test_outputs_that_are_not_finite_are_named_and_neither_written_nor_scored(bundle, data, small, tmp_path):
    """Finite weights so large that every network overflows on every image."""
    _, state = shipped(bundle)
    for value in state.values():
        if value.is_floating_point() and value.ndim > 2:
            value.copy_(value.sign() * 1e30)
    torch.save(state, tmp_path / "model.pt")
    places = {"dataset_dir": data, "ckpt_path": tmp_path / "model.pt", "device": "cpu", "output_dir": tmp_path / "out"}
    items = load_decathlon_datalist(data / "dataset.json", data_list_key="test")
    files = [ensure_tuple(item["image"])[0] for item in items]
    lines = run(bundle, "inference", 1, **places, **small.inference)
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :] and len(lines) >= 2 * len(files)
    assert all(": the network's output has " in line or ": could not be segmented (" in line for line in lines)
    assert not list((tmp_path / "out").glob("*_seg*"))

    *lines, last = run(bundle, "train evaluate", 1, **{**places, "output_dir": tmp_path / "scores"}, **small.train)
    assert [line.split(": ")[:2] for line in lines] == [["left out", file] for file in files]
    assert last == f"error: images: none of {len(files)} could be scored; expected at least one; see the lines above"
    assert not (tmp_path / "scores/metrics.json").exists()


def add_missing_data(image: Path, data: Path) -> Path:
    """Give rows of a test image the value that stands for missing data, and return its file, of floats."""
    if image.name.endswith(".nii.gz"):
        volume = nib.load(image)
        values = np.asarray(volume.dataobj, np.float32)
        values[:, 3] = np.finfo(np.float32).min
        nib.save(nib.Nifti1Image(values, volume.affine), image)
        return image
    values = np.asarray(Image.open(image)).astype(np.float32)
    values[3] = np.finfo(np.float32).min
    photometric = "rgb" if values.ndim == 3 else "minisblack"
    tifffile.imwrite(image.with_suffix(".tif"), values, photometric=photometric)
    text = (data / "dataset.json").read_text()
    (data / "dataset.json").write_text(text.replace(f"images/{image.name}", f"images/{image.stem}.tif"))
    return image.with_suffix(".tif")


@pytest.mark.slow
def test_scores_are_those_of_the_other_images(bundle, data, small, tmp_path):
    places = {"dataset_dir": data, "device": "cpu", "ckpt_path": bundle / "models/model.pt"}
    run(bundle, "train evaluate", 0, **places, output_dir=tmp_path / "both", **small.train)
    items = load_decathlon_datalist(data / "dataset.json", data_list_key="test")
    bad = add_missing_data(Path(ensure_tuple(items[0]["image"])[0]), data)
    lines = run(bundle, "train evaluate", 1, **places, output_dir=tmp_path / "one", **small.train)
    assert lines[0] == lines[-1] and lines[0].startswith(f"left out: {bad}: ")
    both, one = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("both", "one"))
    assert one["images"] == both["images"][1:]
