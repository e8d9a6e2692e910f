"""The MONAI metric against the statistics it sums, on its own and in a real ignite engine."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor, decollate_batch
from monai.handlers import IgniteMetricHandler, from_engine

from bundlekit.metrics import ObjectMetrics, ObjectStatistics, object_statistics

ROUNDING = 1e-12  # relative, float64, sums of some ten terms

NAMES = ["object_f1", "object_dice", "object_hausdorff"]
SHAPES = [(12, 16), (20, 9), (12, 16), (8, 8)]


def _images(as_type=torch.tensor, shapes=SHAPES) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of maps of one channel, in which each stripe of the truth is an object and the prediction lacks some."""
    rng = np.random.default_rng(0)
    images = []
    for shape in shapes:
        truth = np.arange(shape[0])[:, None] // 3 * rng.integers(0, 2, shape)
        prediction = np.roll(truth, 1, axis=1) * (truth != 2)
        images.append((as_type(prediction[None]), as_type(truth[None])))
    return images


def _measures(statistics: ObjectStatistics) -> list[float]:
    return [statistics.f1, statistics.object_dice, statistics.object_hausdorff]


def _statistics(images) -> list[ObjectStatistics]:
    return [object_statistics(prediction[0], truth[0]) for prediction, truth in images]


def _expected(images, pooled: bool) -> list[float]:
    if pooled:
        return _measures(reduce(add, _statistics(images)))
    return np.mean([_measures(statistics) for statistics in _statistics(images)], axis=0).tolist()


def _call(metric: ObjectMetrics, images) -> torch.Tensor:
    return metric([prediction for prediction, _ in images], [truth for _, truth in images])


def _missed_and_found() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A 3 x 4 image whose one object of 5 pixels is missed, and a 3 x 5 one whose object of 15 pixels is found."""
    missed = torch.tensor([[[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]])
    found = torch.ones(1, 3, 5, dtype=torch.int32)
    return [(torch.zeros_like(missed), missed), (found, found)]


def test_pooled():
    # 1 true positive, 1 false negative; 15 of 20 true and all 15 predicted pixels have Dice 1; the 5 others are the
    # diagonal 5 away from nothing
    metric = ObjectMetrics(NAMES)
    _call(metric, _missed_and_found())
    assert metric.aggregate().tolist() == [2 / 3, (15 / 20 + 1) / 2, 5 * 5 / 20 / 2]


def test_mean_over_images():
    # 0, 0 and the diagonal, 5, for the first; 1, 1 and 0 for the second
    metric = ObjectMetrics(NAMES, pooled=False)
    assert _call(metric, _missed_and_found()).tolist() == [[0, 0, 5], [1, 1, 0]]
    assert metric.aggregate().tolist() == [0.5, 0.5, 2.5]


@pytest.mark.parametrize("pooled", [True, False])
def test_images_of_all_calls_count_alike(pooled):
    images = _images()
    metric = ObjectMetrics(NAMES, pooled)
    _call(metric, images[:1])
    _call(metric, images[1:])
    expected = _expected(images, pooled)
    assert expected != pytest.approx(_expected(images, not pooled), rel=1e-3)
    assert metric.aggregate().tolist() == pytest.approx(expected, rel=ROUNDING)


def test_per_image_values_are_kept_and_have_the_aggregate_as_mean():
    images = _images()
    metric = ObjectMetrics(["object_hausdorff", "object_f1"], pooled=False)
    _call(metric, images)
    expected = [[statistics.object_hausdorff, statistics.f1] for statistics in _statistics(images)]
    assert metric.get_buffer().tolist() == expected
    assert metric.aggregate().tolist() == pytest.approx(np.mean(expected, axis=0), rel=ROUNDING)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pooled", [True, False])
def test_one_name(name, pooled):
    metric = ObjectMetrics(name, pooled)
    _call(metric, _images())
    assert metric.aggregate().tolist() == pytest.approx([_expected(_images(), pooled)[NAMES.index(name)]], rel=ROUNDING)


def test_distances_are_worked_out_only_for_their_name():
    metric = ObjectMetrics(["object_f1", "object_dice"])
    statistics = _call(metric, _images())
    assert statistics[:, -2:].isnan().all() and not statistics[:, :-2].isnan().any()
    assert metric.aggregate().tolist() == pytest.approx(_expected(_images(), pooled=True)[:2], rel=ROUNDING)


def test_reset_forgets():
    metric = ObjectMetrics(NAMES)
    _call(metric, _images())
    metric.reset()
    with pytest.raises(ValueError, match="got no image"):
        metric.aggregate()
    _call(metric, _images()[:1])
    assert metric.aggregate().tolist() == pytest.approx(_expected(_images()[:1], pooled=True), rel=ROUNDING)


@pytest.mark.parametrize("as_type", [MetaTensor, np.asarray, lambda array: torch.tensor(array, dtype=torch.uint8)])
@pytest.mark.parametrize("gather", [lambda batch: batch, list], ids=["batch", "list"])
def test_types_of_batches(as_type, gather):
    images = _images(np.asarray, shapes=[(12, 16), (12, 16)])
    metric = ObjectMetrics(NAMES)
    values = metric(*(gather(as_type(np.stack(maps))) for maps in zip(*images, strict=True)))
    assert type(values) is torch.Tensor
    assert metric.aggregate().tolist() == pytest.approx(_expected(images, pooled=True), rel=ROUNDING)


def test_volumes():
    truth, prediction = torch.zeros(2, 1, 1, 4, 4, 4, dtype=torch.int32)
    truth[..., 0:2, 0:2, 0:2] = prediction[..., 0:2, 0:2, 1:3] = 1  # half of the 8 voxels moved, by one
    metric = ObjectMetrics(NAMES)
    metric(prediction, truth)
    assert metric.aggregate().tolist() == [1, 0.5, 1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pooled", [True, False])
def test_in_an_ignite_engine(name, pooled):
    images = _images()

    def step(engine, batch):
        prediction, truth = batch
        return decollate_batch({"pred": prediction[None], "label": MetaTensor(truth[None])})

    engine = Engine(step)
    handler = IgniteMetricHandler(
        metric_fn=ObjectMetrics(name, pooled), output_transform=from_engine(["pred", "label"]), save_details=not pooled
    )
    handler.attach(engine, "objects")
    for _ in range(2):  # the second epoch must not hold the first one's images
        engine.run(images, max_epochs=1)
        column = NAMES.index(name)
        assert engine.state.metrics["objects"] == pytest.approx(_expected(images, pooled)[column], rel=ROUNDING)
        if not pooled:
            details = engine.state.metric_details["objects"]
            assert details.tolist() == [[_measures(statistics)[column]] for statistics in _statistics(images)]


@pytest.mark.parametrize("names", ["dice", [], ["object_f1", "dice"]])
def test_unknown_names(names):
    with pytest.raises(ValueError, match=r"expected some of \['object_dice', 'object_f1', 'object_hausdorff'\]"):
        ObjectMetrics(names)


@pytest.mark.parametrize(
    ("prediction_shape", "truth_shape"),
    [((2, 2, 8, 8), (2, 2, 8, 8)), ((2, 1, 8), (2, 1, 8)), ((1, 1, 8, 8), (2, 1, 8, 8)), ((2, 1, 8, 8), (2, 1, 8, 9))],
)
def test_wrong_shapes(prediction_shape, truth_shape):
    with pytest.raises(ValueError, match=r"expected \(N, 1, H, W\) or \(N, 1, H, W, D\), both"):
        ObjectMetrics("object_f1")(torch.zeros(prediction_shape).int(), torch.zeros(truth_shape).int())
