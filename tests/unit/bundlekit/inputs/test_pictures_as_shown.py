"""Pictures whose tags change what their values mean: turned ones, white as zero, palettes, alpha, grey saved as RGB."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from monai.transforms import LoadImage
from PIL import Image, ImageOps

from bundlekit.errors import InputError
from bundlekit.inputs.images import Expected, check_image_header
from bundlekit.inputs.pictures import GreyPictureChecks, GreyPictureReader, LabelReader, PictureChecks, PictureReader

RGB = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = np.random.default_rng(2).integers(0, 256, (38, 70), dtype=np.uint8)
LOAD, LOAD_GREY, LOAD_LABEL = (
    LoadImage(reader(), dtype=None, ensure_channel_first=True)
    for reader in (PictureReader, GreyPictureReader, LabelReader)
)
TURNED = "{}: has a tag that rotates or mirrors it (EXIF or TIFF orientation {}); expected an upright image "
TURNED += "(orientation 1); it is used as viewers show it, {} px, and so are its outputs"


def rows_first(path: Path, load: LoadImage = LOAD) -> np.ndarray:
    """(rows, columns) or (rows, columns, channels)."""
    return np.squeeze(np.moveaxis(load(path).numpy(), 0, -1).swapaxes(0, 1))


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def save_turned(path: Path, array: np.ndarray, orientation: int) -> None:
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
        return
    Image.fromarray(array).save(path, exif=exif_of(orientation), quality=98)
    if path.stem == "late":  # the chunk of the tag moves behind the values
        content = path.read_bytes()
        start = content.index(b"eXIf") - 4
        end = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
        path.write_bytes(content[:start] + content[end:-12] + content[start:end] + content[-12:])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "late.png", "a.jpg", "a.tif"])
def test_turned_pictures_are_read_as_viewers_show_them(name, orientation, tmp_path):
    path = tmp_path / name
    save_turned(path, RGB, orientation)
    stored = Image.fromarray(np.asarray(Image.open(path)) if name == "a.jpg" else RGB)
    stored.getexif()[274] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(rows_first(path), wanted)
    grid, notes = check_image_header([str(path)], Expected(2, 3, load=LOAD))
    assert grid.shape == wanted.shape[1::-1]
    lines = [TURNED.format(path, orientation, " x ".join(map(str, grid.shape)))] if orientation > 1 else []
    assert list(map(str, notes)) == lines


def test_labels_are_turned_as_images_are(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "label.png", exif=exif_of(6))
    np.testing.assert_array_equal(rows_first(tmp_path / "label.png", LOAD_LABEL), np.rot90(RGB[..., 0], -1))


def test_a_turned_image_fits_the_label_of_the_upright_one(make_pairs, tmp_path, capsys):
    make_pairs(tmp_path, good=2)
    Image.fromarray(RGB[..., 0]).save(tmp_path / "images/good0.png", exif=exif_of(6))
    Image.fromarray((RGB[..., 0].T > 99).astype(np.uint8)).save(tmp_path / "labels/good0.png")
    checks = GreyPictureChecks(spatial_dims=2, channels=1, label_values=[0, 1])
    items = checks.section(tmp_path, "training")
    checks.start(items)
    assert len(items) == 2
    line = TURNED.format(tmp_path / "images/good0.png", 6, "6 x 9")
    assert capsys.readouterr().err.splitlines() == [f"note: {line}"]


DEPTHS = {"1 bit": GREY > 127, "8 bits": GREY, "16 bits": GREY.astype(np.uint16) * 251}
WHITE_IS_ZERO = {
    "plain": {},
    "big-endian": {"byteorder": ">"},
    "deflate": {"compression": "zlib"},
    "LZW": {"compression": "lzw"},
    "packbits": {"compression": "packbits"},
    "tiles": {"tile": (32, 32)},
    "LZW tiles": {"compression": "lzw", "tile": (32, 32)},
    "strips": {"rowsperstrip": 7, "compression": "zlib"},
}


@pytest.mark.parametrize("form", WHITE_IS_ZERO)
@pytest.mark.parametrize("depth", DEPTHS)
def test_white_is_zero_is_inverted_once(depth, form, tmp_path):
    if depth == "1 bit" and form not in ("plain", "deflate", "LZW", "packbits"):
        pytest.skip("not written by tifffile")
    bright = DEPTHS[depth]
    for name, photometric, stored in (("black", "minisblack", bright), ("white", "miniswhite", ~bright)):
        tifffile.imwrite(tmp_path / f"{name}.tif", stored, photometric=photometric, **WHITE_IS_ZERO[form])
        np.testing.assert_array_equal(rows_first(tmp_path / f"{name}.tif"), bright)
        if name == "black" or depth == "1 bit":
            np.testing.assert_array_equal(rows_first(tmp_path / f"{name}.tif", LOAD_LABEL), bright)


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4", "tiff_lzw", "packbits"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_fax_compressions_are_read_as_libtiff_reads_them(photometric, compression, tmp_path):
    """Pillow writes white as zero into these, and reads by libtiff what the tag says, changed or not."""
    path = tmp_path / "a.tif"
    Image.fromarray(GREY > 127).save(path, compression=compression)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["PhotometricInterpretation"].overwrite(photometric)
    with Image.open(path) as image:
        np.testing.assert_array_equal(rows_first(path), np.asarray(image))


def test_white_is_zero_for_numbers_without_a_darkest_one(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY / np.float32(7), photometric="miniswhite")
    with pytest.raises(InputError, match=r"says that white is zero, for values of the type float32, which have no"):
        check_image_header([str(tmp_path / "a.tif")], Expected(2, 1, load=LOAD))


def test_what_is_converted_is_noted(tmp_path, capsys):
    equal = np.dstack([GREY] * 3)
    Image.fromarray(equal).save(tmp_path / "grey as RGB.png")
    Image.fromarray(np.dstack([GREY, GREY])).save(tmp_path / "grey with alpha.png")
    Image.fromarray(equal).quantize(256).save(tmp_path / "palette.png")
    checks = GreyPictureChecks(spatial_dims=2, channels=1)
    items = checks.images(tmp_path)
    checks.start(items)
    assert [Path(item["image"]).stem for item in items] == ["grey as RGB", "grey with alpha", "palette"]
    for item in items:
        np.testing.assert_array_equal(rows_first(Path(item["image"]), LOAD_GREY), GREY)
    three = "has three channels; expected grey values; one is used, provided that all three are equal"
    assert capsys.readouterr().err.splitlines() == [
        f"note: {tmp_path / 'grey as RGB.png'}: {three}",
        f"note: {tmp_path / 'grey with alpha.png'}: has an alpha channel; expected grey values or colours only; it is "
        "dropped, and pixels count however transparent they are",
        f"note: {tmp_path / 'palette.png'}: is a palette image; expected grey values or RGB; the colours of its "
        "palette are used",
        f"note: {tmp_path / 'palette.png'}: {three}",
    ]


def test_colours_are_no_grey_values(tmp_path):
    coloured = np.dstack([GREY] * 3)
    coloured[3, :7, 2] ^= 1
    Image.fromarray(coloured).save(tmp_path / "a.png")
    line = (
        "is a colour image: its three channels differ in 0.3% of the pixels; expected grey values; convert it to grey"
    )
    with pytest.raises(InputError, match=line):
        LOAD_GREY.readers[-1].get_data((str(tmp_path / "a.png"),))


def test_labels_keep_the_indices_of_their_palette(tmp_path):
    label = Image.fromarray((GREY > 127).astype(np.uint8) * 3).convert("P")
    label.putpalette([0, 0, 0, 9, 9, 9, 99, 0, 0, 0, 99, 0])
    for name in ("label.png", "label.tif"):
        label.save(tmp_path / name)
        np.testing.assert_array_equal(rows_first(tmp_path / name, LOAD_LABEL), (GREY > 127) * 3)
        assert rows_first(tmp_path / name)[0, 0].tolist() == ([0, 99, 0] if GREY[0, 0] > 127 else [0, 0, 0])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
def test_any_size_is_read(name, tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / name, quality=100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # warned of, and refused above twice that
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / name)
    checks = PictureChecks(spatial_dims=2, channels=1)
    assert len(checks.images(tmp_path)) == 1
    assert np.abs(rows_first(tmp_path / name).astype(int) - GREY).max() <= (8 if name == "a.jpg" else 0)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_png_of_181_megapixels_has_its_size(tmp_path):
    """Only its header is read; its rows are missing."""
    head = struct.pack(">IIBBBBB", 13_450, 13_450, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    content = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    grid, _ = check_image_header([str(tmp_path / "a.png")], Expected(2, 1, load=LOAD))
    assert grid.shape == (13_450, 13_450)
