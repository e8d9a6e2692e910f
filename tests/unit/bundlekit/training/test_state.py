"""Safe training: the best weights, and a resumed run that equals one that was never stopped."""

import json
import os

import pytest
import torch
from ignite.engine import Events
from ignite.metrics import MeanAbsoluteError
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler, from_engine
from monai.transforms import Compose, RandGaussianNoised
from torch import nn

from bundlekit.training.seeds import EpochSeed
from bundlekit.training.state import TrainingState


def build(folder, max_epochs, resume=False, seed=5, validation=True, val_interval=1, **options):
    """A small regression with everything random: initial weights, order, augmentation, dropout."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 1))
    images = torch.linspace(-1, 1, 36).reshape(12, 3)
    items = [{"image": image, "label": image.sum(0, keepdim=True)} for image in images]
    noise = Compose([RandGaussianNoised("image", prob=0.5, std=0.1)])
    dataset = Dataset(items, noise)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=12),
        network=network,
        key_val_metric={"closeness": NegativeError(output_transform=from_engine(["pred", "label"]))},
        decollate=False,
    )
    state = TrainingState(
        str(folder / "state.pt"),
        str(folder / "model.pt"),
        network,
        {"optimizer": optimizer, "lr_scheduler": scheduler},
        evaluator if validation else None,
        resume,
        {"seed": seed, "max_epochs": max_epochs},
        **options,
    )
    handlers = [EpochSeed(seed, dataset), LrScheduleHandler(scheduler, print_lr=False), state]
    if validation:
        handlers.insert(2, ValidationHandler(val_interval, evaluator))
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=DataLoader(dataset, batch_size=4, shuffle=True),
        network=network,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        train_handlers=handlers,
        decollate=False,
    )


class NegativeError(MeanAbsoluteError):
    """Larger is better."""

    def compute(self):
        return -super().compute()


def read(folder):
    return torch.load(folder / "state.pt", weights_only=True)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key], key


def test_resumed_training_equals_uninterrupted_bit_for_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    build(whole, 6).run()
    stopped = build(parts, 6)

    @stopped.on(Events.ITERATION_COMPLETED(once=8))  # in the middle of epoch 3
    def kill(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert read(parts)["epoch"] == 2
    build(parts, 6, resume=True).run()

    a, b = read(whole), read(parts)
    assert_same(a["network"], b["network"])
    assert_same(a["objects"]["lr_scheduler"], b["objects"]["lr_scheduler"])
    for i, moments in a["objects"]["optimizer"]["state"].items():
        assert_same(moments, b["objects"]["optimizer"]["state"][i])
    assert a["history"] == b["history"] and a["best"] == b["best"] and a["iteration"] == b["iteration"] == 18
    assert_same(*(torch.load(f / "model.pt", weights_only=True) for f in (whole, parts)))


def test_another_seed_gives_another_training(tmp_path):
    build(tmp_path / "a", 1).run()
    build(tmp_path / "b", 1, seed=6).run()
    assert not torch.equal(read(tmp_path / "a")["network"]["0.weight"], read(tmp_path / "b")["network"]["0.weight"])


def test_epochs_draw_different_numbers(tmp_path):
    trainer, drawn = build(tmp_path, 3), []
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=3), lambda e: drawn.append(e.state.batch["image"]))
    trainer.run()
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])


def test_ckpt_path_holds_the_best_epoch_as_a_flat_state_dict(tmp_path):
    trainer, weights = build(tmp_path, 5), {}
    network = trainer.network
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda e: weights.update({e.state.epoch: {k: v.clone() for k, v in network.state_dict().items()}}),
    )
    trainer.optimizer.param_groups[0]["lr"] = 0.5  # large steps: later epochs are not always better
    trainer.run()
    scores = dict(json.loads((tmp_path / "history.json").read_text())["metrics"]["closeness"])
    best = max(scores, key=scores.get)
    assert_same(torch.load(tmp_path / "model.pt", weights_only=True), weights[best])


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    trainer = build(tmp_path, 2, validation=False)
    trainer.run()
    assert_same(torch.load(tmp_path / "model.pt", weights_only=True), dict(trainer.network.state_dict()))


def test_the_last_epoch_is_validated_whatever_the_interval(tmp_path):
    build(tmp_path, 3, val_interval=2).run()
    assert [epoch for epoch, _ in read(tmp_path)["history"]["metrics"]["closeness"]] == [2, 3]
    build(tmp_path / "short", 1, val_interval=5).run()
    assert (tmp_path / "short/model.pt").is_file()


@pytest.mark.parametrize("changed", [{"seed": 6}, {"max_epochs": 4}])
def test_resume_with_other_settings_is_refused(tmp_path, changed):
    build(tmp_path, max_epochs=2).run()
    with pytest.raises(SystemExit, match=r"it was trained with \{.*\}, this run has \{.*\}.*without --resume"):
        build(tmp_path, resume=True, **{"max_epochs": 2, **changed}).run()


def test_what_a_kill_left_of_a_write_is_removed(tmp_path):
    (tmp_path / ".state.pt.abc.pt").write_text("half")
    build(tmp_path, 1).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.json", "model.pt", "state.pt"]


def test_history_has_the_mean_loss_of_each_epoch(tmp_path):
    trainer, losses = build(tmp_path, 2), []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"].item()))
    trainer.run()
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["loss"] == [[1, pytest.approx(sum(losses[:3]) / 3)], [2, pytest.approx(sum(losses[3:]) / 3)]]
    assert [lr for _, lr in history["lr"]] == pytest.approx([0.05, 0.04])
    assert history["terms"] == {}


def test_history_has_the_trainers_own_metrics_such_as_the_terms_of_its_loss(tmp_path):
    trainer = build(tmp_path, 2, validation=False)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: e.state.metrics.update(dice=e.state.iteration / 4))
    trainer.run()
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["terms"] == {"dice": [[1, 0.75], [2, 1.5]]} and history["metrics"] == {}  # 3 iterations an epoch


@pytest.mark.parametrize("broken", ["missing", "truncated", "other"])
def test_resume_from_an_unusable_state_says_what_to_do(tmp_path, broken):
    if broken == "truncated":
        build(tmp_path, 1).run()
        os.truncate(tmp_path / "state.pt", 500)
    elif broken == "other":
        torch.save({"network": {"weight": torch.zeros(1)}}, tmp_path / "state.pt")
    with pytest.raises(
        SystemExit, match=r"state\.pt: cannot be resumed from .* expected the state .* without --resume"
    ):
        build(tmp_path, 2, resume=True).run()


def test_smaller_is_better_of_a_distance(tmp_path):
    """Of a metric that rises during training, the weights of the epoch where it was lowest are kept."""
    build(tmp_path, 4, key_metric_negative_sign=True).run()
    scores = dict(read(tmp_path)["history"]["metrics"]["closeness"])
    assert min(scores, key=scores.get) == 1
    build(tmp_path / "first", 1).run()
    assert_same(torch.load(tmp_path / "model.pt", weights_only=True), torch.load(tmp_path / "first/model.pt"))
