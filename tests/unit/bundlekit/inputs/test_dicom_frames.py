"""Enhanced DICOM files of several frames against the values and places that were written, in any order of frames."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import itk
import numpy as np
import pytest
from monai.data import MetaTensor

from bundlekit.errors import InputError
from bundlekit.inputs.datalists import find_images
from bundlekit.inputs.dicom_elements import read_elements
from bundlekit.inputs.dicom_frames import read_frames
from bundlekit.inputs.images import check_image
from bundlekit.inputs.volumes import LoadImageOrSeriesd, VolumeChecks
from tests.dicom_files import Encoder, write_frames

AFFINE = np.eye(4)  # oblique, of 0.7 x 0.8 x 5 mm, x and y as scanners have them
AFFINE[:3, :3] = np.array([[-1, 0, 0], [0, -0.96, 0.28], [0, 0.28, 0.96]]) * [0.7, 0.8, 5]
AFFINE[:3, 3] = 11, -7, 100
SHUFFLED = [3, 0, 4, 1, 2]
LOAD = VolumeChecks._load


@pytest.fixture
def hu() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 1000, (7, 6, 5))


def load(path: Path | list[str]) -> MetaTensor:
    return LoadImageOrSeriesd("image", ensure_channel_first=True)({"image": path})["image"]


def fault(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        check_image(str(path), 3, 1, LOAD)
    line = str(caught.value)
    assert line.startswith(str(path)) and "\n" not in line
    return line.split(": ", 1)[1]


def assert_right(path: Path, hu: np.ndarray) -> None:
    """The file itself, and the folder that holds nothing else, are the volume that was written, header and values."""
    for place in (path, path.parent):
        image, grid = load(place), check_image(str(place), 3, 1, LOAD)
        assert np.array_equal(image[0], hu), place
        assert np.allclose(image.affine, AFFINE, atol=1e-4) and np.allclose(grid.affine, AFFINE, atol=1e-4), place
        assert grid.shape == hu.shape


def test_itk_reads_what_is_written_here(hu, tmp_path):
    """An independent reader, where frames are in order and share all: ITK's."""
    write_frames(tmp_path / "a.dcm", hu, AFFINE)
    assert np.array_equal(itk.array_from_image(itk.imread(str(tmp_path / "a.dcm"))).T, hu)
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    assert np.allclose(itk.imread(str(tmp_path / "a.dcm")).GetOrigin(), lps[:3, 3])
    assert np.allclose(itk.imread(str(tmp_path / "a.dcm")).GetSpacing(), [0.7, 0.8, 5])


@pytest.mark.parametrize("order", [range(5), range(4, -1, -1), SHUFFLED], ids=str)
@pytest.mark.parametrize("is_shared", [True, False])
def test_frames_in_any_order(hu, tmp_path, order, is_shared):
    write_frames(tmp_path / "s/a.dcm", hu, AFFINE, order, is_shared=is_shared)
    assert_right(tmp_path / "s/a.dcm", hu)


@pytest.mark.parametrize("encoder", [Encoder(False, True), Encoder(True, False), Encoder(False, False)])
def test_encodings(hu, tmp_path, encoder):
    write_frames(tmp_path / "s/a.dcm", hu, AFFINE, SHUFFLED, encoder=encoder)
    assert_right(tmp_path / "s/a.dcm", hu)


@pytest.mark.parametrize("order", [range(5), SHUFFLED], ids=str)
def test_each_frame_has_its_own_slope_and_intercept(hu, tmp_path, order):
    pairs = [(1, -1024), (2, -1024), (4, 0), (0.5, 10), (1, 0)]
    exact = np.stack([np.rint((hu[..., k] - b) / a) * a + b for k, (a, b) in enumerate(pairs)], axis=-1)
    write_frames(tmp_path / "s/a.dcm", exact, AFFINE, order, rescale=pairs)
    assert_right(tmp_path / "s/a.dcm", exact)


def test_without_slope_and_intercept_values_are_as_stored(hu, tmp_path):
    write_frames(tmp_path / "s/a.dcm", hu, AFFINE, SHUFFLED, rescale=[(1, 0)], leave_out=[0x00289145])
    assert_right(tmp_path / "s/a.dcm", hu)


def test_a_tilted_gantry_has_a_sheared_affine(hu, tmp_path):
    tilted = AFFINE.copy()
    tilted[:3, 2] += [0, 1.5, 0]
    write_frames(tmp_path / "s/a.dcm", hu, tilted, SHUFFLED)
    image = load(tmp_path / "s")
    assert np.array_equal(image[0], hu) and np.allclose(image.affine, tilted, atol=1e-4)


def test_a_single_frame_is_as_thick_as_it_says(hu, tmp_path):
    write_frames(tmp_path / "s/a.dcm", hu[..., :1], AFFINE)
    for place in (tmp_path / "s", tmp_path / "s/a.dcm"):
        image = load(place)
        assert np.array_equal(image[0], hu[..., :1]) and np.allclose(image.affine, AFFINE, atol=1e-4)


def test_frames_that_are_no_volume(hu, tmp_path):
    path = tmp_path / "s/a.dcm"
    write_frames(path, hu, AFFINE, [0, 1, 3, 4])
    assert fault(path).startswith("its slices are 5 to 10 mm apart; expected equal distances; copy the missing slices")
    write_frames(path, hu, AFFINE, [0, 1, 2, 0, 1, 2])
    assert fault(path) == (
        "has several slices at one position; expected one at each; save each time, echo or phase as a series of its own"
    )
    write_frames(path, hu, AFFINE, stacks=["1", "1", "2", "2", "2"])
    assert fault(path) == "holds several stacks of frames; expected one; save each stack as a series of its own"
    write_frames(path, hu, AFFINE, leave_out=[0x00209116])
    assert fault(path).startswith("its header holds no orientation; expected the orientation of each slice, 6 numbers;")
    write_frames(path, hu, AFFINE, leave_out=[0x00209113])
    assert fault(path).startswith("its header holds no position; expected the position of each slice, 3 numbers;")
    write_frames(path, hu, AFFINE, leave_out=[0x00289110])
    assert fault(path).startswith("its header holds no pixel spacing; ")
    assert fault(path.parent).startswith("its header holds no pixel spacing; ")


def test_several_files_with_frames_or_a_mix(hu, write_series, tmp_path):
    write_frames(tmp_path / "s/a.dcm", hu, AFFINE)
    write_frames(tmp_path / "s/b.dcm", hu, AFFINE)
    remedy = "expected one such file, or files of one slice; put each file with several frames into a folder of its own"
    assert fault(tmp_path / "s") == f"holds 2 DICOM files, of which 2 have several frames; {remedy}"
    write_series(tmp_path / "mix", hu // 2 * 2, AFFINE, uid="1.2.3")
    shutil.copy(tmp_path / "s/a.dcm", tmp_path / "mix")
    assert "; expected one" in fault(tmp_path / "mix")


def test_modalities_of_files_and_folders_together(hu, tmp_path):
    write_frames(tmp_path / "a.dcm", hu, AFFINE, SHUFFLED)
    write_frames(tmp_path / "s/b.dcm", hu + 1, AFFINE)
    assert np.array_equal(load([str(tmp_path / "a.dcm"), str(tmp_path / "s")]), np.stack([hu, hu + 1]))


def test_a_folder_of_inputs_has_the_folder_of_the_file(hu, tmp_path):
    write_frames(tmp_path / "in/s/a.dcm", hu, AFFINE)
    assert find_images(tmp_path / "in") == [{"image": str(tmp_path / "in/s")}]


def test_a_file_that_ends_in_its_header(hu, tmp_path):
    write_frames(tmp_path / "a.dcm", hu, AFFINE)
    (tmp_path / "a.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:900])
    with pytest.raises(InputError, match=r"a\.dcm: "):
        read_frames(tmp_path / "a.dcm")


def test_long_values_and_pictures_in_pieces_are_left_out(tmp_path):
    encode, pieces = Encoder(), Encoder(has_lengths=False)
    icon = struct.pack("<HH2sxxI", 0x7FE0, 0x10, b"OB", 0xFFFFFFFF)  # a compressed one, with an end mark
    icon += struct.pack("<HHI2s", 0xFFFE, 0xE000, 2, b"\1\2") + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    content = pieces.sequence(0x00880200, [icon]) + encode.element(0x00091010, "OW", bytes(5000))
    content += encode.element(0x00280008, "IS", "12")
    meta = encode.element(0x00020010, "UI", "1.2.840.10008.1.2.1")
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + meta + content)
    assert read_elements(tmp_path / "a.dcm") == {0x00880200: [{0x7FE00010: []}], 0x00280008: b"12"}


def test_a_file_of_inverted_values_is_left_out(tmp_path):
    path = tmp_path / "a.dcm"
    write_frames(path, 2 * np.random.default_rng(0).integers(-512, 500, (6, 5, 4)), np.diag([-0.7, -0.8, 5, 1]))
    check_image(str(path), 3, 1)
    path.write_bytes(path.read_bytes().replace(b"MONOCHROME2", b"MONOCHROME1"))
    with pytest.raises(InputError, match="has the PhotometricInterpretation MONOCHROME1, whose larger values are dark"):
        check_image(str(path), 3, 1)
