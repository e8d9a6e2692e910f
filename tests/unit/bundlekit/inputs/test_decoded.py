"""What the checks have decoded is used once, by the same kind of reader and for the same file only."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImage
from PIL import Image

from bundlekit.inputs.checks import RunChecks
from bundlekit.inputs.decoded import DECODED, DecodedFiles, DecodedReader, keeping
from bundlekit.inputs.pictures import PictureReader
from bundlekit.inputs.volumes import LoadImageOrSeriesd, VolumeChecks


@pytest.fixture(autouse=True)
def empty():
    """Nothing is left from or for another test."""
    DECODED._files.clear()
    DECODED.num_bytes = 0


@pytest.fixture
def volume(tmp_path) -> str:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([1, 2, 3, 1]))
    image.header.set_slope_inter(2, 1)
    nib.save(image, tmp_path / "a.nii.gz")
    return str(tmp_path / "a.nii.gz")


def same(image, other) -> bool:
    keys = image.meta.keys() == other.meta.keys()
    return keys and image.dtype == other.dtype and bool((image == other).all() and (image.affine == other.affine).all())


def test_the_first_loader_gets_what_the_checks_decoded_and_the_second_decodes(volume, monkeypatch):
    wanted = LoadImage(ensure_channel_first=True)(volume)
    keeping(LoadImage())(volume)
    assert DECODED.num_bytes == 60 * 8  # scaled to 64 bits, as nibabel does
    with monkeypatch.context() as patch:
        patch.setattr(nib, "load", lambda *args: pytest.fail("decoded again"))
        assert same(LoadImage(ensure_channel_first=True)(volume), wanted)
    assert DECODED.num_bytes == 0
    assert same(LoadImage(ensure_channel_first=True)(volume), wanted)


def test_several_files_of_one_image_are_kept_together(volume, tmp_path):
    nib.save(nib.Nifti1Image(np.ones((5, 4, 3)), np.diag([1, 2, 3, 1])), tmp_path / "b.nii")
    files = [volume, str(tmp_path / "b.nii")]
    wanted = LoadImage()(files)
    keeping(LoadImage())(files)
    assert DECODED.find(DecodedReader, (volume,)) is None
    assert same(LoadImage()(files), wanted) and DECODED.num_bytes == 0


def test_a_series_is_kept_for_the_loader_of_series(write_series, tmp_path, monkeypatch):
    hu = np.arange(4 * 4 * 3).reshape(4, 4, 3) * 2 - 100
    write_series(tmp_path / "s", hu, np.diag([0.7, 0.7, 2.5, 1]))
    folder, load = str(tmp_path / "s"), LoadImageOrSeriesd("image")
    wanted = load({"image": folder})["image"]
    keeping(VolumeChecks._load)(folder)
    assert DECODED.num_bytes > 0
    LoadImage()(folder)  # stacks slices in another way, and gets nothing
    assert DECODED.num_bytes > 0
    assert same(load({"image": folder})["image"], wanted) and DECODED.num_bytes == 0


def test_a_picture_is_kept_for_the_reader_that_decoded_it(tmp_path):
    path = str(tmp_path / "a.png")
    Image.fromarray(np.arange(96, dtype=np.uint8).reshape(4, 6, 4)).save(path)
    keeping(LoadImage(PictureReader(), dtype=None))(path)
    assert LoadImage()(path).shape == (6, 4, 4)  # MONAI's reader, with alpha
    assert DECODED.num_bytes == 72
    assert LoadImage(reader=PictureReader)(path).shape == (6, 4, 3) and DECODED.num_bytes == 0


def test_a_file_that_was_replaced_is_decoded(volume):
    keeping(LoadImage())(volume)
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2)), np.eye(4)), volume)
    assert LoadImage()(volume).shape == (2, 2, 2)
    keeping(LoadImage())(volume)
    os.utime(volume, ns=(1, 1))
    assert DECODED.find(DecodedReader, (volume,)) is None
    os.unlink(volume)
    assert DECODED.take(DecodedReader, (volume,)) is None


def test_no_more_is_kept_than_there_is_room_for(tmp_path):
    files, names = DecodedFiles(max_bytes=250), []
    for i in range(4):
        (tmp_path / str(i)).touch()
        names.append((str(tmp_path / str(i)),))
        files.keep(DecodedReader, names[-1], (np.zeros(100, np.uint8), {}))
    assert [files.find(DecodedReader, name) is not None for name in names] == [True, True, False, False]
    assert files.num_bytes == 200
    files.drop(names[0])
    assert files.num_bytes == 100 and files.take(DecodedReader, names[0]) is None


def test_entries_that_are_left_out_take_no_room(make_pairs, tmp_path):
    folder = make_pairs(tmp_path, "bad.png")
    label = f"{tmp_path}/labels/good1.png"
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(label)
    items = RunChecks(spatial_dims=2, channels=1, label_values=[0, 1]).section(folder, "training")
    assert [Path(item["image"]).name for item in items] == ["good0.png"]
    assert DECODED.num_bytes == 2 * 32 * 32
    assert len(RunChecks(spatial_dims=2, channels=1).images(make_pairs(tmp_path / "more") / "images")) == 2
    assert DECODED.num_bytes == 2 * 32 * 32  # what nobody loads after the checks is not kept
