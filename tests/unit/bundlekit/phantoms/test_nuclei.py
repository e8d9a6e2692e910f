"""What the truth of a phantom of nuclei says, counted again in its label and its intensities."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.measure import label

from bundlekit.phantoms import make_dataset
from bundlekit.phantoms.nuclei import nuclei_microscopy


@pytest.fixture(scope="module")
def phantoms():
    return [nuclei_microscopy(np.random.default_rng([7, i]), 160) for i in range(24)]


def grey(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else image.mean(-1)


def test_each_nucleus_is_one_piece_with_a_number_of_its_own(phantoms):
    for phantom in phantoms:
        ids = range(1, phantom.truth["nuclei"] + 1)
        assert phantom.image.dtype == np.uint8 and phantom.label.dtype == np.uint16
        assert np.array_equal(np.unique(phantom.label), [0, *ids])
        assert all(ndimage.label(phantom.label == i)[1] == 1 for i in ids)
        assert [int((phantom.label == i).sum()) for i in ids] == phantom.truth["areas_px"]
        assert min(phantom.truth["areas_px"]) >= 20
        assert phantom.truth["nuclei_share"] == sum(phantom.truth["areas_px"]) / 160**2 < 0.5


def test_all_four_appearances_occur_with_their_channels_and_polarity(phantoms):
    seen = {phantom.truth["appearance"] for phantom in phantoms}
    assert seen == {"fluorescence", "brightfield", "stained", "coloured fluorescence"}
    for phantom in phantoms:
        appearance = phantom.truth["appearance"]
        assert phantom.image.ndim == (3 if appearance in ("stained", "coloured fluorescence") else 2)
        values, nuclei = grey(phantom.image), phantom.label > 0
        assert (np.median(values[nuclei]) > np.median(values[~nuclei])) == ("fluorescence" in appearance)


def test_some_nuclei_touch_so_that_counting_pieces_is_not_enough(phantoms):
    missing = [phantom.truth["nuclei"] - label(phantom.label > 0, connectivity=1).max() for phantom in phantoms]
    assert min(missing) >= 0 and sum(count > 0 for count in missing) > len(phantoms) / 2


def test_dataset_holds_grey_and_colour_images_and_ids(tmp_path):
    make_dataset("nuclei_microscopy_segmentation", tmp_path, training=6, validation=0, test=1, size=64)
    assert json.loads((tmp_path / "dataset.json").read_text())["labels"] == {"0": "background", "1": "nucleus"}
    modes = set()
    for truth in json.loads((tmp_path / "truth.json").read_text())["images"]:
        image, ids = (Image.open(tmp_path / truth["image"].replace("images", kind)) for kind in ("images", "labels"))
        modes.add(image.mode)
        assert ids.mode == "I;16" and np.bincount(np.asarray(ids).ravel())[1:].tolist() == truth["areas_px"]
    assert modes == {"L", "RGB"}
