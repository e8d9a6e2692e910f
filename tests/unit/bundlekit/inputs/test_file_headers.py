"""Headers say what decoding finds, and no value is decoded for them."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import tifffile
from monai.data import ITKReader, NibabelReader, PILReader
from monai.transforms import LoadImage
from PIL import Image

from bundlekit.inputs import picture_files
from bundlekit.inputs.file_headers import FileHeader, read_header
from bundlekit.inputs.images import LOAD
from bundlekit.inputs.pictures import PictureReader, weigh_by_area
from bundlekit.inputs.volumes import VolumeChecks
from tests.unit.bundlekit.inputs import test_pictures

OBLIQUE = np.array([[0, -1.6, 0.9, 40], [0.9, 0, 0, -7], [0, 1.2, 1.2, 3], [0, 0, 0, 1]])


@pytest.fixture
def header_of(monkeypatch):
    """Reads a header with readers that refuse to decode."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a value was decoded")

    def header_of(path: Path, load: LoadImage = LOAD) -> FileHeader:
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "load", refuse)
            patch.setattr(tifffile.TiffPage, "asarray", refuse)
            patch.setattr(picture_files, "_by_itk", refuse)
            patch.setattr(nib.arrayproxy.ArrayProxy, "__array__", refuse)
            for reader in (ITKReader, NibabelReader, PILReader, PictureReader):
                patch.setattr(reader, "get_data", refuse)
                patch.setattr(reader, "read", refuse)
            return read_header(str(path), load)

    return header_of


def assert_same(header: FileHeader, path: Path, load: LoadImage) -> None:
    image = load(str(path))
    assert header.shape == tuple(image.shape)
    assert header.mode == image.meta.get("mode", "")
    if header.affine is not None:
        np.testing.assert_allclose(header.affine, image.affine, atol=1e-12)
    else:
        assert image.ndim == 3


@pytest.mark.parametrize("name", test_pictures.EXACT)
def test_every_kind_of_picture(header_of, name, tmp_path):
    test_pictures.EXACT[name][0](tmp_path / name)
    assert_same(header_of(tmp_path / name, test_pictures.LOAD), tmp_path / name, test_pictures.LOAD)


@pytest.mark.parametrize("name", ["cmyk.jpg", "cmyk.tif", "two kinds of light.tif", "five kinds.tif"])
def test_pictures_that_are_refused_for_what_they_hold(header_of, name, tmp_path):
    test_pictures.REFUSED[name][0](tmp_path / name)
    assert_same(header_of(tmp_path / name, test_pictures.LOAD), tmp_path / name, test_pictures.LOAD)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "jpg"])
def test_pictures_as_monai_reads_them(header_of, ending, mode, tmp_path):
    path = tmp_path / f"a.{ending}"
    image = Image.fromarray(test_pictures.RGB)
    try:
        (Image.fromarray(test_pictures.DEEP_GREY) if mode == "I;16" else image.convert(mode)).save(path)
        LOAD(path)
    except Exception:
        pytest.skip("no such file, or none that MONAI reads")
    assert_same(header_of(path), path, LOAD)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (5, 4, 1), (5, 4, 3, 1), (5, 4, 3, 2), (5, 4, 3, 1, 2)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_nifti(header_of, ending, kind, shape, tmp_path):
    image = kind(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), OBLIQUE)
    image.header.set_slope_inter(2, 1)
    nib.save(image, tmp_path / f"a.{ending}")
    header, found = header_of(tmp_path / f"a.{ending}"), LOAD(tmp_path / f"a.{ending}")
    assert header.shape == tuple(found.shape)
    np.testing.assert_array_equal(header.affine, found.affine)


def test_a_sform_that_monai_replaces(header_of, tmp_path):
    image = nib.Nifti1Image(np.zeros((5, 4, 3), np.uint8), OBLIQUE)
    image.header.set_qform(np.diag([2.0, 3, 4, 1]), 1)  # and with it the sizes of the voxels
    nib.save(nib.Nifti1Image(image.dataobj, None, image.header), tmp_path / "a.nii")
    assert_same(header_of(tmp_path / "a.nii"), tmp_path / "a.nii", LOAD)


@pytest.mark.parametrize("ending", ["nrrd", "mha", "mhd", "hdr"])
def test_volumes_that_itk_reads(header_of, ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    if ending == "hdr":
        nib.save(nib.Nifti1Pair(np.zeros((5, 4, 3), np.float32), OBLIQUE), tmp_path / "a.img")
    else:
        image = itk.image_from_array(np.zeros((3, 4, 5), np.float32))
        image.SetSpacing([0.9, 2, 1.5])
        image.SetOrigin([40, -7, 3])
        image.SetDirection(itk.matrix_from_array(np.array([[0, -0.8, 0.6], [1, 0, 0], [0, 0.6, 0.8]])))
        itk.imwrite(image, str(path))
    assert_same(header_of(path), path, LOAD)
    assert header_of(path).shape == (1, 5, 4, 3)


@pytest.mark.parametrize("load", [LOAD, VolumeChecks._load], ids=["MONAI's reader", "own reader"])
@pytest.mark.parametrize(("num_slices", "tilt"), [(4, 0.0), (4, 0.5), (1, 0.0)])
def test_series(header_of, write_series, load, num_slices, tilt, tmp_path):
    affine = np.array([[0.7, 0, 0, -20], [0, 0.7, tilt, -30], [0, 0, 2.5, 5], [0, 0, 0, 1]])
    write_series(tmp_path / "s", np.zeros((6, 5, num_slices), np.int16), affine)
    header = header_of(tmp_path / "s", load)
    assert_same(header, tmp_path / "s", load)
    assert header.shape == (1, 6, 5, num_slices)


def test_what_has_no_header_that_can_be_read_is_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    assert read_header(str(tmp_path / "a.npy"), LOAD).shape == (1, 3, 4)
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(OSError, match="cannot identify image file"):
        read_header(str(tmp_path / "a.png"), LOAD)


def test_areas_come_from_headers(monkeypatch, tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("a value was decoded"))
    assert weigh_by_area([{"image": str(tmp_path / "a.png")}], (20, 30)) == [4.0]
