"""Objects matched by overlap: counts worked out by hand, and MONAI's panoptic quality as a second opinion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_panoptic_quality

from bundlekit.metrics import THRESHOLDS, ObjectMatches, match_counts


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Four true objects: one found exactly, one to 9/10, one to 6/10, one missed; and one object too many."""
    truth, prediction = np.zeros((2, 8, 12), int)
    truth[0, :10], truth[2, :10], truth[4, :10], truth[6, :3] = 1, 2, 5, 9
    prediction[0, :10], prediction[2, 1:10], prediction[4, :6], prediction[6, 6:9] = 4, 3, 2, 1
    return prediction, truth


def test_counts_worked_out_by_hand():
    counts = match_counts(*drawn())
    # overlaps 1, 0.9 and 0.6, which must be above the threshold: 3 below 0.6, 2 below 0.9, then 1
    num_tp = [3, 3, 2, 2, 2, 2, 2, 2, 1, 1]
    assert counts[:, 0].tolist() == num_tp
    assert counts[:, 1].tolist() == counts[:, 2].tolist() == [4 - tp for tp in num_tp]


def test_measures_worked_out_by_hand():
    names = ["f1_50", "f1_75", "f1_95", "f1_mean", "ap"]
    prediction, truth = (torch.from_numpy(labels)[None, None] for labels in drawn())
    values = ObjectMatches(names, pooled=False)(prediction, truth)[0].tolist()
    # 2 TP / (2 TP + FP + FN) = TP / 4; TP / (TP + FP + FN) = TP / (8 - TP): 3/5 twice, 2/6 six times, 1/7 twice
    assert values == pytest.approx([0.75, 0.5, 0.25, 2 / 4, (2 * 3 / 5 + 6 * 2 / 6 + 2 * 1 / 7) / 10])


def test_pooled_counts_add_and_means_of_images_do_not():
    prediction, truth = (torch.from_numpy(labels)[None, None] for labels in drawn())
    empty = torch.zeros_like(truth)
    images = [(prediction, truth), (empty, truth), (empty, empty)]
    pooled, mean = (ObjectMatches(["f1_50", "ap"], pooled=pooled) for pooled in (True, False))
    for pair in images:
        pooled(*pair), mean(*pair)
    # 3 found, 1 too many, 1 + 4 missed; at the other thresholds 2 or 1 found
    ap = [tp / (tp + (4 - tp) + (8 - tp)) for tp in (3, 3, 2, 2, 2, 2, 2, 2, 1, 1)]
    assert pooled.aggregate().tolist() == pytest.approx([6 / (6 + 1 + 5), np.mean(ap)])
    of_first = (2 * 3 / 5 + 6 * 2 / 6 + 2 * 1 / 7) / 10
    assert mean.aggregate().tolist() == pytest.approx([(0.75 + 0 + 1) / 3, (of_first + 0 + 1) / 3])


def test_ids_decide_nothing():
    prediction, truth = drawn()
    ids = np.array([0, 70, 3, 12, 9, 1, 5, 8, 4, 2])
    assert np.array_equal(match_counts(ids[prediction], truth), match_counts(prediction, ids[truth]))
    assert np.array_equal(match_counts(ids[prediction], ids[truth]), match_counts(prediction, truth))


def test_image_without_background():
    everything = np.ones((3, 4), int)
    assert match_counts(everything, everything).tolist() == [[1, 0, 0]] * 10
    assert match_counts(everything, 0 * everything).tolist() == [[0, 1, 0]] * 10


def test_f1_is_monai_s_recognition_quality():
    """On random blobs, at thresholds where no overlap of a few pixels lies exactly on the threshold."""
    rng = np.random.default_rng(0)
    truth = np.kron(np.arange(36).reshape(6, 6) * rng.integers(0, 2, (6, 6)), np.ones((8, 8), int))
    prediction = np.roll(truth, 1, axis=0) * (rng.random(truth.shape) > 0.05)
    for threshold in (0.5, 0.7, 0.75):
        pair = [torch.from_numpy(np.stack([labels, labels > 0])) for labels in (prediction, truth)]
        wanted = compute_panoptic_quality(*(p[0] for p in pair), metric_name="rq", match_iou_threshold=threshold)
        tp, fp, fn = match_counts(prediction, truth)[THRESHOLDS.index(threshold)]
        assert 2 * tp / (2 * tp + fp + fn) == pytest.approx(float(wanted), abs=1e-5) and tp > 0


def test_wrong_input_is_named():
    labels = np.ones((3, 4), int)
    with pytest.raises(ValueError, match="prediction holds float64"):
        match_counts(labels * 1.0, labels)
    with pytest.raises(ValueError, match="truth holds int64 from -1"):
        match_counts(labels, -labels)
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(4, 3\)"):
        match_counts(labels, labels.T)
    with pytest.raises(ValueError, match=r"expected some of \['ap', 'f1_50'"):
        ObjectMatches("f1")
    with pytest.raises(ValueError, match=r"expected \(N, 1, H, W\)"):
        ObjectMatches("ap")(torch.ones(1, 2, 3, 3).int(), torch.ones(1, 2, 3, 3).int())
