"""Files that fail in the middle of a run: the others are segmented, and the failures are reported at its end."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, EnsureChannelFirstd, Lambdad, LoadImaged, SaveImaged
from PIL import Image

from bundlekit.errors import InputNote
from bundlekit.inference.evaluator import FileDataset, FileEvaluator
from bundlekit.inference.record import RunRecord
from bundlekit.inference.writers import PictureWriter
from bundlekit.inputs.checks import RunChecks


class Network(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.max() == 2:
            raise MemoryError("not enough memory")
        return images + 1 if images.max() < 200 else (images + 1).where(images != 210, torch.inf)


def note_six(path: str, values: np.ndarray) -> InputNote | None:
    return InputNote(path, "is six", "five", "count again") if values.max() == 6 else None


def refuse_three(image: torch.Tensor) -> torch.Tensor:
    if image.max() == 3:
        raise ValueError("three is too many")
    return image


def run(folder: Path, num_workers: int = 0, device: str = "cpu") -> tuple[RunChecks, RunRecord]:
    checks, record = RunChecks(2, 1, output_dir=folder / "out"), RunRecord(folder / "out")
    prepare = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), Lambdad("image", refuse_three)])
    save = SaveImaged(
        "pred", output_dir=folder / "out", output_postfix="seg", output_ext=".png", separate_folder=False,
        print_log=False, resample=False, savepath_in_metadict=True, writer=PictureWriter, output_dtype=np.uint8,
    )  # fmt: skip
    dataset = FileDataset(checks.images(folder / "in", record), prepare)
    evaluator = FileEvaluator(
        checks=checks, record=record, device=device, network=Network(), postprocessing=Compose([save]),
        val_data_loader=DataLoader(dataset, num_workers=num_workers),
    )  # fmt: skip
    checks.start(dataset.data)
    evaluator.run()
    return checks, record


def make_images(folder: Path, values: list[int]) -> None:
    (folder / "in").mkdir()
    for i, value in enumerate(values):
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(folder / f"in/{i}.png")


def outputs(folder: Path) -> dict[str, int]:
    return {path.name: int(np.asarray(Image.open(path)).max()) for path in (folder / "out").glob("*.png")}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_run_goes_on_after_files_that_fail_and_segments_them_when_started_again(tmp_path, stop, capsys, num_workers):
    make_images(tmp_path, [5, 2, 6, 3, 7])
    checks, record = run(tmp_path, num_workers)
    assert outputs(tmp_path) == {"0_seg.png": 6, "2_seg.png": 7, "4_seg.png": 8}
    assert (record.num_added, record.num_finished_before) == (3, 0)
    during = capsys.readouterr().err
    lines = stop(checks.finish)
    rest = (
        "expected a file that can be segmented; check the file, or free memory or disk space if the reason is one of "
    )
    rest += "these"
    reasons = {"1.png": "MemoryError: not enough memory", "3.png": "ValueError: three is too many"}
    assert lines == [
        f"left out: {tmp_path}/in/{name}: could not be segmented ({reason}); {rest}" for name, reason in reasons.items()
    ]
    assert all(line in during for line in lines)  # as it happened, too

    for name, value in {"1.png": 8, "3.png": 9}.items():
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / "in" / name)
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in outputs(tmp_path)}
    checks, record = run(tmp_path, num_workers)
    assert (record.num_added, record.num_finished_before) == (2, 3)
    checks.finish()
    assert list(outputs(tmp_path).values()).count(9) == 1 and len(outputs(tmp_path)) == 5
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == time for name, time in times.items())
    assert len(list((tmp_path / "out").iterdir())) == 5


def test_nothing_left_to_do_is_no_error(tmp_path, capsys):
    make_images(tmp_path, [5, 6])
    run(tmp_path)  # without finish, as if it was killed
    run(tmp_path)[0].finish()
    assert capsys.readouterr().out.endswith(
        f"0 segmented, 2 finished before (--resume false segments them again), 0 left out: {tmp_path}/out\n"
    )


def test_two_images_of_one_name_are_refused_whatever_is_finished(tmp_path, stop):
    make_images(tmp_path, [5, 6])
    run(tmp_path)
    (tmp_path / "in/sub").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "in/0.tif")
    checks, record = RunChecks(2, 1, output_dir=tmp_path / "out"), RunRecord(tmp_path / "out")
    items = checks.images(tmp_path / "in", record)
    [line] = stop(lambda: checks.start(items))
    assert line.startswith("error: ") and "0.tif" in line


@pytest.mark.parametrize("num_workers", [0, 1])
def test_values_are_checked_where_a_file_is_decoded(tmp_path, stop, capsys, num_workers):
    make_images(tmp_path, [5, 6])
    (tmp_path / "in/1.png").unlink()
    values = np.ones((4, 4), np.float32)
    values[1, 2] = np.inf
    Image.fromarray(values).save(tmp_path / "in/1.tif")
    Image.fromarray(np.random.default_rng(0).integers(9, 256, (64, 64), dtype=np.uint8)).save(tmp_path / "in/2.png")
    cut = tmp_path / "in/2.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    checks, record = run(tmp_path, num_workers)
    assert outputs(tmp_path) == {"0_seg.png": 6} and record.num_added == 1
    during = capsys.readouterr().err.splitlines()
    assert stop(checks.finish) == [line for line in during if line.startswith("left out: ")]
    infinite, truncated = during
    assert infinite == (
        f"left out: {tmp_path}/in/1.tif: has values that are NaN or infinite (1 of 16 values, first at index (2, 1)); "
        "expected finite numbers; replace them, for example by 0"
    )
    assert truncated.startswith(f"left out: {cut}: cannot be read as an image (truncated or not an image; the reader ")


def test_what_is_noted_of_a_file_is_printed_when_it_is_segmented(tmp_path, capsys):
    make_images(tmp_path, [5, 6])
    checks, record = RunChecks(2, 1, examine=note_six, output_dir=tmp_path / "out"), RunRecord(tmp_path / "out")
    dataset = FileDataset(
        checks.images(tmp_path / "in", record), Compose([LoadImaged("image"), EnsureChannelFirstd("image")])
    )
    evaluator = FileEvaluator(
        checks=checks,
        record=record,
        device="cpu",
        network=Network(),
        val_data_loader=DataLoader(dataset, num_workers=1),
    )
    checks.start(dataset.data)
    assert capsys.readouterr().err == ""
    evaluator.run()
    assert capsys.readouterr().err == f"note: {tmp_path}/in/1.png: is six; expected five; count again\n"
    checks.finish()


def test_one_of_several_files_that_cannot_be_read_is_named(tmp_path):
    for name, size in (("t1", 60), ("t2", 60), ("flair", 60)):
        nib.save(nib.Nifti1Image(np.random.default_rng(0).random((size, 9, 9)), np.eye(4)), tmp_path / f"{name}.nii.gz")
    broken = tmp_path / "t2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:9000])
    files = [str(tmp_path / f"{name}.nii.gz") for name in ("flair", "t1", "t2")]
    dataset = FileDataset([{"image": files}], Compose([LoadImaged("image")]))
    dataset.check = RunChecks(3, 3).value_check()
    assert dataset[0]["problem"].startswith(f"{broken}: cannot be read as an image (truncated or not an image; ")
    dataset.data[0]["image"] = files[:2]
    assert dataset[0]["image"].shape == (2, 60, 9, 9) and json.loads(dataset[0]["notes"]) == []
    nib.save(nib.Nifti1Image(np.ones((60, 9, 9)), np.eye(4)), files[1])
    assert dataset[0]["problem"].startswith(f"{files[1]}: has the value 1 everywhere; ")


def test_no_output_is_made_of_predictions_that_are_not_finite(tmp_path, stop, capsys):
    make_images(tmp_path, [5, 210, 7])
    checks, record = run(tmp_path)
    assert outputs(tmp_path) == {"0_seg.png": 6, "2_seg.png": 8} and record.num_added == 2
    [line] = capsys.readouterr().err.splitlines()
    assert stop(checks.finish) == [line]
    assert line == (
        f"left out: {tmp_path}/in/1.png: the network's output has 16 of 16 values that are NaN or infinite; expected "
        "finite numbers; look at the image's intensities, or pass --amp false where it is on"
    )


def test_a_device_that_stops_working_ends_the_run_at_its_file(tmp_path, stop):
    """The device of tensors without values takes the images and fails as soon as a value is asked for."""
    make_images(tmp_path, [5, 6, 7])
    [line] = stop(lambda: run(tmp_path, device="meta"))
    assert line.startswith(f"error: {tmp_path}/in/0.png: device meta stopped working at it (RuntimeError: ")
    assert line.endswith("; expected a device that works to the end; start the run again, or pass --device cpu")
    assert outputs(tmp_path) == {}
