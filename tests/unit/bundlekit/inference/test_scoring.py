"""Evaluations of images for some of which the network returns no finite numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.handlers import MeanDice, from_engine
from monai.transforms import AsDiscreted, Compose, Lambdad, LoadImaged
from PIL import Image

from bundlekit.inference.scoring import ScoringEvaluator
from bundlekit.inputs.checks import RunChecks
from bundlekit.reports.scores import MetricsJson

SHARES = {"0.png": 0.25, "1.png": 0.5, "2.png": 1.0, "3.png": 0.75}
"""Share of each label that its image covers; the network returns the image, hence Dice is 2 s / (s + 1)."""


class Network(torch.nn.Module):
    def __init__(self, bad: dict[float, float]) -> None:
        super().__init__()
        self.bad = bad

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        share = float(images.mean())
        if self.bad.get(share) == 0:
            raise RuntimeError("the field is not finite")
        return images + self.bad.get(share, 0)


def make_evaluator(folder: Path, bad: dict[float, float], checks: RunChecks | None, *transforms) -> ScoringEvaluator:
    for name, share in SHARES.items():
        image = np.zeros((4, 8), np.uint8)
        image.ravel()[: int(32 * share)] = 1
        Image.fromarray(image).save(folder / name)
        Image.fromarray(np.ones_like(image)).save(folder / f"label_{name}")
    items = [{"image": str(folder / name), "label": str(folder / f"label_{name}")} for name in SHARES]
    load = Compose([LoadImaged(["image", "label"], ensure_channel_first=True)])
    dice = MeanDice(include_background=True, output_transform=from_engine(["pred", "label"]))
    return ScoringEvaluator(
        checks=checks, device="cpu", network=Network(bad), key_val_metric={"val_dice": dice},
        val_data_loader=DataLoader(Dataset(items, load)), val_handlers=[MetricsJson(folder)],
        postprocessing=Compose([AsDiscreted("pred", threshold=0.5), *transforms]),
    )  # fmt: skip


def dice(share: float) -> float:
    return 2 * share / (share + 1)


def test_all_are_scored_where_all_is_finite(tmp_path):
    evaluator = make_evaluator(tmp_path, {}, None)
    evaluator.run()
    assert evaluator.state.metrics["val_dice"] == pytest.approx(np.mean([*map(dice, SHARES.values())]))


@pytest.mark.parametrize("last", [False, True])
def test_images_without_finite_output_are_in_no_score(tmp_path, stop, capsys, last):
    bad = {0.25: torch.nan, 0.75 if last else 0.5: torch.inf}
    checks = RunChecks(2, 1)
    evaluator = make_evaluator(tmp_path, bad, checks)
    seen = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.iteration))
    evaluator.run()
    kept = {name: share for name, share in SHARES.items() if share not in bad}
    wanted = {name: pytest.approx(dice(share)) for name, share in kept.items()}
    assert evaluator.state.metrics["val_dice"] == pytest.approx(np.mean([*map(dice, kept.values())]))
    scores = json.loads((tmp_path / "metrics.json").read_text())
    assert {row["image"]: row["val_dice"] for row in scores["images"]} == wanted and scores["num_images"] == 2
    assert seen == ([2, 3] if last else [3, 4])
    during = capsys.readouterr().err.splitlines()
    assert stop(checks.finish) == during and len(during) == 2
    assert during[0] == (
        f"left out: {tmp_path}/0.png: the network's output has 32 of 32 values that are NaN or infinite; expected "
        "finite numbers; look at the image's intensities, or pass --amp false where it is on"
    )


def test_a_network_that_fails_leaves_out_its_image(tmp_path, stop):
    checks = RunChecks(2, 1)
    evaluator = make_evaluator(tmp_path, {0.5: 0}, checks)
    evaluator.run()
    assert evaluator.state.metrics["val_dice"] == pytest.approx(np.mean([dice(s) for s in (0.25, 1.0, 0.75)]))
    [line] = stop(checks.finish)
    assert line == (
        f"left out: {tmp_path}/1.png: could not be scored (RuntimeError: the field is not finite); expected an image "
        "that can be segmented; check the file, or free memory if that is the reason"
    )


def test_transforms_that_fail_leave_out_their_image(tmp_path, stop):
    def refuse(pred: torch.Tensor) -> torch.Tensor:
        if pred.mean() == 1:
            raise ValueError("too many objects")
        return pred

    checks = RunChecks(2, 1)
    make_evaluator(tmp_path, {}, checks, Lambdad("pred", refuse)).run()
    [line] = stop(checks.finish)
    assert line.startswith(f"left out: {tmp_path}/2.png: could not be scored (ValueError: too many objects); ")


def test_nothing_to_score_ends_the_run_without_scores(tmp_path, stop):
    evaluator = make_evaluator(tmp_path, dict.fromkeys(SHARES.values(), torch.nan), RunChecks(2, 1))
    *lines, last = stop(evaluator.run)
    assert len(lines) == 4 and all(line.startswith("left out: ") for line in lines)
    assert last == "error: images: none of 4 could be scored; expected at least one; see the lines above"
    assert not (tmp_path / "metrics.json").exists()


def test_the_validation_of_a_training_ends_at_the_first(tmp_path, stop):
    [line] = stop(make_evaluator(tmp_path, {0.5: torch.nan, 1.0: torch.nan}, None).run)
    assert line.startswith(f"error: epoch 1: {tmp_path}/1.png: the network's output has 32 of 32 values that are ")
    assert line.endswith(
        "; look at the image's intensities, or pass --amp false where it is on, or start again with a lower "
        "--learning_rate and --overwrite true, or in another --output_dir"
    )
    with pytest.raises(RuntimeError, match="the field is not finite"):
        make_evaluator(tmp_path, {0.5: 0}, None).run()


def test_each_epoch_counts_its_own_images(tmp_path, stop):
    evaluator = make_evaluator(tmp_path, {0.25: torch.nan}, RunChecks(2, 1))
    evaluator.run()
    evaluator.network.bad = dict.fromkeys(SHARES.values(), torch.nan)
    assert stop(lambda: evaluator.run(2))[-1].startswith("error: images: none of ")


@pytest.mark.parametrize(("shares", "wanted"), [([0, 0], None), ([0, 0.5, 0, 1], (2 / 3 + 1) / 2)])
def test_a_score_that_no_image_has_is_null(tmp_path, shares, wanted):
    items = []
    for share in shares:  # the prediction is all ones
        label = torch.zeros(1, 4, 8)
        label.view(-1)[: int(32 * share)] = 1
        image = MetaTensor(torch.ones(1, 4, 8), meta={"filename_or_obj": f"{len(items)}.png"})
        items.append({"image": image, "label": label})
    dice = MeanDice(include_background=True, output_transform=from_engine(["pred", "label"]))
    evaluator = ScoringEvaluator(
        device="cpu", network=torch.nn.Identity(), key_val_metric={"val_dice": dice},
        val_data_loader=DataLoader(Dataset(items)), val_handlers=[MetricsJson(tmp_path)],
    )  # fmt: skip
    evaluator.run()
    scores = json.loads((tmp_path / "metrics.json").read_text())
    assert [row["val_dice"] for row in scores["images"]] == [
        pytest.approx(2 * share / (share + 1)) if share else None for share in shares
    ]
    score = evaluator.state.metrics["val_dice"]
    assert math.isnan(score) if wanted is None else score == pytest.approx(wanted)
    assert scores["metrics"]["val_dice"] == (None if wanted is None else pytest.approx(wanted))
