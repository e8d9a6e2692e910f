"""How often a run decodes each of its files, counted where MONAI's reader, or the one for pictures, does it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from monai.bundle import ConfigParser
from monai.data import NibabelReader
from monai.utils import ensure_tuple, set_determinism

from bundlekit.inputs import picture_files, pictures
from bundlekit.phantoms import make_dataset

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NUCLEI, HIPPOCAMPUS = (BUNDLES / name for name in ("nuclei_microscopy_segmentation", "hippocampus_mri_segmentation"))
SMALL = {
    NUCLEI: {"patch_size": [64, 64], "crop_size": [64, 64]},
    HIPPOCAMPUS: {"patch_size": [16, 16, 16], "crop_size": [24, 24, 24], "crops_per_volume": 1},
}
SIZES = {NUCLEI: 64, HIPPOCAMPUS: 32}


@pytest.fixture
def decodes(monkeypatch) -> Counter[str]:
    """How often each file was decoded, by its name and the folder that it is in."""
    counts: Counter[str] = Counter()

    def count(path: Any) -> None:
        counts["/".join(Path(path).parts[-2:])] += 1

    read, get_data = picture_files.read_picture, NibabelReader.get_data

    def read_picture(path: str, *more: Any) -> Any:
        count(path)
        return read(path, *more)

    def get_volume(self: NibabelReader, img: Any) -> Any:
        for path in self.filenames:
            count(path)
        return get_data(self, img)

    monkeypatch.setattr(pictures, "read_picture", read_picture)
    monkeypatch.setattr(NibabelReader, "get_data", get_volume)
    return counts


def run(bundle: Path, config: str, folder: Path, **overrides: Any) -> None:
    set_determinism(0)
    parser = ConfigParser(ConfigParser.load_config_file(bundle / f"configs/{config}.json"))
    options = {key: value for key, value in SMALL[bundle].items() if key in parser.config}
    parser.update({"bundle_root": str(bundle), "device": "cpu", "output_dir": str(folder / "out"), **options})
    parser.update(overrides)
    for i in range(len(parser["run"])):
        parser.get_parsed_content(f"run::{i}")


def files_of(folder: Path, *sections: str) -> list[str]:
    lists = json.loads((folder / "dataset.json").read_text())
    paths = [ensure_tuple(path) for name in sections for item in lists[name] for path in item.values()]
    return sorted(path.removeprefix("./") for several in paths for path in several)


@pytest.mark.parametrize("folder", [NUCLEI, HIPPOCAMPUS], ids=lambda folder: folder.name)
def test_a_training_of_one_epoch_decodes_each_file_once(folder, decodes, tmp_path):
    data = tmp_path / "data"
    make_dataset(folder.name, data, training=2, validation=1, test=0, size=SIZES[folder])
    places = {"dataset_dir": str(data), "ckpt_path": str(tmp_path / "model.pt")}
    run(folder, "train", tmp_path, **places, max_epochs=1, val_interval=1)
    assert decodes == dict.fromkeys(files_of(data, "training", "validation"), 1)


@pytest.mark.parametrize("folder", [NUCLEI, HIPPOCAMPUS], ids=lambda folder: folder.name)
def test_an_inference_decodes_each_file_once(folder, decodes, tmp_path):
    make_dataset(folder.name, tmp_path / "data", training=0, validation=0, test=2, size=SIZES[folder])
    run(folder, "inference", tmp_path, dataset_dir=str(tmp_path / "data/images"))
    assert len(decodes) == 2 and set(decodes.values()) == {1}


def test_values_that_are_wrong_are_found_where_a_file_is_segmented(decodes, tmp_path, capsys):
    """The lines are those of the checks, as it happens and at the end, and the other images are segmented."""
    (tmp_path / "in").mkdir()
    values = np.random.default_rng(0).random((64, 64), np.float32)
    for name, place in (("a", None), ("b", (3, 5)), ("c", None)):
        image = values.copy()
        if place:
            image[place] = np.nan
        tifffile.imwrite(tmp_path / f"in/{name}.tif", image)
    cut = tmp_path / "in/c.tif"
    cut.write_bytes(cut.read_bytes()[:9000])
    with pytest.raises(SystemExit) as caught:
        run(NUCLEI, "inference", tmp_path, dataset_dir=str(tmp_path / "in"))
    assert caught.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
    during, at_the_end = lines[:2], lines[2:]
    assert during == at_the_end
    assert during[0] == (
        f"left out: {tmp_path}/in/b.tif: has values that are NaN or infinite (1 of 4096 values, first at index "
        "(5, 3)); expected finite numbers; replace them, for example by 0"
    )
    assert during[1].startswith(
        f"left out: {cut}: cannot be read as an image (truncated or not an image; the reader says: "
    )
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["a_seg.png"]
    assert decodes == {"in/a.tif": 1, "in/b.tif": 1, "in/c.tif": 1}
