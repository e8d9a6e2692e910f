"""Volumes of ellipsoids, 4/3 pi abc, against counted voxels; what tells the tissues apart, and what does not."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from bundlekit.inputs.checks import RunChecks
from bundlekit.phantoms import KINDS, make_dataset
from bundlekit.phantoms.volumes import brain_tumor, hippocampus, infant_brain

SEEDS = range(6)
TOLERANCE = 0.03  # a surface through N voxels of a body of V moves the count by some sqrt(N) of V: 1 % at these sizes


def phantoms(generate, size):
    return [generate(np.random.default_rng(seed), size) for seed in SEEDS]


def test_hippocampus_has_the_volume_of_its_ellipsoid_and_anterior_is_in_front():
    for phantom in phantoms(hippocampus, 50):
        assert (phantom.label > 0).sum() == pytest.approx(phantom.truth["volume_mm3"], rel=TOLERANCE)
        whole = np.argwhere(phantom.label > 0).mean(axis=0)
        assert np.allclose(whole, phantom.truth["centre"], atol=0.2)
        front, back = (np.argwhere(phantom.label == value)[:, 1].mean() for value in (1, 2))
        assert front > back + 5  # y grows to the front in RAS
        # of a ball cut at height h = 0.2 r the cap is (2 + h)(1 - h)^2 / 4 = 0.352; an ellipsoid is a stretched ball
        assert (phantom.label == 1).sum() / (phantom.label > 0).sum() == pytest.approx(0.352, abs=0.02)


def test_hippocampus_intensities_range_over_powers_of_ten():
    scales = [np.median(phantom.image) for phantom in phantoms(hippocampus, 50)]
    assert max(scales) > 100 * min(scales)


def test_infant_tissues_have_the_volumes_of_their_shells():
    for phantom in phantoms(infant_brain, 80):
        counts = np.bincount(phantom.label.ravel(), minlength=4)[1:]
        assert np.allclose(counts, phantom.truth["volumes_mm3"], rtol=TOLERANCE)
        assert not phantom.image[phantom.label == 0].any() and (phantom.image[phantom.label > 0] > 0).all()


def test_infant_grey_and_white_matter_are_nearly_alike():
    for phantom in phantoms(infant_brain, 80):
        for channel in np.moveaxis(phantom.image, -1, 0):
            fluid, grey, white = (channel[phantom.label == value] for value in (1, 2, 3))
            spread = (grey.std() + white.std()) / 2
            assert 0.5 * spread < abs(grey.mean() - white.mean()) < 4 * spread
            assert abs(fluid.mean() - grey.mean()) > 2 * abs(grey.mean() - white.mean())


def test_tumor_regions_have_the_volumes_of_their_ellipsoids():
    for phantom in phantoms(brain_tumor, 96):
        regions = [np.isin(phantom.label, values).sum() for values in ([1, 2, 4], [1, 4], [4])]
        assert np.allclose(regions, phantom.truth["volumes_mm3"], rtol=TOLERANCE)
        assert set(np.unique(phantom.label)) == {0, 1, 2, 4}
        brain = (phantom.image > 0).all(axis=-1)
        assert brain[phantom.label > 0].all()


def test_every_modality_confuses_two_parts_of_a_tumor_and_all_together_none():
    pairs = [(1, 2), (1, 4), (2, 4)]
    for phantom in phantoms(brain_tumor, 96):
        contrasts = []
        for channel in np.moveaxis(phantom.image, -1, 0):
            parts = {value: channel[phantom.label == value] for value in (1, 2, 4)}
            gaps = [abs(parts[a].mean() - parts[b].mean()) / (parts[a].std() + parts[b].std()) for a, b in pairs]
            contrasts.append(gaps)
        assert (np.min(contrasts, axis=1) < 0.8).all() and (np.max(contrasts, axis=0) > 1.2).all(), contrasts


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.ending == ".nii.gz"])
def test_each_modality_is_a_file_on_one_grid(tmp_path, name):
    kind = KINDS[name]
    make_dataset(name, tmp_path, training=1, validation=0, test=1, size=40)
    [item] = json.loads((tmp_path / "dataset.json").read_text())["training"]
    paths = [item["image"]] if isinstance(item["image"], str) else item["image"]
    endings = [f"_{modality}" for modality in kind.modality] if len(kind.modality) > 1 else [""]
    assert paths == [f"images/000{ending}.nii.gz" for ending in endings]
    made = kind.generate(np.random.default_rng([0, 0]), 40)
    for i, path in enumerate(paths):
        volume = nib.load(tmp_path / path)
        # a header stores float32
        assert np.allclose(volume.affine, kind.affine if made.affine is None else made.affine, rtol=1e-6)
        assert np.array_equal(volume.dataobj, made.image if len(paths) == 1 else made.image[..., i])
    modalities = kind.modality if len(paths) > 1 else ()
    checks = RunChecks(3, len(paths), range(len(kind.labels)), modalities)
    assert len(checks.section(tmp_path, "training")) == len(checks.section(tmp_path, "test")) == 1
    assert len(checks.images(tmp_path / "images")) == 2
    checks.start([1])
    checks.finish()


@pytest.mark.parametrize("generate", [hippocampus, infant_brain, brain_tumor])
def test_too_small_a_phantom_is_named(generate):
    with pytest.raises(ValueError, match="size is 31 voxels; expected at least 32"):
        generate(np.random.default_rng(0), 31)
