"""Phantoms for the programs that use bundles, bundles run as users run them, and a comparison of what the two gave."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import itk
import nibabel
import numpy as np
import pytest
from monai.utils import ensure_tuple
from PIL import Image

from bundlekit.phantoms import KINDS, make_dataset

collect_ignore = ["deploy_app.py"]  # runs only in MONAI Deploy's environment
SPEC = importlib.util.spec_from_file_location("programs", Path(__file__).with_name("programs.py"))
programs = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(programs)
BUNDLES = sorted(folder.parent for folder in programs.ROOT.glob("bundles/*/configs"))
assert BUNDLES, f"no bundle in {programs.ROOT}: expected folders bundles/*/configs"
SIZES = {".png": 128, ".nii.gz": 48, "gland_histology_segmentation": 256}  # smaller glands are taken for specks


class Phantom(NamedTuple):
    """The files of an image, one that holds all its channels, as MONAI Label wants it, and its label."""

    files: list[Path]
    single: Path
    label: Path


def place_obliquely(path: Path) -> None:
    """Give a NIfTI voxels that are no cubes, axes that are turned and mirrored, and another origin."""
    volume = nibabel.load(path)
    angle = np.deg2rad(10)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    placed = np.eye(4)
    placed[:3, :3] = turn @ np.diag([-1, 1.1, 0.9])
    placed[:3, 3] = 12, -7, 5
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(volume.dataobj), placed @ volume.affine), path)


def make_images(bundle: Path, folder: Path, **counts: int) -> list[Phantom]:
    """Phantoms of a bundle's kind; the modalities of a volume are put into one 4-D file as well."""
    size = SIZES.get(bundle.name) or SIZES[KINDS[bundle.name].ending]
    make_dataset(bundle.name, folder, size=size, **{"training": 0, "validation": 0, "test": 0, **counts})
    lists = json.loads((folder / "dataset.json").read_text())
    made = []
    for item in [item for name in counts for item in lists[name]]:
        files = [folder / path for path in ensure_tuple(item["image"])]
        if KINDS[bundle.name].ending == ".nii.gz":
            for path in (*files, folder / item["label"]):
                place_obliquely(path)
        single, label = files[0], folder / item["label"]
        if len(files) > 1:
            volumes = [nibabel.load(path) for path in files]
            values = np.stack([np.asanyarray(volume.dataobj) for volume in volumes], axis=-1)
            single = folder / label.name
            nibabel.save(nibabel.Nifti1Image(values, volumes[0].affine), single)
        made.append(Phantom(files, single, label))
    return made


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values, and the affine to mm in RAS; those of a PNG by row and column, with MONAI's affine of pictures."""
    if path.suffix == ".png":
        return np.asarray(Image.open(path)), np.eye(4)
    if path.suffix == ".nrrd":
        image = itk.imread(str(path))
        affine = np.eye(4)
        affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) @ np.diag(image.GetSpacing())
        affine[:3, 3] = image.GetOrigin()
        return itk.array_from_image(image), np.diag([-1, -1, 1, 1]) @ affine
    volume = nibabel.load(path)
    return np.asanyarray(volume.dataobj), volume.affine


def assert_same(found: tuple[np.ndarray, np.ndarray], wanted: Path) -> None:
    """Compare a label map, and its affine, with the file that the bundle wrote; it has to hold more than ground."""
    values, affine = load(wanted)
    assert len(np.unique(values)) > 1, f"{wanted} holds one value only, which proves nothing: take another phantom"
    assert found[0].shape == values.shape, f"{wanted}: got the shape {found[0].shape}, wanted {values.shape}"
    wrong = int((found[0] != values).sum())
    assert wrong == 0, f"{wanted}: {wrong} of {values.size} values differ"
    np.testing.assert_allclose(found[1], affine, rtol=0, atol=1e-5, err_msg=str(wanted))  # NIfTI keeps float32


def segment(python: Path, bundle: Path, image: Path, output: Path) -> Path:
    """Segment one image, named by its first file, as a user of the bundle does; the file that came of it."""
    command = ["-m", "monai.bundle", "run", "--config_file", "configs/inference.json", "--device", "cpu"]
    programs.call(python, *command, "--dataset_dir", image, "--output_dir", output, cwd=bundle)
    (path,) = output.glob("*_seg.*")
    return path


@pytest.fixture(scope="session")
def consumers() -> SimpleNamespace:
    """The functions above, for the tests."""
    return SimpleNamespace(
        require=programs.require,
        call=programs.call,
        segment=segment,
        make_images=make_images,
        load=load,
        assert_same=assert_same,
        serve=programs.run_label_server,
        bundles=BUNDLES,
    )


@pytest.fixture(scope="session")
def label_server(tmp_path_factory) -> Iterator[Any]:
    """One server of every bundle."""
    with programs.run_label_server(tmp_path_factory.mktemp("label"), BUNDLES) as server:
        yield server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "bundle" in metafunc.fixturenames:
        metafunc.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
