"""The lung bundle on phantoms whose volumes are known: grids, ways of storing, reports, and what it must not take."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nibabel.processing import resample_from_to
from PIL import Image
from scipy.spatial.transform import Rotation

from bundlekit.phantoms import Phantom
from bundlekit.phantoms.thorax import thorax
from bundlekit.prepare.volumes import nifti_name
from tests.dicom_files import write_frames

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/lung_ct_segmentation"
SIDES = {"right": 1, "left": 2}
SIZE, SMALL_SIZE = 96, 64
GRIDS = (("plain", "oblique"), ("flipped", "anisotropic"))
"""In one run of tier 1, and in one of tier 2."""
pytestmark = pytest.mark.xdist_group("lungs")  # with several workers, one of them segments the volumes that tests share


class Run(NamedTuple):
    """What one inference over a folder wrote and said."""

    labels: dict[str, nib.Nifti1Image]
    volumes: dict[str, dict]
    folder: Path
    stderr: str


def save(image: nib.Nifti1Image, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(image, folder / f"{name}.nii.gz")


def parse(folder: Path) -> ConfigParser:
    """The inference of folder/in to folder/out with a report."""
    set_determinism(0)
    parser = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs/inference.json"))
    places = {"bundle_root": str(BUNDLE), "dataset_dir": str(folder / "in"), "output_dir": str(folder / "out")}
    parser.update({**places, "device": "cpu", "report": True})
    return parser


def segment(folder: Path, capfd=None, **overrides) -> Run:
    parser = parse(folder)
    parser.update(overrides)
    parser.get_parsed_content("run", eval_expr=True)
    volumes = json.loads((folder / "out/report.json").read_text())["volumes"]
    labels = {path.name.removesuffix("_seg.nii.gz"): nib.load(path) for path in (folder / "out").glob("*_seg.nii.gz")}
    said = capfd.readouterr().err if capfd else ""
    by_name = {nifti_name(Path(volume["image"])): volume for volume in volumes}
    return Run(labels, by_name, folder / "out", said)


def as_image(phantom: Phantom, values: np.ndarray | None = None) -> nib.Nifti1Image:
    values = phantom.image if values is None else values
    return nib.Nifti1Image(values, phantom.affine)


def on_grid(image: nib.Nifti1Image, turn: np.ndarray, spacing_mm: tuple[float, float, float]) -> nib.Nifti1Image:
    """The same chest on a grid of other directions and voxels about the same middle."""
    extent_mm = nib.affines.voxel_sizes(image.affine) * image.shape
    shape = tuple(np.ceil(1.15 * extent_mm / spacing_mm).astype(int))
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing_mm
    affine[:3, 3] = (image.affine @ [*(np.array(image.shape) - 1) / 2, 1])[:3] - affine[:3, :3] @ (
        np.array(shape) - 1
    ) / 2
    return resample_from_to(image, (shape, affine), order=1, cval=-1000)


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return thorax(np.random.default_rng([100, 0]), SIZE, stature=1)


@pytest.fixture(scope="module")
def grids(chest, tmp_path_factory) -> Callable[[str], Run]:
    """The run that has the chest as it is, oblique, with axes exchanged and flipped, or in thick slices."""
    plain = as_image(chest)
    flipped = plain.as_reoriented(ornt_transform(io_orientation(plain.affine), axcodes2ornt("PIR")))
    oblique = Rotation.from_euler("xyz", [10, 6, 12], degrees=True).as_matrix()
    cases = {
        "plain": lambda: plain,
        "flipped": lambda: flipped,
        "anisotropic": lambda: on_grid(plain, np.diag([-1, -1, 1]), (2.5, 3.5, 7)),
        "oblique": lambda: on_grid(plain, oblique, (4, 4, 5)),
    }

    @functools.cache
    def run(names: tuple[str, ...]) -> Run:
        folder = tmp_path_factory.mktemp("grids")
        for name in names:
            save(cases[name](), folder / "in", name)
        return segment(folder)

    return lambda grid: run(next(names for names in GRIDS if grid in names))


@pytest.mark.parametrize("grid", [*GRIDS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in GRIDS[1])])
def test_volumes_are_right_to_2_percent_whatever_the_grid(chest, grids, grid):
    volumes = grids(grid).volumes[grid]
    for name in SIDES:
        assert volumes[name]["volume_ml"] == pytest.approx(chest.truth[f"{name}_ml"], rel=0.02)
    both = sum(chest.truth[f"{name}_ml"] for name in SIDES)
    assert volumes["both"]["volume_ml"] == pytest.approx(both, rel=0.02)


def test_windpipe_gas_table_and_air_are_left_out_and_the_nodule_is_not(chest, grids):
    found = np.asarray(grids("plain").labels["plain"].dataobj)
    for value in SIDES.values():
        lung, wanted = found == value, chest.label == value
        assert 2 * (lung & wanted).sum() / (lung.sum() + wanted.sum()) > 0.97
    nodule = np.rint(np.linalg.inv(chest.affine) @ [*chest.truth["nodule_mm"], 1])[:3].astype(int)
    assert found[tuple(nodule)] > 0 and chest.image[tuple(nodule)] > -400


@pytest.mark.parametrize("grid", ["plain", pytest.param("flipped", marks=pytest.mark.slow)])
def test_area_and_density_are_those_of_the_phantom(chest, grids, grid):
    pixel_cm2 = abs(np.prod(np.diag(chest.affine)[:2])) / 100
    for name, value in SIDES.items():
        lung = chest.label == value
        measured = grids(grid).volumes[grid][name]
        area_cm2 = lung.sum(axis=(0, 1)).max() * pixel_cm2
        assert measured["largest_axial_area_cm2"] == pytest.approx(area_cm2, rel=0.03)
        # the surface, half tissue, weighs on the mean
        assert measured["mean_hu"] == pytest.approx(chest.image[lung].mean(), abs=15)


def test_csv_and_json_and_pictures_say_the_same(grids):
    run = grids("plain")
    assert len(run.volumes) == 2
    with open(run.folder / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(run.volumes)
    for row in rows:
        volume = run.volumes[row["image"].split(".")[0]][row["lung"]]
        assert {key: float(row[key]) for key in volume} == volume
    for name in run.volumes:
        assert Image.open(run.folder / f"{name}_report.png").size[0] > 800


STORED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "unsigned": lambda hu: (hu + 1024).astype(np.uint16),
    "padded_2000": lambda hu: np.where(corners(hu), -2000, hu),
    "padded_3024": lambda hu: np.where(corners(hu), -3024, hu),
    "unsigned_padded": lambda hu: np.where(corners(hu), -2000, hu + 1024),
}


def corners(hu: np.ndarray) -> np.ndarray:
    """Outside the circle that a scanner sees, where the phantom has air and the ends of the table."""
    x, y = np.ogrid[-1 : 1 : hu.shape[0] * 1j, -1 : 1 : hu.shape[1] * 1j]
    return np.broadcast_to((np.hypot(x, y) > 1)[..., None], hu.shape)


@pytest.fixture(scope="module")
def small() -> Phantom:
    phantom = thorax(np.random.default_rng([100, 1]), SMALL_SIZE, stature=1)
    even = (phantom.image.astype(int) // 2 * 2).clip(-1024)
    return Phantom(np.where(corners(even), -1024, even).astype(np.int16), phantom.label, phantom.truth, phantom.affine)


@pytest.mark.parametrize(
    "stored",
    [("unsigned", "unsigned_padded"), pytest.param(("padded_2000", "padded_3024"), marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_the_way_of_storing_does_not_matter(small, write_series, tmp_path, capfd, stored):
    """Slope and intercept, none, DICOM of files and frames: the same lungs, voxel by voxel, nearly so with padding."""
    hu = small.image.astype(int)
    save(as_image(small), tmp_path / "in", "plain")
    for name in stored:
        save(
            as_image(small, STORED[name](hu).astype(np.uint16 if name == "unsigned" else np.int16)),
            tmp_path / "in",
            name,
        )
    scaled = as_image(small, ((hu + 1024) // 2).astype(np.uint16))
    scaled.header.set_slope_inter(2, -1024)
    save(scaled, tmp_path / "in", "scaled")
    write_series(tmp_path / "in/1.2.840.1", hu, small.affine)
    write_frames(tmp_path / "in/frames/a.dcm", hu, small.affine, [*range(1, hu.shape[2], 2), *range(0, hu.shape[2], 2)])
    done = segment(tmp_path, capfd)
    names = {"plain", "scaled", "1.2.840.1", "frames", *stored}
    assert done.labels.keys() == done.volumes.keys() == names
    wanted = np.asarray(done.labels["plain"].dataobj)
    assert set(np.unique(wanted)) == {0, 1, 2}
    for name, labels in done.labels.items():
        assert np.allclose(labels.affine, small.affine, atol=1e-4), name
        padded = "padded" in name  # the network sees something else there
        assert (np.asarray(labels.dataobj) == wanted).mean() >= (0.9995 if padded else 1), name
        for lung in (*SIDES, "both"):  # DICOM rounds positions
            own, plain = done.volumes[name][lung], done.volumes["plain"][lung]
            if padded:
                own, plain = own["volume_ml"], plain["volume_ml"]
            assert own == pytest.approx(plain, rel=0.01 if padded else 1e-5), (name, lung)
    notes = [line for line in done.stderr.splitlines() if "as if stored without intercept" in line]
    assert [line.split(": ")[1] for line in notes] == [
        str(tmp_path / f"in/{name}.nii.gz") for name in stored if name.startswith("unsigned")
    ]


def test_what_is_no_ct_and_what_has_no_lungs(small, tmp_path, capfd):
    grey = ((small.image.astype(int) + 1024) / 16).clip(0, 255).astype(np.uint8)
    abdomen = np.where((small.label > 0) | (small.image < -500), 40, small.image)
    abdomen[0] = -1000  # air next to the patient
    for name, values in {"grey": grey, "abdomen": abdomen}.items():
        save(as_image(small, values.astype(np.int16)), tmp_path / "in", name)
    done = segment(tmp_path, capfd)
    [note] = [line for line in done.stderr.splitlines() if "none as low as air or lung" in line]
    assert note.startswith(f"note: {tmp_path}/in/grey.nii.gz: holds values from 0 to ") and "; expected a CT " in note
    for name in ("grey", "abdomen"):
        assert not np.asarray(done.labels[name].dataobj).any()
        nothing = {"volume_ml": 0.0, "largest_axial_area_cm2": 0.0, "mean_hu": None, "left_out_ml": 0.0}
        assert done.volumes[name]["both"] == nothing
        assert f"warning: {tmp_path}/in/{name}.nii.gz: no lung was found in it; expected one or two" in done.stderr


def test_files_that_cannot_be_used_are_left_out_with_a_line_each(small, tmp_path, capfd):
    hu = small.image
    save(as_image(small, hu[..., 0]), tmp_path / "in", "plane")
    save(as_image(small, np.stack([hu, hu], axis=-1)), tmp_path / "in", "times")
    save(as_image(small, np.where(hu > 200, np.nan, hu).astype(np.float32)), tmp_path / "in", "nan")
    save(as_image(small), tmp_path / "in", "spacing")
    header = bytearray(nib.load(tmp_path / "in/spacing.nii.gz").header.binaryblock)
    header[84:88] = np.float32(0).tobytes()  # pixdim[2]
    (tmp_path / "in/spacing.nii.gz").unlink()
    (tmp_path / "in/spacing.nii").write_bytes(bytes(header) + bytes(4) + hu.tobytes(order="F"))
    checks = parse(tmp_path).get_parsed_content("checks")
    assert checks.images(tmp_path / "in") == []
    with pytest.raises(SystemExit):
        checks.start([])
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("left out: ")]
    found = {Path(line.split(": ")[1]).name.split(".")[0]: line.split(": ", 2)[2] for line in lines}
    assert found.keys() == {"plane", "times", "nan", "spacing"}
    rows, columns, slices = hu.shape
    assert found["plane"].startswith(f"has 2 spatial dimensions ({rows} x {columns}); expected 3 dimensions")
    assert found["times"].startswith(f"holds several volumes ({rows} x {columns} x {slices} x 2); expected one volume")
    assert found["nan"].startswith("has values that are NaN or infinite (")
    assert found["spacing"].startswith("its header gives a voxel size of 6 x 0 x 7.42857 mm; expected positive sizes")


def with_density(chest: Phantom, mean_hu: float) -> np.ndarray:
    """The image with lungs of another mean; vessels, nodule and noise stay."""
    air = (chest.label > 0) & (chest.image < -500)
    return np.where(air, chest.image + np.int16(mean_hu - chest.image[air].mean()), chest.image).clip(-1024)


@pytest.mark.parametrize(
    "mean_hu", [-940, pytest.param(-830, marks=pytest.mark.slow), pytest.param(-660, marks=pytest.mark.slow)]
)
def test_lungs_of_any_density_have_their_volume(chest, tmp_path, mean_hu):
    """From emphysema to a lung breathed out; vessels, nodule and noise stay."""
    save(as_image(chest, with_density(chest, mean_hu)), tmp_path / "in", "a")
    done = segment(tmp_path)
    for name in SIDES:
        assert done.volumes["a"][name]["volume_ml"] == pytest.approx(chest.truth[f"{name}_ml"], rel=0.02)


@pytest.mark.parametrize(("stature", "spacing_mm"), [(0.35, 1.2), (0.6, 2.0)])
@pytest.mark.slow
def test_chests_of_children(tmp_path, stature, spacing_mm):
    """In a field as small as a child needs, with the pixels of this, and an infant with the spacing for infants."""
    phantom = thorax(np.random.default_rng([101, round(100 * stature)]), round(SIZE / stature), stature=stature)
    middle = np.array(phantom.image.shape) // 2
    half = np.array([SIZE // 2, SIZE // 2, middle[2]])
    field = tuple(slice(m - h, m + h) for m, h in zip(middle, half, strict=True))
    affine = phantom.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (middle - half)
    save(nib.Nifti1Image(phantom.image[field], affine), tmp_path / "in", "a")
    done = segment(tmp_path, spacing_mm=spacing_mm)
    for name in SIDES:
        assert done.volumes["a"][name]["volume_ml"] == pytest.approx(phantom.truth[f"{name}_ml"], rel=0.02)


@pytest.mark.parametrize(("mean_hu", "rel"), [(-910, 0.04), pytest.param(-830, 0.02, marks=pytest.mark.slow)])
def test_padding_that_cuts_into_the_lungs(chest, tmp_path, mean_hu, rel):
    """A circle that is too narrow: of the lungs what lies within it is found, and nothing beyond."""
    x, y = np.ogrid[:SIZE, :SIZE]
    outside = np.broadcast_to(
        (np.hypot(x - SIZE / 2 + 0.5, y - SIZE / 2 + 0.5) > 0.34 * SIZE)[..., None], chest.image.shape
    )
    assert 0.05 < (outside & (chest.label > 0)).sum() / (chest.label > 0).sum() < 0.3
    save(as_image(chest, np.where(outside, -3024, with_density(chest, mean_hu)).astype(np.int16)), tmp_path / "in", "a")
    found = np.asarray(segment(tmp_path).labels["a"].dataobj)
    assert not found[outside].any()
    for value in SIDES.values():
        wanted = ((chest.label == value) & ~outside).sum()
        assert (found == value).sum() == pytest.approx(wanted, rel=rel)


@pytest.mark.slow
def test_a_series_of_a_tilted_gantry_has_its_volume(chest, write_series, tmp_path):
    """The table moves along the body, the slices lean by 20 degrees."""
    lean = np.eye(4)
    lean[:3, :3] = np.array([[-1, 0, 0], [0, -np.cos(0.35), 0], [0, np.sin(0.35), 1]]) * [4, 4, 5]
    shape = np.array([96, 100, 88])
    lean[:3, 3] = chest.affine[:3] @ [*(np.array(chest.image.shape) - 1) / 2, 1] - lean[:3, :3] @ (shape - 1) / 2
    image = resample_from_to(as_image(chest), (tuple(shape), lean), order=1, cval=-1000)
    write_series(tmp_path / "in/s", np.rint(image.dataobj).astype(int) // 2 * 2, lean)
    done = segment(tmp_path)
    assert np.allclose(done.labels["s"].affine, lean, atol=1e-3) and done.labels["s"].shape == tuple(shape)
    for name in SIDES:
        assert done.volumes["s"][name]["volume_ml"] == pytest.approx(chest.truth[f"{name}_ml"], rel=0.02)


def test_a_single_slice_gets_a_single_slice(chest, tmp_path):
    k = int(np.argmax((chest.label > 0).sum(axis=(0, 1))))
    save(as_image(chest, chest.image[..., k : k + 1]), tmp_path / "in", "a")
    labels = segment(tmp_path).labels["a"]
    found, wanted = np.asarray(labels.dataobj), chest.label[..., k : k + 1]
    assert found.shape == wanted.shape and np.allclose(labels.affine, chest.affine)
    assert set(np.unique(found)) == {0, 1, 2} and (found == wanted).mean() > 0.99


@pytest.mark.parametrize(
    "names", [["inference"], ["train"], ["train", "multi_gpu_train"], ["train", "evaluate"]], ids=str
)
def test_patches_and_windows_that_cannot_be_are_named(tmp_path, capfd, names):
    parser = ConfigParser(ConfigParser.load_config_files([BUNDLE / f"configs/{name}.json" for name in names]))
    parser.update({"bundle_root": str(BUNDLE), "dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out")})
    parser.update({"device": "cpu", "ckpt_path": str(tmp_path / "a.pt"), "patch_size": [128, 100]})
    parser.update({"window_hu": [400, -1000]})
    if "multi_gpu_train" in names:
        parser.update({"initialize": []})
    with pytest.raises(SystemExit):
        parser.get_parsed_content("run", eval_expr=True)
    lines = capfd.readouterr().err.splitlines()
    assert (
        'error: patch_size: is [128, 100]; expected 2 positive multiples of 16; pass --patch_size "[128,112]"'
    ) in lines
    assert any(line.startswith("error: window_hu: is [400, -1000]; expected two numbers, the lower") for line in lines)


def test_slices_of_one_voxel_train(tmp_path):
    """A slice cut from a volume, as those of Kaggle, and the volume itself give batches alike."""
    phantom = thorax(np.random.default_rng(0), SMALL_SIZE, stature=1)
    k = int(np.argmax((phantom.label > 0).sum(axis=(0, 1))))
    for name, where in {"whole": np.s_[:], "slice": np.s_[:, :, k : k + 1]}.items():
        save(as_image(phantom, phantom.image[where]), tmp_path / "images", name)
        save(as_image(phantom, phantom.label[where]), tmp_path / "labels", name)
    items = [{key: f"{key}s/{name}.nii.gz" for key in ("image", "label")} for name in ("slice", "whole")]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": items}))
    parser = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs/train.json"))
    parser.update({"bundle_root": str(BUNDLE), "dataset_dir": str(tmp_path), "device": "cpu"})
    [batch] = parser.get_parsed_content("train::dataloader")
    assert batch["image"].shape == batch["label"].shape == (8, 1, 192, 192)
    assert set(np.unique(batch["label"])) == {0, 1} and batch["label"][:4].any()
