"""All bundles of pictures read images and labels by the same readers; what a file says its values mean is respected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from PIL import Image

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
MEMBRANES = BUNDLES / "membrane_em_segmentation"
READERS = "bundlekit.inputs.pictures."


def loads(content: Any) -> Iterator[dict[str, Any]]:
    """The transforms of a config that read files."""
    if isinstance(content, dict) and content.get("_target_") == "LoadImaged":
        yield content
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else []:
        yield from loads(value)


def test_every_picture_is_read_by_a_reader_of_pictures():
    seen = set()
    for path in sorted(BUNDLES.glob("*/configs/*.json")):
        config = json.loads(path.read_text())
        kind = config.get("checks", {}).get("_target_", "").removeprefix(READERS)
        if kind not in ("PictureChecks", "GreyPictureChecks"):
            assert config.get("checks", {}).get("spatial_dims") != 2, path
            continue
        seen.add(path.parent.parent.name)
        is_grey = config["checks"]["channels"] == 1
        assert is_grey == (kind == "GreyPictureChecks"), path
        wanted = {"image": READERS + ("Grey" if is_grey else "") + "PictureReader", "label": READERS + "LabelReader"}
        found = list(loads(config))
        assert found and all(load["reader"] == wanted[load["keys"]] for load in found), path
    assert len(seen) == 4


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 5), np.uint8).repeat(12, 0).repeat(12, 1)


def test_membranes_are_found_alike_whatever_the_file_says(picture, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(picture).save(folder / "plain.png")
    for compression in ("none", "zlib", "lzw", "packbits"):
        white = {"photometric": "miniswhite", "compression": compression}
        tifffile.imwrite(folder / f"white_{compression}.tif", ~picture, **white)
        tifffile.imwrite(folder / f"deep_{compression}.tif", ~(picture * np.uint16(257)), tile=(32, 32), **white)
    tifffile.imwrite(folder / "double.tif", picture / 7)
    Image.fromarray(np.dstack([picture] * 3)).save(folder / "rgb.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.rot90(picture)).save(folder / "turned.png", exif=exif)
    tifffile.imwrite(folder / "two.tif", np.stack([picture] * 2), photometric="minisblack", planarconfig="separate")
    set_determinism(0)
    parser = ConfigParser(ConfigParser.load_config_file(MEMBRANES / "configs/inference.json"))
    places = {"bundle_root": str(MEMBRANES), "dataset_dir": str(folder), "output_dir": str(tmp_path / "out")}
    parser.update({**places, "device": "cpu"})
    with pytest.raises(SystemExit):  # two.tif
        for i in range(len(parser["run"])):
            parser.get_parsed_content(f"run::{i}")
    masks = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "out").glob("*_seg.png")}
    assert masks.keys() == {f"{path.stem}_seg.png" for path in folder.iterdir()} - {"two_seg.png"}
    plain = masks["plain_seg.png"]
    assert plain.shape == picture.shape and plain.any() and not plain.all()
    for name, mask in masks.items():
        assert np.mean(mask != plain) < 0.002 if name.startswith(("deep", "double")) else np.array_equal(mask, plain), (
            name
        )
