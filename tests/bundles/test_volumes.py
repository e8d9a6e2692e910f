"""Every bundle for volumes: results land where the voxels are, whatever the axes, the size, the grid or the device."""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.utils import ensure_tuple, set_determinism
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nibabel.processing import resample_from_to

from bundlekit.phantoms import make_dataset

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = [
    path.parents[1]
    for path in sorted(ROOT.glob("bundles/*/configs/train.json"))
    if json.loads(path.read_text())["checks"]["spatial_dims"] == 3
]
assert BUNDLES, f"no bundle for volumes in {ROOT}"
AXES = ["RAS", "LPS", "SPL", "PIR"]  # plain, mirrored, two axes exchanged, all three in a circle
SIZE = 32
SIZE_TO_RESAMPLE = 48  # in smaller phantoms interpolation blurs the thin rims that tumours are known by
REAL = {"hippocampus_mri_segmentation": "msd_hippocampus/images/hippocampus_105.nii.gz"}
TILT = np.eye(4)  # by 30 degrees about x, and moved
TILT[1:3, 1:3] = [[np.cos(np.pi / 6), -np.sin(np.pi / 6)], [np.sin(np.pi / 6), np.cos(np.pi / 6)]]
TILT[:3, 3] = 7, -11, 13


# with several workers, one of them makes the label maps of a bundle
PARAMS = [pytest.param(path, id=path.name, marks=pytest.mark.xdist_group(f"volumes {path.name}")) for path in BUNDLES]


@pytest.fixture(scope="module", params=PARAMS)
def brain(request) -> Path:
    return request.param


def make_case(bundle: Path, folder: Path, size: int) -> list[nib.Nifti1Image]:
    """A phantom's volumes, one for each modality."""
    make_dataset(bundle.name, folder, training=0, validation=0, test=1, size=size)
    [item] = json.loads((folder / "dataset.json").read_text())["test"]
    return [nib.load(folder / path) for path in ensure_tuple(item["image"])]


@pytest.fixture(scope="module")
def case(brain, tmp_path_factory) -> list[nib.Nifti1Image]:
    return make_case(brain, tmp_path_factory.mktemp(brain.name), SIZE)


def modalities(bundle: Path) -> list[str]:
    return json.loads((bundle / "configs/train.json").read_text()).get("modalities", [""])


def write(bundle: Path, folder: Path, name: str, volumes: list[nib.Nifti1Image]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for modality, volume in zip(modalities(bundle), volumes, strict=True):
        nib.save(volume, folder / (f"{name}_{modality}.nii.gz" if modality else f"{name}.nii.gz"))


def patch_dims(bundle: Path) -> int:
    """2 where the windows are slices of a volume."""
    return len(json.loads((bundle / "configs/inference.json").read_text())["patch_size"])


def parse(bundle: Path, folder: Path, patch_size: list[int]) -> ConfigParser:
    """The inference of folder/in to folder/out in windows of the size."""
    set_determinism(0)
    parser = ConfigParser(ConfigParser.load_config_file(bundle / "configs/inference.json"))
    places = {"bundle_root": str(bundle), "dataset_dir": str(folder / "in"), "output_dir": str(folder / "out")}
    parser.update({**places, "device": "cpu", "patch_size": patch_size[: patch_dims(bundle)]})
    return parser


def segment(
    bundle: Path, folder: Path, cases: dict[str, list[nib.Nifti1Image]], patch_size: list[int]
) -> dict[str, nib.Nifti1Image]:
    """What one run over the cases says, by their names."""
    for name, case in cases.items():
        write(bundle, folder / "in", name, case)
    parser = parse(bundle, folder, patch_size)
    parser.get_parsed_content("evaluator").run()
    parser.get_parsed_content("checks").finish()
    found = {path.name.removesuffix("_seg.nii.gz"): nib.load(path) for path in (folder / "out").iterdir()}
    assert found.keys() == cases.keys()
    return found


def reoriented(volume: nib.Nifti1Image, axes: str) -> nib.Nifti1Image:
    """The same volume, its axes exchanged and flipped, with the affine that says so."""
    return volume.as_reoriented(ornt_transform(io_orientation(volume.affine), axcodes2ornt(axes)))


@pytest.fixture(scope="module")
def volumes(case) -> dict[str, list[nib.Nifti1Image]]:
    """The case as it may come, by names."""
    cases = {axes: [reoriented(volume, axes) for volume in case] for axes in AXES}
    cases["tilted"] = [nib.Nifti1Image(volume.dataobj, TILT @ volume.affine) for volume in cases["RAS"]]
    cases["small"] = [volume.slicer[6:19, 5:26, 8:17] for volume in case]
    return cases


@pytest.fixture(scope="module")
def labels(brain, volumes, tmp_path_factory) -> dict[str, nib.Nifti1Image]:
    return segment(brain, tmp_path_factory.mktemp(f"{brain.name}_labels"), volumes, [SIZE] * 3)


def test_flipped_and_turned_copies_of_a_volume_get_the_same_labels_in_space(volumes, labels):
    reference = np.asarray(labels["RAS"].dataobj)
    assert len(np.unique(reference)) > 1  # the weights see something to compare
    for axes in AXES:
        assert labels[axes].shape == volumes[axes][0].shape
        assert np.allclose(labels[axes].affine, volumes[axes][0].affine, atol=1e-5), axes
        # the network sees the very same voxels
        assert np.array_equal(np.asarray(reoriented(labels[axes], "RAS").dataobj), reference), axes


def test_an_oblique_header_turns_the_result_with_the_volume(volumes, labels):
    assert np.allclose(labels["tilted"].affine, TILT @ volumes["RAS"][0].affine, atol=1e-4)  # float32 of some 100 mm
    # 30 degrees are nearer to the old axes than to others: the same voxels go in
    assert np.array_equal(labels["tilted"].dataobj, labels["RAS"].dataobj)


def mean_dice(found: np.ndarray, wanted: np.ndarray) -> float:
    """Over the labels of ``wanted``, without the background."""
    pairs = [(found == value, wanted == value) for value in np.unique(wanted[wanted > 0])]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]))


def test_a_copy_on_a_finer_turned_grid_lands_on_the_original(brain, tmp_path):
    """Labels of a resampled copy, brought back by scipy, fit the original, and less so a voxel away along any axis."""
    source = json.loads((brain / "configs/metadata.json").read_text())["data_source"]
    if source.lower().startswith("phantoms"):
        case = make_case(brain, tmp_path / "data", SIZE_TO_RESAMPLE)
        patch_size = [SIZE_TO_RESAMPLE] * 3
    elif "DATA_ROOT" in os.environ:
        case = [nib.load(Path(os.environ["DATA_ROOT"], REAL[brain.name]))]
        patch_size = json.loads((brain / "configs/inference.json").read_text())["patch_size"]
    else:  # such weights see too little in a phantom to be compared by
        pytest.skip("set DATA_ROOT to the folder of real images")
    shares = np.array([0.8, 0.8, 1.25])  # of the original's voxels
    angle, spacing_mm = np.radians(8), shares * np.linalg.norm(case[0].affine[:3, :3], axis=0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    shape = tuple(np.ceil(1.3 * np.array(case[0].shape) / shares).astype(int))
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing_mm * np.sign(np.diag(case[0].affine)[:3])
    middle = case[0].affine @ [*(np.array(case[0].shape) - 1) / 2, 1]
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ (np.array(shape) - 1) / 2
    # what a cropped volume's border shows goes on beyond it: the weights have never seen a frame of zeros
    copies = [resample_from_to(volume, (shape, affine), order=1, mode="nearest") for volume in case]
    found = segment(brain, tmp_path, {"original": case, "copy": copies}, patch_size)
    assert found["copy"].shape == shape and np.allclose(found["copy"].affine, affine, atol=1e-4)
    back = np.asarray(resample_from_to(found["copy"], case[0], order=0).dataobj)
    original = np.asarray(found["original"].dataobj)
    fit = mean_dice(back, original)
    assert fit > 0.5  # interpolation costs thin labels some tenths
    for axis, voxels in product(range(3), (-1, 1)):
        assert mean_dice(np.roll(back, voxels, axis), original) < fit, (axis, voxels)


def test_a_volume_smaller_than_a_window(volumes, labels):
    [small, *_] = volumes["small"]
    assert labels["small"].shape == small.shape == (13, 21, 9)
    assert np.allclose(labels["small"].affine, small.affine)
    assert labels["small"].get_data_dtype() == np.uint8


def test_a_frame_of_zeros_changes_nothing_where_all_voxels_set_the_scale(tmp_path):
    """As in a volume that was registered to a larger one; only the hippocampus is not normalised within a mask."""
    bundle = ROOT / "bundles/hippocampus_mri_segmentation"
    [plain] = make_case(bundle, tmp_path / "data", SIZE)
    inner = np.asarray(plain.dataobj)
    assert all((np.take(inner, i, axis) != 0).any() for axis in range(3) for i in (0, -1))
    moved = plain.affine.copy()
    moved[:3, 3] -= moved[:3, :3] @ (9, 20, 4)
    framed = nib.Nifti1Image(np.pad(inner, ((9, 3), (20, 0), (4, 30))), moved)
    found = segment(bundle, tmp_path, {"plain": [plain], "framed": [framed]}, [16, 16, 16])
    wanted = np.pad(np.asarray(found["plain"].dataobj), ((9, 3), (20, 0), (4, 30)))
    assert wanted.any() and np.array_equal(found["framed"].dataobj, wanted)
    assert np.allclose(found["framed"].affine, moved)


def test_a_volume_that_resampling_would_blow_up_is_left_out(brain, case, tmp_path, capsys):
    """A header in the wrong unit must not cost the memory that the other volumes need."""
    big = np.diag([1000.0, 1000, 1000, 1])  # micrometres taken for millimetres
    write(brain, tmp_path / "in", "good", case)
    write(brain, tmp_path / "in", "big", [nib.Nifti1Image(volume.dataobj, big @ volume.affine) for volume in case])
    parser = parse(brain, tmp_path, [SIZE] * 3)
    [item] = parser.get_parsed_content("dataset::data")
    assert Path(ensure_tuple(item["image"])[0]).name.startswith("good")
    with pytest.raises(SystemExit):
        parser.get_parsed_content("checks").finish()
    [line] = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/in/big" in line and "expected at most 512 x 512 x 512; correct its voxel size" in line


def test_the_network_meets_windows_alone_however_large_the_volume(brain, case, tmp_path):
    """A device has to hold a batch of windows: the volume and what the windows are joined to stay elsewhere."""
    write(brain, tmp_path / "in", "large", case)
    parser = parse(brain, tmp_path, [16] * 3)
    network, inferer = parser.get_parsed_content("network"), parser.get_parsed_content("inferer")
    sizes = []
    network.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(inputs[0].shape)))
    parser.get_parsed_content("evaluator").run()
    assert len(sizes) > 2 and {size[2:] for size in sizes} == {(16,) * patch_dims(brain)}
    assert max(size[0] for size in sizes) <= inferer.sw_batch_size
    config = ConfigParser.load_config_file(brain / "configs/inference.json")
    assert (config["inferer"]["sw_device"], config["inferer"]["device"]) == ("@device", "@volume_device")
    assert config["evaluator"]["device"] == "@volume_device"


def channels(bundle: Path) -> list[list[int]]:
    """Label values of each channel of the network."""
    train = json.loads((bundle / "configs/train.json").read_text())
    return list(train["regions"].values()) if "regions" in train else [[v] for v in train["checks"]["label_values"]]


MODAL = [pytest.param(path, id=path.name) for path in BUNDLES if modalities(path)[0]]


@pytest.mark.parametrize("name", ["inference", "train"])
@pytest.mark.parametrize("multimodal", MODAL)
def test_nothing_is_found_where_every_modality_is_0(multimodal, name, tmp_path):
    """Of a network that finds something everywhere, exactly the voxels of the brain are left, on any grid."""
    affine = TILT @ np.diag([1.7, 0.8, 1.3, 1])  # resampling smears values over the border of the brain
    values = np.zeros((len(modalities(multimodal)), 9, 11, 8), np.float32)
    for k, volume in enumerate(values):
        volume[2:5, 3:9, 1 + k : 4 + k] = np.random.default_rng(k).uniform(-3, 3, (3, 6, 3))
    write(multimodal, tmp_path / "in", "a", [nib.Nifti1Image(volume, affine) for volume in values])
    nib.save(nib.Nifti1Image(np.ones(values[0].shape, np.uint8), affine), tmp_path / "label.nii.gz")
    files = [str(tmp_path / f"in/a_{modality}.nii.gz") for modality in modalities(multimodal)]
    parser, prefix = parse(multimodal, tmp_path, [SIZE] * 3), ""
    if name == "train":
        parser, prefix = ConfigParser(ConfigParser.load_config_file(multimodal / "configs/train.json")), "validate::"
        parser.update({"bundle_root": str(multimodal)})
    sample = parser.get_parsed_content(f"{prefix}preprocessing")(
        {"image": files, "label": str(tmp_path / "label.nii.gz")}
    )
    is_background = [0 in labels for labels in channels(multimodal)]
    logits = torch.tensor([-20.0 if nothing else 20.0 for nothing in is_background]).reshape(-1, 1, 1, 1)
    sample["pred"] = MetaTensor(logits.expand(-1, *sample["image"].shape[1:]), meta=sample["image"].meta)
    scored = parser.get_parsed_content(f"{prefix}postprocessing")(sample)["pred"]
    if name == "inference":
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_seg.nii.gz"]
        found = np.asarray(nib.load(tmp_path / "out/a_seg.nii.gz").dataobj)
    else:
        found = scored[[not nothing for nothing in is_background]].any(0).numpy()
    assert np.array_equal(found > 0, (values != 0).any(0))


def test_the_truth_scores_1_and_0_mm_in_the_space_of_the_label(brain, tmp_path):
    """Logits that are the truth on the network's grid, brought there by scipy, come back to the very label."""
    make_dataset(brain.name, tmp_path / "data", training=0, validation=0, test=1, size=SIZE)
    [item] = json.loads((tmp_path / "data/dataset.json").read_text())["test"]
    for path in [*ensure_tuple(item["image"]), item["label"]]:
        nib.save(reoriented(nib.load(tmp_path / "data" / path), "PIR"), tmp_path / "data" / path)
    files = [brain / f"configs/{name}.json" for name in ("train", "evaluate")]
    parser = ConfigParser(ConfigParser.load_config_files(files))
    parser.update({"bundle_root": str(brain), "dataset_dir": str(tmp_path / "data"), "device": "cpu"})
    [entry] = parser.get_parsed_content("validate::dataset::data")
    sample = parser.get_parsed_content("validate::preprocessing")(dict(entry))
    image = sample["image"]
    label = resample_from_to(nib.load(entry["label"]), (image.shape[1:], image.affine.numpy()), order=0)
    truth = torch.as_tensor(np.stack([np.isin(label.dataobj, values) for values in channels(brain)]))
    sample["pred"] = MetaTensor(20.0 * truth - 10, meta=image.meta)
    scored = parser.get_parsed_content("validate::postprocessing")(sample)
    for metric, wanted in (("key_metric::val_mean_dice", 1.0), ("additional_metrics::val_hausdorff95_mm", 0.0)):
        measure = parser.get_parsed_content(f"validate::{metric}::metric_fn")
        measure([scored["pred"]], [scored["label"]])
        assert measure.aggregate().item() == wanted
