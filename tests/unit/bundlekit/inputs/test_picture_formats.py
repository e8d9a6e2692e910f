"""Pictures whose format is known by their content only, and TIFFs whose tags leave open what their values are."""

from __future__ import annotations

import importlib
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from monai.transforms import LoadImage
from PIL import Image

from bundlekit.errors import InputError
from bundlekit.inputs.images import check_image
from bundlekit.inputs.picture_files import read_picture_header
from bundlekit.inputs.pictures import GreyPictureChecks, GreyPictureReader, LabelReader, PictureReader

RGB = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = np.random.default_rng(2).integers(0, 256, (38, 70), dtype=np.uint8)


def rows_first(path: Path, reader: type = PictureReader) -> np.ndarray:
    """(rows, columns) or (rows, columns, channels)."""
    values = LoadImage(reader(), dtype=None, ensure_channel_first=True)(path).numpy()
    return np.squeeze(np.moveaxis(values, 0, -1).swapaxes(0, 1))


NAMES = {
    "a.jfif": {"format": "JPEG", "quality": 98}, "a.jpe": {"format": "JPEG", "quality": 98},
    "a.webp": {"lossless": True}, "a.jp2": {"format": "JPEG2000"}, "a.btf": None, "without an ending": None,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_format_is_taken_from_the_content(name, tmp_path):
    path, options = tmp_path / name, NAMES[name]
    smooth = np.add.outer(np.arange(38, dtype=np.uint8), np.arange(70, dtype=np.uint8))
    if options is None:
        tifffile.imwrite(path, 65535 - 251 * GREY.astype(np.uint16), photometric="miniswhite", bigtiff=True)
        np.testing.assert_array_equal(rows_first(path, GreyPictureReader), 251 * GREY.astype(np.uint16))
        return
    tag = Image.Exif()
    tag[274] = 6
    exif = {} if name == "a.jp2" else {"exif": tag}
    Image.fromarray(np.dstack([smooth] * 3)).save(path, **options, **exif)
    wanted = np.rot90(smooth, -1) if exif else smooth
    assert np.abs(rows_first(path, GreyPictureReader).astype(int) - wanted).max() <= 1
    if options.get("format"):
        with pytest.raises(InputError, match="is a label map compressed by JPEG"):
            LabelReader().get_data((str(path),))


def test_what_is_no_picture_of_these_formats_is_left_out(tmp_path):
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/five.btf", np.dstack([GREY] * 5), photometric="minisblack", planarconfig=1)
    (tmp_path / "images/a.txt").write_text("text")
    for name in ("a.pgm", "a.gif"):
        Image.fromarray(GREY).save(tmp_path / "images" / name)
    checks = GreyPictureChecks(spatial_dims=2, channels=1)
    for name in ("five.btf", "a.txt", "a.pgm", "a.gif"):
        (tmp_path / "dataset.json").write_text(f'{{"test": [{{"image": "images/{name}"}}]}}')
        assert checks.images(tmp_path) == []
    found = [str(line).removeprefix(f"{tmp_path}/images/") for line in checks._left_out]
    assert found[0].startswith("five.btf: number of channels is 5; expected 1")
    assert found[1].startswith("a.txt: cannot be read as an image")
    known = "expected PNG, TIFF, JPEG, BMP, WebP or JPEG 2000; save it as PNG or TIFF"
    assert found[2:] == [
        f"{name}: is a picture of the format {kind}; {known}" for name, kind in (("a.pgm", "PPM"), ("a.gif", "GIF"))
    ]


@pytest.mark.parametrize("depth", [8, 12])
def test_colours_of_a_jpeg_2000_keep_their_depth_or_are_refused(depth, tmp_path):
    path = tmp_path / "a.jp2"
    colours = RGB.astype(np.uint16) * 2 ** (depth - 8)
    path.write_bytes(imagecodecs.jpeg2k_encode(colours if depth > 8 else RGB, level=0, bitspersample=depth))
    if depth == 8:
        np.testing.assert_array_equal(rows_first(path), RGB)
    else:
        with pytest.raises(InputError, match="is a JPEG 2000 with 12 bits in each channel"):
            PictureReader().get_data((str(path),))


def test_a_tiff_that_does_not_say_what_zero_is_stays_as_it_is(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, photometric="minisblack")
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<HHI", 262, 3, 1), struct.pack("<HHI", 261, 3, 1)))
    with tifffile.TiffFile(path) as file:
        assert 262 not in file.pages[0].tags
    np.testing.assert_array_equal(rows_first(path), GREY)
    np.testing.assert_array_equal(rows_first(path, LabelReader), GREY)
    [note] = read_picture_header(str(path)).notes
    assert str(note) == (
        f"{path}: does not say whether black or white is zero; expected a TIFF with a PhotometricInterpretation; its "
        "values are used as they are stored"
    )


@pytest.mark.filterwarnings("ignore:<tifffile")
@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"photometric": "minisblack"}], ids=["guessed", "grey"])
def test_a_volume_in_one_page_is_no_plane(options, depth, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY] * depth), volumetric=True, **options)
    with pytest.raises(InputError, match=f"holds several images .{depth} x 38 x 70.; expected one"):
        PictureReader().get_data((str(tmp_path / "a.tif"),))


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    """As tifffile is where imagecodecs cannot be imported."""
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression="lzw", photometric="minisblack")
    monkeypatch.setattr(tifffile.tifffile, "imagecodecs", importlib.import_module("tifffile._imagecodecs"))
    monkeypatch.setattr(tifffile.TIFF.DECOMPRESSORS, "_codecs", {})
    with pytest.raises(InputError) as caught:
        check_image(str(tmp_path / "a.tif"), 2, 1, LoadImage(PictureReader(), ensure_channel_first=True))
    assert str(caught.value) == (
        f"{tmp_path}/a.tif: is compressed in a way that needs the package imagecodecs, which cannot be imported; "
        "expected imagecodecs; install it (pip install imagecodecs), or save the image without compression"
    )
