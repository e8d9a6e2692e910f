"""One small picture in every kind of file: the values come back as they were written, or one line says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import itk
import numpy as np
import pytest
import tifffile
from monai.transforms import LoadImage
from PIL import Image

from bundlekit.errors import InputError
from bundlekit.inputs.images import check_image
from bundlekit.inputs.pictures import PictureChecks, PictureReader, weigh_by_area

ROWS, COLUMNS = 38, 70  # tiles of 32 px do not fit
RGB = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)
GREY = RGB[..., 0].copy()
ALPHA = np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, COLUMNS)
DEEP = RGB.astype(np.uint16) * 100  # the upper 8 bits are never enough to tell the value
DEEP_GREY, DEEP_ALPHA = DEEP[..., 0].copy(), ALPHA.astype(np.uint16) * 257
BITS = (GREY > 127).astype(np.uint8)
COLOURS = np.array([[9, 0, 0], [0, 99, 200], [7, 7, 7]], np.uint8)
INDICES = GREY % 3
LOAD = LoadImage(PictureReader(), dtype=None, ensure_channel_first=True)


def by_pillow(array: np.ndarray, mode: str | None = None, **options) -> Callable[[Path], object]:
    image = Image.fromarray(array)
    return lambda path: (image.convert(mode) if mode else image).save(path, **options)


def by_palette(**options) -> Callable[[Path], object]:
    image = Image.fromarray(INDICES).convert("P")
    image.putpalette(COLOURS.ravel().tolist())
    return lambda path: image.save(path, **options)


def by_tifffile(array: np.ndarray, **options) -> Callable[[Path], object]:
    return lambda path: tifffile.imwrite(path, array, **{"photometric": "rgb", **options})


def by_itk(array: np.ndarray, compressor: str | None = None) -> Callable[[Path], object]:
    """Several channels of 16 bits in a PNG or, with a compressor, in the strips of a TIFF."""
    image = itk.image_view_from_array(array, is_vector=True)
    if compressor is None:
        return lambda path: itk.imwrite(image, str(path))
    file_format = itk.TIFFImageIO.New()
    file_format.SetCompressor(compressor)
    return lambda path: itk.imwrite(image, str(path), imageio=file_format, compression=True)


def grey_tiff(array: np.ndarray, **options) -> Callable[[Path], object]:
    return by_tifffile(array, **{"photometric": "minisblack", **options})


def pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(RGB, photometric="rgb")
        file.write(RGB[::2, ::2].copy(), photometric="rgb", subfiletype=1)


def planes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


RGBA, DEEP_RGBA = np.dstack([RGB, ALPHA]), np.dstack([DEEP, DEEP_ALPHA])
EXACT = {
    "grey.png": (by_pillow(GREY), GREY),
    "rgb.png": (by_pillow(RGB), RGB),
    "1 bit.png": (by_pillow(BITS * 255, "1"), BITS),
    "grey and alpha.png": (by_pillow(np.dstack([GREY, ALPHA])), GREY),
    "rgba.png": (by_pillow(RGBA), RGB),
    "grey, one value transparent.png": (by_pillow(GREY, transparency=0), GREY),
    "deep grey.png": (by_pillow(DEEP_GREY), DEEP_GREY),
    "deep rgb.png": (by_itk(DEEP), DEEP),
    "deep grey and alpha.png": (by_itk(np.dstack([DEEP_GREY, DEEP_ALPHA])), DEEP_GREY),
    "deep rgba.png": (by_itk(DEEP_RGBA), DEEP),
    "a TIFF by name.tif": (by_pillow(RGB, format="PNG"), RGB),
    "grey.bmp": (by_pillow(GREY), GREY),
    "rgb.bmp": (by_pillow(RGB), RGB),
    "1 bit.tif": (by_pillow(BITS * 255, "1"), BITS),
    "1 bit, fax.tif": (by_pillow(BITS * 255, "1", compression="group4"), BITS),
    "floats.tif": (grey_tiff(GREY / np.float32(7)), GREY / np.float32(7)),
    "signed bytes.tif": (grey_tiff(GREY.astype(np.int8)), GREY.astype(np.int8)),
    "pyramid.tif": (pyramid, RGB),
    "rgba.tif": (by_tifffile(RGBA, extrasamples=["unassalpha"]), RGB),
    "grey and alpha.tif": (grey_tiff(np.dstack([GREY, ALPHA]), extrasamples=["unassalpha"]), GREY),
    "deep rgba.tif": (by_tifffile(DEEP_RGBA, extrasamples=["unassalpha"]), DEEP),
    "deep rgba, LZW.tif": (by_itk(DEEP_RGBA, "LZW"), DEEP),
    "deep rgb, LZW.tif": (by_itk(DEEP, "LZW"), DEEP),
    "rgb, LZW, predictor.tif": (by_pillow(RGB, compression="tiff_lzw", tiffinfo={317: 2}), RGB),
    "signed, LZW.tif": (by_pillow(GREY.astype(np.int32), compression="tiff_lzw"), GREY.astype(np.int32)),
    "4 bits.tif": (grey_tiff(GREY >> 4, bitspersample=4), GREY >> 4),
    "palette.png": (by_palette(), COLOURS[INDICES]),
    "palette.bmp": (by_palette(), COLOURS[INDICES]),
    "palette, one transparent.png": (by_palette(transparency=bytes([0, 255])), COLOURS[INDICES]),
    "palette.tif": (by_palette(), COLOURS[INDICES]),
    "palette, LZW.tif": (by_palette(compression="tiff_lzw"), COLOURS[INDICES]),
    "ImageJ.tif": (by_tifffile(RGB, photometric=None, imagej=True), RGB),
    "OME.ome.tif": (by_tifffile(DEEP), DEEP),
}
LAYOUTS = {
    "plain": {},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "tiles": {"tile": (32, 32)},
    "deflate": {"compression": "zlib", "predictor": True},
    "deflated tiles": {"compression": "zlib", "tile": (32, 32)},
    "strips": {"rowsperstrip": 7},
    "LZW": {"compression": "lzw"},
    "LZW tiles": {"compression": "lzw", "tile": (32, 32), "predictor": True},
    "zstd": {"compression": "zstd"},
}
for name, options in LAYOUTS.items():
    kinds = {"": (GREY, RGB), "deep ": (DEEP_GREY, DEEP), "double ": (GREY / 7, RGB / 7)}
    for depth, (grey, rgb) in kinds.items():
        EXACT[f"{depth}grey, {name}.tif"] = (grey_tiff(grey, **options), grey)
        EXACT[f"{depth}rgb, {name}.tif"] = (by_tifffile(rgb, **options), rgb)
for depth, rgb in (("", RGB), ("deep ", DEEP)):
    EXACT[f"{depth}rgb, planes.tiff"] = (by_tifffile(planes(rgb), planarconfig="separate"), rgb)
    options = {"planarconfig": "separate", "tile": (32, 32), "compression": "lzw"}
    EXACT[f"{depth}rgb, LZW tiles of planes.tiff"] = (by_tifffile(planes(rgb), **options), rgb)
for compression in ("tiff_lzw", "tiff_deflate", "packbits", "zstd"):
    for name, array in (("grey", GREY), ("rgb", RGB), ("deep grey", DEEP_GREY)):
        EXACT[f"{name}, {compression} by libtiff.TIF"] = (by_pillow(array, compression=compression), array)


@pytest.mark.parametrize("name", EXACT)
def test_values_come_back(name, tmp_path):
    write, wanted = EXACT[name]
    write(tmp_path / name)
    assert check_image(str(tmp_path / name), 2, [1, 3], LOAD).shape == (COLUMNS, ROWS)  # x first, as MONAI has it
    found = np.moveaxis(LOAD(tmp_path / name).numpy(), 0, -1).swapaxes(0, 1)
    np.testing.assert_array_equal(found, wanted.reshape(ROWS, COLUMNS, -1))


@pytest.mark.parametrize("name", ["grey.jpg", "rgb.jpg", "upright.jpg", "progressive.jpeg", "rgb, JPEG.tif", "mpo.jpg"])
def test_lossy_files_come_close(name, tmp_path):
    smooth = np.asarray(Image.fromarray(RGB[:5, :9]).resize((COLUMNS, ROWS), Image.Resampling.BICUBIC))
    smooth = smooth[..., 0] if name == "grey.jpg" else smooth
    upright = Image.Exif()
    upright[274] = 1
    options = {
        "upright.jpg": {"exif": upright},
        "progressive.jpeg": {"progressive": True},
        "rgb, JPEG.tif": {"compression": "jpeg"},
        "mpo.jpg": {"format": "MPO", "save_all": True, "append_images": [Image.fromarray(smooth).reduce(4)]},
    }
    Image.fromarray(smooth).save(tmp_path / name, quality=98, **options.get(name, {}))
    found = np.moveaxis(LOAD(tmp_path / name).numpy(), 0, -1).swapaxes(0, 1)
    assert found.shape == (ROWS, COLUMNS, smooth.size // GREY.size)
    difference = found.astype(int) - smooth.reshape(found.shape)
    assert np.abs(difference).mean() < 4 and abs(difference.mean()) < 1  # of 255; half the resolution of colour is lost


SEVERAL = "expected one; save the image to be used as a separate file"
CMYK = "number of channels is 4 (CMYK); expected 1 or 3; convert it, or use the bundle made for such images"
CHANNELS = "number of channels is {}; expected 1 or 3; convert it, or use the bundle made for such images"
REFUSED = {
    "animated.png": (
        by_pillow(RGB, save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())]),
        f"holds 2 images; {SEVERAL}",
    ),
    "pages.tif": (grey_tiff(np.stack([GREY, ~GREY])), f"holds several images (2 x 38 x 70); {SEVERAL}"),
    "deep page.tif": (
        grey_tiff(np.zeros((16, 64, 64), np.uint8), volumetric=True, tile=(16, 16, 16)),
        f"holds several images (16 x 64 x 64); {SEVERAL}",
    ),
    "composite.tif": (
        by_tifffile(planes(RGB), imagej=True, photometric=None, metadata={"axes": "CYX"}),
        f"holds several images (3 x 38 x 70); {SEVERAL}",
    ),
    "cmyk.jpg": (by_pillow(RGB, "CMYK"), CMYK),
    "cmyk.tif": (by_pillow(RGB, "CMYK"), CMYK),
    "two kinds of light.tif": (grey_tiff(np.dstack([GREY, GREY]), planarconfig="contig"), CHANNELS.format(2)),
    "two planes.tif": (grey_tiff(np.stack([GREY, GREY]), planarconfig="separate"), CHANNELS.format(2)),
    "five kinds.tif": (grey_tiff(np.dstack([RGB, RGB])[..., :5].copy(), planarconfig="contig"), CHANNELS.format(5)),
    "colours and two more.tif": (by_tifffile(np.dstack([RGB, RGB])[..., :5].copy()), CHANNELS.format(5)),
    "lab.tif": (by_pillow(RGB, "LAB"), "has the colour mode LAB; expected grey values or RGB; save it as grey or RGB"),
    "complex.tif": (
        grey_tiff(GREY.astype(np.complex64)),
        "holds values of the type complex64; expected integers or real numbers; convert it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_told_in_one_line(name, tmp_path):
    write, wanted = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(InputError) as caught:
        check_image(str(tmp_path / name), 2, [1, 3], LOAD)
    assert str(caught.value) == f"{tmp_path / name}: {wanted}"


@pytest.mark.parametrize("damage", ["truncated", "text"])
@pytest.mark.parametrize(
    "name",
    ["rgb.png", "deep rgb.png", "rgb, plain.tif", "deep rgb, deflate.tif", "deep rgb, LZW.tif", "1 bit, fax.tif"],
)
def test_damaged_files(name, damage, tmp_path):
    path = tmp_path / name
    EXACT[name][0](path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4] if damage == "truncated" else b"II404: not found\n" * 20)
    with pytest.raises(InputError) as caught:
        check_image(str(path), 2, [1, 3], LOAD)
    line = str(caught.value)
    assert line.startswith(f"{path}: cannot be read as an image (truncated or not an image; the reader says: ")
    assert "\n" not in line


def test_checks_tell_files_that_can_be_used_from_those_that_cannot(tmp_path, capsys):
    for name in ("rgba.png", "deep rgb, LZW.tif", "grey, tiles.tif"):
        EXACT[name][0](tmp_path / name)
    for name in ("animated.png", "pages.tif"):
        REFUSED[name][0](tmp_path / name)
    checks = PictureChecks(spatial_dims=2, channels=[1, 3])
    found = [Path(item["image"]).name for item in checks.images(tmp_path)]
    assert found == ["deep rgb, LZW.tif", "grey, tiles.tif", "rgba.png"]
    with pytest.raises(SystemExit):
        checks.finish()
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in lines] == [
        f"{tmp_path / name}: {REFUSED[name][1]}" for name in ("animated.png", "pages.tif")
    ]


def test_several_files_are_the_channels_of_one_image(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.tif"]
    by_pillow(GREY)(paths[0]), grey_tiff(DEEP_GREY)(paths[1])
    image = LOAD(paths)
    assert image.shape == (2, COLUMNS, ROWS) and np.array_equal(image[1].numpy().T, DEEP_GREY)


def test_other_endings_are_left_to_other_readers(tmp_path):
    path = tmp_path / "plane.mha"
    itk.imwrite(itk.image_view_from_array(GREY), str(path))
    assert np.array_equal(LOAD(path)[0].numpy().T, GREY)


def test_patches_are_drawn_by_area_from_one_to_eight(tmp_path):
    sizes = {"small": (50, 40), "one": (100, 100), "six": (300, 200), "large": (900, 900)}
    for name, size in sizes.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    items = [{"image": str(tmp_path / f"{name}.png")} for name in sizes]
    assert weigh_by_area(items, [100, 100]) == [1, 1, 6, 8]
    assert weigh_by_area([], [100, 100]) == []
