"""What the truth of a phantom of colon tissue says, counted again in its label and its colours."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bundlekit.phantoms import make_dataset
from bundlekit.phantoms.glands import _glands, _touching_pairs, gland_histology


@pytest.fixture(scope="module")
def phantoms():
    return [gland_histology(np.random.default_rng([7, i]), 192) for i in range(8)]


def masks(phantom):
    return [phantom.label == i for i in range(1, phantom.truth["glands"] + 1)]


def touch(a, b):
    """Whether two masks have pixels side by side."""
    return bool(np.any(ndimage.binary_dilation(a) & b))


def pale(phantom):
    """Pixels nearly as bright as the lamp, in the green light that both stains absorb."""
    return phantom.image[..., 1] > 0.8 * np.percentile(phantom.image[..., 1], 99.5)


def test_each_gland_is_one_piece_with_a_number_of_its_own(phantoms):
    for phantom in phantoms:
        assert phantom.image.dtype == np.uint8 and phantom.image.shape == (192, 192, 3)
        assert phantom.label.dtype == np.uint16 and phantom.label.shape == (192, 192)
        assert np.array_equal(np.unique(phantom.label), np.arange(phantom.truth["glands"] + 1))
        assert all(ndimage.label(mask)[1] == 1 for mask in masks(phantom))
        assert [int(mask.sum()) for mask in masks(phantom)] == phantom.truth["areas_px"]
        assert phantom.truth["gland_share"] == sum(phantom.truth["areas_px"]) / 192**2


def test_a_gland_that_the_image_or_a_neighbour_cuts_in_two_counts_twice():
    for i in range(240):  # without the count of pieces, three of these have a gland of two
        ids, radii = _glands(np.random.default_rng([5, i]), 64)
        assert all(ndimage.label(ids == gland)[1] == 1 for gland in range(1, len(radii)))
        assert np.bincount(ids.ravel())[1:].min() >= 150  # slivers are none


def test_touching_and_cut_glands_are_as_many_as_the_truth_says(phantoms):
    for phantom in phantoms:
        glands = masks(phantom)
        touching = [touch(a, b) for i, a in enumerate(glands) for b in glands[:i]]
        assert sum(touching) == phantom.truth["touching_pairs"]
        inner = np.s_[1:-1, 1:-1]
        assert sum(mask.sum() > mask[inner].sum() for mask in glands) == phantom.truth["cut_glands"]
    assert sum(phantom.truth["touching_pairs"] for phantom in phantoms) >= len(phantoms)
    assert sum(phantom.truth["cut_glands"] for phantom in phantoms) >= len(phantoms)


def test_pairs_of_a_map_drawn_by_hand():
    ids = np.array([[1, 1, 0, 3], [2, 0, 3, 3], [2, 4, 4, 0]])
    assert _touching_pairs(ids) == 3  # 1-2, 2-4, 3-4; 1 and 3 meet nowhere, and a corner (1, 3) would not count
    assert _touching_pairs(np.array([[1, 0], [0, 2]])) == 0


def test_numbers_of_glands_by_size_of_image():
    def counts(size, num):
        return [gland_histology(np.random.default_rng([3, i]), size).truth["glands"] for i in range(num)]

    assert min(counts(64, 100)) >= 1
    assert all(4 <= count <= 13 for count in counts(256, 10))


def test_a_gland_is_dark_at_its_edge_and_pale_in_its_middle(phantoms):
    dark_in_all, pale_in_all = [], []
    for phantom in phantoms:
        brightness = phantom.image.mean(-1)
        stroma = np.median(brightness[phantom.label == 0])
        for mask in masks(phantom):
            depth = ndimage.distance_transform_edt(mask)
            if depth.max() > 14:  # not those of which the image shows only the rim
                dark_in_all.append(np.median(brightness[(depth > 2) & (depth < 6)]) < stroma)
                pale_in_all.append(np.median(brightness[depth > 0.9 * depth.max()]) > stroma)
    assert len(dark_in_all) > 10 and np.mean(dark_in_all) > 0.9 and np.mean(pale_in_all) > 0.9


def test_colour_alone_does_not_find_glands(phantoms):
    for phantom in phantoms:
        gland = phantom.label > 0
        red, green, blue = np.moveaxis(phantom.image.astype(int), -1, 0)
        best = 0.0
        for feature in (red, green, blue, red - blue, red - green):
            for threshold in np.percentile(feature, np.arange(5, 100, 5)):
                for found in (feature < threshold, feature >= threshold):
                    best = max(best, 2 * np.count_nonzero(found & gland) / (found.sum() + gland.sum()))
        assert best < 0.85


def test_pale_gaps_lie_outside_glands(phantoms):
    for phantom in phantoms:
        deep = ndimage.distance_transform_edt(pale(phantom) & (phantom.label == 0)) >= 3
        # clefts between fibres by themselves make 0 to 6 such places, the gaps 7 to 16; blood fills a third of these
        assert ndimage.label(deep)[1] > 0.4 * phantom.truth["pale_gaps"] > 2


def test_stains_differ_between_images(phantoms):
    stroma = np.array([np.median(phantom.image[phantom.label == 0], axis=0) for phantom in phantoms])
    # the median over 15000 pixels or more is certain to less than 1 grey level
    assert np.all(stroma.std(axis=0) > 5) and np.std(stroma[:, 0] - stroma[:, 2]) > 5


def test_dataset_holds_colours_and_ids(tmp_path):
    make_dataset("gland_histology_segmentation", tmp_path, training=1, validation=0, test=1, size=96)
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert content["labels"] == {"0": "background", "1": "gland"} and "ids" in content["description"]
    assert content["modality"] == {"0": "red", "1": "green", "2": "blue"}
    for truth in json.loads((tmp_path / "truth.json").read_text())["images"]:
        image, label = (Image.open(tmp_path / truth["image"].replace("images", kind)) for kind in ("images", "labels"))
        assert image.mode == "RGB" and label.mode == "I;16"
        assert np.bincount(np.asarray(label).ravel())[1:].tolist() == truth["areas_px"]
