"""The MONAI metric against the functions it calls, on its own and in a real ignite engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor, decollate_batch
from monai.handlers import IgniteMetricHandler, from_engine

from bundlekit.metrics import BoundaryMetrics, pixel_error, rand_error, rand_info_scores, warping_error

FLOAT32 = 1e-7  # MONAI keeps scores in float32

MEASURES = {
    "pixel_error": pixel_error,
    "rand_error": lambda prediction, truth: 1 - rand_info_scores(prediction, truth)[0].f,
    "rand_error_2012": lambda prediction, truth: rand_error(prediction, truth, thin=False),
    "v_rand": lambda prediction, truth: rand_info_scores(prediction, truth)[0].f,
    "v_info": lambda prediction, truth: rand_info_scores(prediction, truth)[1].f,
    "warping_error": warping_error,
}


def _batch(seed: int, num_images: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Random truths with 40 % membrane and predictions that differ from them in 5 % of the pixels."""
    rng = np.random.default_rng(seed)
    truth = rng.random((num_images, 1, 24, 32)) < 0.4
    prediction = truth ^ (rng.random(truth.shape) < 0.05)
    return torch.tensor(prediction, dtype=torch.uint8), torch.tensor(truth, dtype=torch.uint8)


def _expected(name: str, *batches: tuple[torch.Tensor, torch.Tensor]) -> list[float]:
    return [MEASURES[name](p[0], t[0]) for batch in batches for p, t in zip(*batch, strict=True)]


@pytest.mark.parametrize("name", MEASURES)
def test_values_of_each_image_and_their_mean(name):
    first, second = _batch(0), _batch(1, 3)
    metric = BoundaryMetrics(name)
    torch.testing.assert_close(metric(*first).ravel().tolist(), _expected(name, first), atol=FLOAT32, rtol=0)
    metric(*second)
    values = _expected(name, first, second)
    assert len(set(values)) > 2
    torch.testing.assert_close(metric.get_buffer().ravel().tolist(), values, atol=FLOAT32, rtol=0)
    assert metric.aggregate().item() == pytest.approx(np.mean(values), abs=FLOAT32)


def test_several_names_give_a_column_each():
    batch = _batch(0)
    metric = BoundaryMetrics(["warping_error", "v_info"])
    values = metric(*batch)
    for column, name in enumerate(metric.names):
        assert values[:, column].tolist() == pytest.approx(_expected(name, batch), abs=FLOAT32)
    torch.testing.assert_close(metric.aggregate(), values.mean(dim=0))


def test_reset_forgets():
    metric = BoundaryMetrics("pixel_error")
    metric(*_batch(0))
    metric.reset()
    with pytest.raises(ValueError, match="got no image"):
        metric.aggregate()
    metric(*_batch(1))
    assert metric.aggregate().item() == pytest.approx(np.mean(_expected("pixel_error", _batch(1))), abs=FLOAT32)


@pytest.mark.parametrize("as_type", [MetaTensor, torch.Tensor.numpy, torch.Tensor.float, torch.Tensor.bool])
@pytest.mark.parametrize("gather", [lambda batch: batch, list], ids=["batch", "list"])
def test_types_of_batches(as_type, gather):
    metric = BoundaryMetrics("rand_error")
    batch = _batch(0)
    values = metric(*(gather(as_type(maps)) for maps in batch))
    assert type(values) is torch.Tensor
    assert values.ravel().tolist() == pytest.approx(_expected("rand_error", batch), abs=FLOAT32)


@pytest.mark.parametrize("name", MEASURES)
def test_in_an_ignite_engine(name):
    batches = [_batch(0), _batch(1, 3)]

    def step(engine, batch):
        prediction, truth = batch
        return decollate_batch({"pred": prediction, "label": MetaTensor(truth)})

    engine = Engine(step)
    handler = IgniteMetricHandler(
        metric_fn=BoundaryMetrics(name), output_transform=from_engine(["pred", "label"]), save_details=True
    )
    handler.attach(engine, "membranes")
    for _ in range(2):  # the second epoch must not hold the first one's images
        engine.run(batches, max_epochs=1)
        values = _expected(name, *batches)
        assert engine.state.metrics["membranes"] == pytest.approx(np.mean(values), abs=FLOAT32)
        details = engine.state.metric_details["membranes"]
        assert details.shape == (5, 1)
        assert details[:, 0].tolist() == pytest.approx(values, abs=FLOAT32)


@pytest.mark.parametrize("names", ["dice", [], ["v_rand", "dice"]])
def test_unknown_names(names):
    with pytest.raises(ValueError, match=r"expected some of \['pixel_error', 'rand_error', .* 'warping_error'\]"):
        BoundaryMetrics(names)


@pytest.mark.parametrize(
    ("prediction_shape", "truth_shape"),
    [((2, 2, 8, 8), (2, 2, 8, 8)), ((2, 1, 8), (2, 1, 8)), ((1, 1, 8, 8), (2, 1, 8, 8)), ((2, 1, 8, 8), (2, 1, 8, 9))],
)
def test_wrong_shapes(prediction_shape, truth_shape):
    with pytest.raises(ValueError, match=r"expected \(N, 1, H, W\), both"):
        BoundaryMetrics("pixel_error")(torch.zeros(prediction_shape), torch.zeros(truth_shape))


def test_a_truth_without_a_cell_has_no_measure_of_cells_and_does_not_count():
    metric = BoundaryMetrics(["pixel_error", "rand_error", "warping_error"])
    truth, prediction = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    truth[0] = 1
    first, second = metric(prediction, truth).tolist()
    assert first[0] == 1 and np.isnan(first[1]) and second == [0, 0, 0]
    assert metric.aggregate().tolist()[:2] == [0.5, 0]
