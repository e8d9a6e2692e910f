"""Scores of an identity network on label maps whose Dice is counted by hand, and the tables and curves of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import ConfusionMatrix, HausdorffDistance, MeanDice, from_engine
from monai.transforms import AsDiscreted, LoadImaged
from PIL import Image
from scipy import ndimage

from bundlekit.reports.scores import MetricsJson, format_table, plot_history, print_table

# Pixels predicted, pixels right, and pixels both, of label 1 in each image; Dice = 2 both / (predicted + right).
COUNTS = {"a.png": (4, 4, 4), "b.png": (6, 2, 2), "c.png": (3, 5, 1), "empty.png": (0, 0, 0)}
DICE = [1.0, 0.5, 0.25, None]


@pytest.fixture
def items(tmp_path):
    """Small label maps: the "image" is the prediction of an identity network."""
    items = []
    for name, (predicted, right, both) in COUNTS.items():
        image, label = np.zeros((2, 24), np.uint8)
        image[:predicted] = 1
        label[predicted - both : predicted - both + right] = 1
        item = {}
        for key, values in (("image", image), ("label", label)):
            (tmp_path / key).mkdir(exist_ok=True)
            item[key] = str(tmp_path / key / name)
            Image.fromarray(values.reshape(4, 6)).save(item[key])
        items.append(item)
    return items


def evaluator(items, handler, metrics, classes=2, **options):
    dataset = Dataset(items, LoadImaged(["image", "label"], ensure_channel_first=True))
    options.setdefault("postprocessing", AsDiscreted(["pred", "label"], to_onehot=classes))
    (name, metric), *others = metrics.items()
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=3),
        network=torch.nn.Identity(),
        key_val_metric={name: metric},
        additional_metrics=dict(others),
        val_handlers=[handler],
        **options,
    )


def scores(include_background=False, kind=MeanDice, **options):
    return kind(include_background, output_transform=from_engine(["pred", "label"]), **options)


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_one_row_an_image_and_null_for_what_is_undefined(items, tmp_path):
    handler = MetricsJson(tmp_path / "eval")
    metrics = {"val_mean_dice": scores(), "val_hausdorff": scores(kind=HausdorffDistance)}
    engine = evaluator(items, handler, metrics)
    engine.run()
    result = strict_json(tmp_path / "eval/metrics.json")
    assert handler.path == tmp_path / "eval/metrics.json"
    assert result["num_images"] == 4
    assert [image["image"] for image in result["images"]] == list(COUNTS)
    assert [image["val_mean_dice"] for image in result["images"]] == DICE
    # a: equal; b: a row of 6 px against its last two, 4 px from the first; c: pixels 0 to 2 of row 0 against 2 to 5 of
    # row 0 and the first of row 1, so that (0, 5) is farthest, 3 px from (0, 2)
    distances = [image["val_hausdorff"] for image in result["images"]]
    assert distances == pytest.approx([0, 4, 3, None])
    assert result["metrics"]["val_mean_dice"] == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert list(result["metrics"]) == ["val_mean_dice", "val_hausdorff"]
    assert [p.name for p in (tmp_path / "eval").iterdir()] == ["metrics.json"]  # no rest of a temporary file


def test_each_epoch_starts_anew(items, tmp_path):
    engine = evaluator(items, MetricsJson(tmp_path, "scores.json"), {"val_mean_dice": scores()})
    engine.run()
    first = (tmp_path / "scores.json").read_bytes()
    engine.run()
    assert (tmp_path / "scores.json").read_bytes() == first


def test_batches_that_are_not_decollated(items, tmp_path):
    metric = MeanDice(include_background=True, output_transform=from_engine(["pred", "label"]))
    options = {"decollate": False, "postprocessing": None}  # pred and label are one channel, the foreground
    evaluator(items, MetricsJson(tmp_path), {"dice": metric}, **options).run()
    images = strict_json(tmp_path / "metrics.json")["images"]
    assert images == [{"image": name, "dice": dice} for name, dice in zip(COUNTS, DICE, strict=True)]


def test_several_classes_get_a_column_each_and_their_mean(items, tmp_path):
    handler = MetricsJson(tmp_path, labels=["cell", "membrane"])
    metrics = {"with": scores(include_background=True), "without": scores()}
    evaluator(items, handler, metrics).run()
    for image, one, (predicted, right, both) in zip(
        strict_json(tmp_path / "metrics.json")["images"], DICE, COUNTS.values(), strict=True
    ):
        zero = 2 * (24 - predicted - right + both) / (48 - predicted - right)
        assert image["with_cell"] == pytest.approx(zero)
        assert image["with_membrane"] == image["without"] == one
        assert image["with"] == pytest.approx(zero if one is None else (zero + one) / 2)


def test_classes_without_background_and_without_names(items, tmp_path):
    for labels, names in ((["none", "one", "two"], ["one", "two"]), (None, ["0", "1"])):
        evaluator(items, MetricsJson(tmp_path, labels=labels), {"dice": scores()}, classes=3).run()
        first = strict_json(tmp_path / "metrics.json")["images"][0]
        assert first == {"image": "a.png", "dice": 1.0, f"dice_{names[0]}": 1.0, f"dice_{names[1]}": None}


def test_infinity_is_null(items, tmp_path):
    Image.fromarray(np.eye(4, 6, dtype=np.uint8)).save(items[3]["label"])  # nothing predicted: infinitely far
    evaluator(items, MetricsJson(tmp_path), {"distance": scores(kind=HausdorffDistance)}).run()
    result = strict_json(tmp_path / "metrics.json")
    assert result["images"][3]["distance"] is None
    assert result["metrics"]["distance"] is None


def test_details_that_are_no_table_are_refused(items, tmp_path):
    metric = scores(kind=ConfusionMatrix)  # four counts for each image and class
    engine = evaluator(items, MetricsJson(tmp_path), {"dice": scores(), "sensitivity": metric})
    with pytest.raises(ValueError, match=r"sensitivity have shape \(4, 1, 4\).*save_details=False"):
        engine.run()
    metric = scores(kind=ConfusionMatrix, save_details=False)
    evaluator(items, MetricsJson(tmp_path), {"dice": scores(), "sensitivity": metric}).run()
    result = strict_json(tmp_path / "metrics.json")
    assert result["metrics"]["sensitivity"] == pytest.approx((4 + 2 + 1) / (4 + 2 + 5))
    assert set(result["images"][0]) == {"image", "dice"}


def test_labels_that_do_not_fit_are_refused(items, tmp_path):
    handler = MetricsJson(tmp_path, labels=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match=r"dice have shape \(4, 2\).*a column for each of a, b, c, d"):
        evaluator(items, handler, {"dice": scores(include_background=True)}).run()


def test_table_has_mean_and_standard_deviation(tmp_path, capsys):
    images = [
        {"image": "a.png", "dice": 1.0, "distance_px": 12.5},
        {"image": "longer_name.png", "dice": 0.5, "distance_px": None},
        {"image": "c.png", "dice": 0.0, "distance_px": 7.5},
    ]
    metrics = {"metrics": {"dice": 0.5}, "images": images, "num_images": 3}
    # of 1, 0.5, 0: sqrt((0.25 + 0 + 0.25) / 3) = 0.4082; of 12.5, 7.5: 2.5
    expected = [
        "image              dice  distance_px",
        "a.png            1.0000      12.5000",
        "longer_name.png  0.5000            -",
        "c.png            0.0000       7.5000",
        "mean             0.5000      10.0000",
        "std              0.4082       2.5000",
    ]
    assert format_table(metrics).splitlines() == expected
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    print_table(tmp_path / "metrics.json")
    assert capsys.readouterr().out.splitlines() == expected


def test_table_of_nothing_known():
    images = [{"image": "a.png", "dice": None}]
    assert format_table({"metrics": {}, "images": images, "num_images": 1}).splitlines() == [
        "image  dice",
        "a.png     -",
        "mean      -",
        "std       -",
    ]
    assert format_table({"metrics": {}, "images": [], "num_images": 0}).split() == ["image", "mean", "std"]


def curve_heights(page, colour):
    """Mean row of a colour in the left and in the right third of a panel; the legend is short of both or alike."""
    rows, columns = np.nonzero(np.abs(page.astype(int) - colour).max(axis=2) < 8)
    third = page.shape[1] / 3
    return rows[columns < third].mean(), rows[columns > 2 * third].mean()


def test_history_shows_the_loss_left_and_the_metrics_right(tmp_path):
    history = {
        "loss": [[epoch, 1 / epoch] for epoch in range(1, 101)],
        "lr": [[epoch, 0.1] for epoch in range(1, 101)],
        "metrics": {
            "val_dice": [[epoch, 1 - 5 / epoch] for epoch in range(10, 101, 10)],
            "val_other": [[10, 0.9], [40, math.nan], [50, None], [100, 0.1]],
        },
    }
    (tmp_path / "history.json").write_text(json.dumps(history))
    plot_history(tmp_path / "history.json", tmp_path / "history.png")
    page = np.asarray(Image.open(tmp_path / "history.png").convert("RGB"))
    middle = page.shape[1] // 2
    blue, orange = (31, 119, 180), (255, 127, 14)
    left, right = curve_heights(page[:, :middle], blue)
    assert left < right  # rows count downwards: the loss falls
    left, right = curve_heights(page[:, middle:], blue)
    assert left > right  # the metric rises
    assert np.any(np.all(page[:, middle:] == orange, axis=2))
    assert not np.any(np.all(page[:, :middle] == orange, axis=2))


def test_history_of_a_run_without_validation(tmp_path):
    (tmp_path / "history.json").write_text('{"loss": [[1, 0.5]], "lr": [[1, 0.1]], "metrics": {}}')
    plot_history(tmp_path / "history.json", tmp_path / "history.png")
    page = np.asarray(Image.open(tmp_path / "history.png").convert("RGB"))
    middle = page.shape[1] // 2
    blue = np.all(page == (31, 119, 180), axis=2)
    assert ndimage.label(blue[:, :middle], np.ones((3, 3)))[1] == 2  # the single point and its entry in the legend
    assert not blue[:, middle:].any()


def test_history_of_a_loss_that_is_a_sum(tmp_path):
    history = {"loss": [[1, 0.9], [2, 0.5]], "terms": {"dice": [[1, 0.4], [2, 0.2]]}, "metrics": {}}
    (tmp_path / "history.json").write_text(json.dumps(history))
    plot_history(tmp_path / "history.json", tmp_path / "history.png")
    page = np.asarray(Image.open(tmp_path / "history.png").convert("RGB"))
    middle = page.shape[1] // 2
    for colour in ((31, 119, 180), (255, 127, 14)):  # the loss and its term, next to each other
        assert np.all(page[:, :middle] == colour, axis=2).any()
        assert not np.all(page[:, middle:] == colour, axis=2).any()
