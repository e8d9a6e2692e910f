"""Series of a tilted gantry against the positions in their files, single slices, and folders named as DICOM does it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, SaveImage

from bundlekit.errors import InputError
from bundlekit.inference.writers import VolumeWriter
from bundlekit.inputs.dicom import check_dicom, check_stack
from bundlekit.inputs.images import check_image
from bundlekit.inputs.volumes import LoadImageOrSeriesd, OutputName, VolumeChecks, name_volume

TILT = np.radians(20)
PIXEL_MM, STEP_MM = (0.7, 0.8), 5.0


def tilted(angle: float) -> np.ndarray:
    """Slices turned about x, one 5 mm above the other along the table, as a gantry that leans makes them."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1, 0, 0], [0, -np.cos(angle), 0], [0, np.sin(angle), 1]]) * [*PIXEL_MM, STEP_MM]
    affine[:3, 3] = 11, -7, 100
    return affine


@pytest.fixture
def hu() -> np.ndarray:
    return 2 * np.random.default_rng(0).integers(-512, 500, (6, 5, 14))


def test_slices_of_a_tilted_gantry_are_where_they_were_taken(write_series, hu, tmp_path):
    write_series(tmp_path / "in/s", hu, tilted(TILT))
    image = LoadImageOrSeriesd("image", ensure_channel_first=True)({"image": tmp_path / "in/s"})["image"]
    assert np.array_equal(image[0], hu) and np.allclose(image.affine, tilted(TILT), atol=1e-4)
    voxel_mm3 = np.prod(PIXEL_MM) * STEP_MM * np.cos(TILT)
    assert abs(np.linalg.det(image.affine)) == pytest.approx(voxel_mm3, rel=1e-4)
    checks = VolumeChecks(spatial_dims=3, channels=1)
    assert checks.images(tmp_path / "in") == [{"image": str(tmp_path / "in/s")}]
    checks.start([1])
    checks.finish()


@pytest.mark.parametrize("angle", [0, TILT])
def test_a_single_slice_is_as_thick_as_its_file_says(write_series, hu, tmp_path, angle):
    write_series(tmp_path / "s", hu, tilted(angle), skip=tuple(range(1, hu.shape[2])))
    image = LoadImageOrSeriesd("image", ensure_channel_first=True)({"image": tmp_path / "s"})["image"]
    assert np.array_equal(image[0], hu[..., :1])
    assert abs(np.linalg.det(image.affine)) == pytest.approx(np.prod(PIXEL_MM) * STEP_MM, rel=1e-4)


def test_a_pipeline_that_stacks_slices_along_their_normal_refuses_them(write_series, hu, tmp_path):
    write_series(tmp_path / "s", hu, tilted(TILT))
    plain = LoadImage(image_only=True)(tmp_path / "s")
    assert abs(np.linalg.det(plain.affine)) == pytest.approx(np.prod(PIXEL_MM) * STEP_MM, rel=1e-4)  # too large
    with pytest.raises(InputError) as caught:
        check_image(str(tmp_path / "s"), 3, 1)
    aside_mm = 13 * STEP_MM * np.linalg.norm([np.sin(TILT), 1 - np.cos(TILT)])
    assert str(caught.value) == (
        f"{tmp_path}/s: its slices are sheared (gantry tilt?): offset by {aside_mm:.3g} mm from the first to the last; "
        "expected slices stacked along their normal; convert it with dcm2niix, which corrects the tilt"
    )


@pytest.mark.parametrize("angle", [0, 0.0005])
def test_rounding_is_no_tilt(write_series, hu, tmp_path, angle):
    write_series(tmp_path / "s", hu, tilted(angle))
    check_stack(tmp_path / "s", np.asarray(LoadImage(image_only=True)(tmp_path / "s").affine))
    check_image(str(tmp_path / "s"), 3, 1)


def test_slices_on_no_line(write_series, hu, tmp_path):
    """Steps of 5 mm all of them, but in two directions."""
    write_series(tmp_path / "s", hu, tilted(TILT), skip=tuple(range(7, 14)))
    bent = tilted(TILT)
    bent[:3, 2] = bent[:3, 2] * [1, 1, np.cos(0.3)] + [0, STEP_MM * np.sin(0.3), 0]
    bent[:3, 3] += 6 * (tilted(TILT) - bent)[:3, 2]
    write_series(tmp_path / "s", hu, bent, skip=tuple(range(7)))
    with pytest.raises(InputError, match=r"its slices are not on one line \(one is offset by .* mm\); expected slices"):
        check_dicom(tmp_path / "s")


def test_folders_named_by_numbers_with_dots_keep_them(write_series, hu, tmp_path, capsys):
    names = ["1.2.840.1", "1.2.840.2"]
    for name in names:
        write_series(tmp_path / "in" / name, hu, tilted(0), uid=name)
    checks = VolumeChecks(spatial_dims=3, channels=1, output_dir=tmp_path / "out")
    items = checks.images(tmp_path / "in")
    checks.start(items)
    assert capsys.readouterr().err == "" and [name_volume(item["image"]) for item in items] == names
    for item in items:
        image = LoadImageOrSeriesd("image", ensure_channel_first=True)(item)["image"]
        save = SaveImage(
            tmp_path / "out", "seg", separate_folder=False, print_log=False, output_name_formatter=OutputName()
        )
        save(image)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{name}_seg.nii.gz" for name in names]


@pytest.mark.parametrize("shape", [(6, 5, 1), (6, 1, 1), (6, 5, 4)])
@pytest.mark.parametrize("resample", [True, False])
def test_axes_of_length_1_are_written(tmp_path, shape, resample):
    meta = {"affine": torch.as_tensor(tilted(0)), "original_affine": tilted(0), "spatial_shape": shape}
    meta["filename_or_obj"] = str(tmp_path / "a.nii.gz")
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    save = SaveImage(
        tmp_path, "seg", resample=resample, separate_folder=False, print_log=False, output_dtype=np.uint8,
        writer=VolumeWriter,
    )  # fmt: skip
    save(MetaTensor(values[None], meta=meta))
    image = nib.load(tmp_path / "a_seg.nii.gz")
    assert image.shape == shape and np.array_equal(image.dataobj, values) and np.allclose(image.affine, tilted(0))


@pytest.mark.parametrize(
    ("path", "modalities", "name"),
    [
        ("in/BraTS18_x_1_flair.nii.gz", ["flair", "t1"], "BraTS18_x_1"),
        ("in/subject-1-T1.hdr", ["T1", "T2"], "subject-1"),
        ("in/a.b_FLAIR.nii", ["flair", "t1"], "a.b"),
        ("in/patient 7/flair.nii.gz", ["flair", "t1"], "patient 7"),
        ("in/a_0000.nii.gz", ["flair", "t1"], "a_0000"),
        ("in/a_flair.nii.gz", [], "a_flair"),
        ("in/_t1.nii.gz", ["flair", "t1"], "_t1"),
    ],
)
def test_outputs_are_named_by_the_case(tmp_path, path, modalities, name):
    assert name_volume(path, modalities) == name
    image = MetaTensor(np.ones((1, 4, 3, 2), np.uint8), meta={"filename_or_obj": path})
    save = SaveImage(
        tmp_path, "seg", separate_folder=False, print_log=False, output_name_formatter=OutputName(modalities)
    )
    save(image)
    assert [file.name for file in tmp_path.iterdir()] == [f"{name}_seg.nii.gz"]


def save_cases(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True)
    for name in names:
        nib.save(nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.eye(4)), folder / f"{name}.nii.gz")


def test_cases_whose_outputs_would_be_one_file_stop_the_run(tmp_path, stop):
    save_cases(tmp_path / "in", "a_t1", "a_t2", "a-t1", "a-t2")
    checks = VolumeChecks(spatial_dims=3, channels=2, modalities=["t1", "t2"], output_dir=tmp_path / "out")
    checks.images(tmp_path / "in")
    [line] = stop(lambda: checks.start([1]))
    assert line.startswith(f"error: {tmp_path}/in/a_t1.nii.gz: has the same output name as {tmp_path}/in/a-t1.nii.gz;")


@pytest.mark.parametrize("out", ["in", "in/../in"])
def test_outputs_may_not_lie_among_the_volumes(tmp_path, stop, out):
    """BraTS keeps its own labels there, under the name of the output."""
    save_cases(tmp_path / "in", "a_t1", "a_t2", "a_seg")
    checks = VolumeChecks(spatial_dims=3, channels=2, modalities=["t1", "t2"], output_dir=tmp_path / out)
    items = checks.images(tmp_path / "in")
    [line] = stop(lambda: checks.start(items))
    assert "is both input and output folder" in line


def test_outputs_may_not_lie_among_the_slices(write_series, hu, tmp_path, stop):
    write_series(tmp_path / "s", hu, tilted(0))
    checks = VolumeChecks(spatial_dims=3, channels=1, output_dir=tmp_path / "s")
    items = checks.images(tmp_path / "s")
    [line] = stop(lambda: checks.start(items))
    assert "is both input and output folder" in line
