"""Safe training: the best weights, and a resumed run that equals one that was never stopped."""

import json
import os
import re

import pytest
import torch
from ignite.engine import Events
from ignite.metrics import MeanAbsoluteError
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler, from_engine
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, RandGaussianNoised
from torch import nn

from bundlekit.files import compute_sha256
from bundlekit.training.recipe import _describe_file
from bundlekit.training.seeds import EpochSeed
from bundlekit.training.state import TrainingState
from bundlekit.training.unfreeze_encoder import UnfreezeEncoder


def build(
    folder,
    max_epochs,
    resume=False,
    seed=5,
    validation=True,
    val_interval=1,
    width=16,
    lr=0.05,
    batch_size=4,
    num_images=12,
    std=0.1,
    loss=nn.MSELoss,
    schedule=lambda optimizer, _: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8),
    first=(),
    ckpt_path=None,
    score=None,
    trainer_options=None,
    **options,
):
    """A small regression with everything random: initial weights, order, augmentation, dropout."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, width), nn.Dropout(0.5), nn.Linear(width, 1))
    images = torch.linspace(-1, 1, 36).reshape(12, 3)[:num_images]
    items = [{"image": image, "label": image.sum(0, keepdim=True)} for image in images]
    noise = Compose([RandGaussianNoised("image", prob=0.5, std=std)])
    dataset = Dataset(items, noise)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    scheduler = schedule(optimizer, max_epochs)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=12),
        network=network,
        key_val_metric=score or {"closeness": NegativeError(output_transform=from_engine(["pred", "label"]))},
        decollate=False,
    )
    state = TrainingState(
        str(folder / "state.pt"),
        str(ckpt_path or folder / "model.pt"),
        network,
        {"optimizer": optimizer, "lr_scheduler": scheduler},
        evaluator if validation else None,
        resume,
        {"seed": seed},
        **options,
    )
    handlers = [*first, EpochSeed(seed, dataset), LrScheduleHandler(scheduler, print_lr=False), state]
    if validation:
        handlers.insert(-1, ValidationHandler(val_interval, evaluator))
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=DataLoader(dataset, batch_size=batch_size, shuffle=True),
        network=network,
        optimizer=optimizer,
        loss_function=loss(),
        train_handlers=handlers,
        decollate=False,
        **(trainer_options or {}),
    )


class NegativeError(MeanAbsoluteError):
    """Larger is better."""

    def compute(self):
        return -super().compute()


def error_score(name):
    return {name: MeanAbsoluteError(output_transform=from_engine(["pred", "label"]))}


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
    assert a["weights_sha256"] == b["weights_sha256"] == compute_sha256(whole / "model.pt")
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


def cosine(optimizer, max_epochs):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max_epochs)


def refusal(folder, max_epochs=2, **changed):
    """The line of a resumed training that is another one."""
    with pytest.raises(SystemExit) as stop:
        build(folder, max_epochs, resume=True, **changed).run()
    assert stop.value.code == 1
    return str(stop.value)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"seed": 6}, "seed was 5 and is 6"),
        ({"lr": 0.2}, "optimizer::param_groups::0::lr was 0.05 and is 0.2"),
        ({"batch_size": 3}, "train::dataloader::batch_size was 4 and is 3"),
        ({"num_images": 11}, "train::dataset::data was 12 entries and is 11 entries"),
        ({"std": 0.2}, "train::preprocessing::transforms::0::rand_gaussian_noise::std was 0.1 and is 0.2"),
        ({"loss": nn.L1Loss}, "loss was MSELoss and is L1Loss"),
        ({"width": 8}, "network_def::0::out_features was 16 and is 8"),
        ({"schedule": cosine}, "lr_scheduler was ExponentialLR and is CosineAnnealingLR"),
        ({"validation": False}, "validate::dataset::data was"),
        ({"key_metric_negative_sign": True}, "key_metric_negative_sign was False and is True"),
        ({"val_interval": 2}, "train::handlers::ValidationHandler::interval was 1 and is 2"),
        ({"score": error_score("error")}, "validate::key_metric was closeness and is error"),
        (
            {"score": error_score("closeness")},
            "validate::metrics::closeness was NegativeError and is MeanAbsoluteError",
        ),
        (
            {"trainer_options": {"inferer": SlidingWindowInferer(4)}},
            "train::inferer was SimpleInferer and is SlidingWindowInferer",
        ),
    ],
)
def test_what_differs_from_the_stopped_training_is_named_and_nothing_is_written(tmp_path, capsys, changed, difference):
    build(tmp_path, 2).run()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    line = refusal(tmp_path, **changed)
    assert line.startswith(f"{tmp_path}/state.pt: is of another training: ") and f" {difference}" in line
    assert capsys.readouterr().err.splitlines() == [f"error: {line}"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_encoder_that_is_trained_from_another_epoch_is_another_training(tmp_path):
    network = nn.Identity()
    network.set_frozen = bool
    build(tmp_path, 2, first=[UnfreezeEncoder(network, 4)]).run()
    line = refusal(tmp_path, first=[UnfreezeEncoder(network, 1)])
    assert "training: train::handlers::UnfreezeEncoder::epoch was 4 and is 1; expected" in line


@pytest.mark.parametrize("at", [0, 1_500_000, -1])
def test_files_are_described_by_size_and_content_not_by_their_folder(tmp_path, at):
    here, moved = tmp_path / "a.png", tmp_path / "moved/a.png"
    moved.parent.mkdir()
    content = bytearray(2_000_000)
    here.write_bytes(content)
    moved.write_bytes(content)
    assert _describe_file(here) == _describe_file(moved)
    content[at] = 1
    moved.write_bytes(content)
    assert _describe_file(here) != _describe_file(moved)


def test_several_differences_are_named_once_each(tmp_path):
    build(tmp_path, 2, schedule=cosine).run()
    line = refusal(tmp_path, max_epochs=3, schedule=cosine, lr=0.2)
    assert "max_epochs was 2 and is 3; optimizer::param_groups::0::lr was 0.05 and is 0.2; expected" in line
    assert line.endswith(
        "pass --max_epochs 2; the learning rate follows a schedule over all epochs, so with 3 of them it is another "
        "training, which needs another --output_dir or --overwrite true without --resume"
    )


def test_more_epochs_where_the_schedule_does_not_depend_on_them_are_those_of_one_long_training(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    build(whole, 5).run()
    build(parts, 2).run()
    build(parts, 5, resume=True).run()
    note = f"note: {parts}/state.pt: goes on to epoch 5, not 2; the learning rate is the same"
    assert capsys.readouterr().err.splitlines() == [note]
    assert_same(read(whole)["network"], read(parts)["network"])
    assert read(whole)["history"] == read(parts)["history"]


def test_fewer_epochs_than_are_done(tmp_path):
    build(tmp_path, 3).run()
    wanted = "state.pt: is of epoch 3; expected one up to --max_epochs 2; pass --max_epochs 3 or more"
    assert refusal(tmp_path, max_epochs=2).endswith(wanted)


def test_the_best_weights_are_gone(tmp_path):
    build(tmp_path, 2).run()
    (tmp_path / "model.pt").unlink()
    assert refusal(tmp_path).startswith(f"{tmp_path}/model.pt: is missing; expected the best weights, those of epoch ")
    assert not (tmp_path / "model.pt").exists()


def test_a_finished_training_changes_nothing_when_it_is_resumed(tmp_path):
    build(tmp_path, 2).run()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    build(tmp_path, 2, resume=True).run()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("when", [Events.STARTED, Events.ITERATION_COMPLETED, Events.COMPLETED])
def test_a_kill_during_a_validation_loses_no_epoch(tmp_path, when):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    build(whole, 4, val_interval=2).run()
    stopped = build(parts, 4, val_interval=2)
    state = next(h.__self__ for h, *_ in stopped._event_handlers[Events.STARTED] if hasattr(h.__self__, "evaluator"))

    def kill(_):
        raise KeyboardInterrupt

    state.evaluator.add_event_handler(when, kill)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert read(parts)["epoch"] == 2 and read(parts)["is_pending"] and not (parts / "model.pt").exists()
    resumed, iterations = build(parts, 4, val_interval=2, resume=True), []
    resumed.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: iterations.append(engine.state.epoch))
    resumed.run()
    assert iterations == [3, 3, 3, 4, 4, 4]  # the second epoch was not trained again

    a, b = read(whole), read(parts)
    assert_same(a["network"], b["network"])
    assert a["history"] == b["history"] and a["best"] == b["best"] and a["saved"] == b["saved"]
    assert [epoch for epoch, _ in b["history"]["metrics"]["closeness"]] == [2, 4]
    assert_same(*(torch.load(f / "model.pt", weights_only=True) for f in (whole, parts)))


class Given(MeanAbsoluteError):
    """Scores that a test has chosen."""

    def __init__(self, scores):
        super().__init__(output_transform=from_engine(["pred", "label"]))
        self.scores = iter(scores)

    def compute(self):
        return next(self.scores)


def train_with_scores(folder, scores, **options):
    """Weights after each epoch of a training whose validations give the scores."""
    trainer, weights = build(folder, len(scores), **options), []
    state = next(h.__self__ for h, *_ in trainer._event_handlers[Events.STARTED] if hasattr(h.__self__, "evaluator"))
    Given(scores).attach(state.evaluator, "closeness")
    copy = lambda _: weights.append({k: v.clone() for k, v in trainer.network.state_dict().items()})  # noqa: E731
    trainer.add_event_handler(Events.EPOCH_COMPLETED, copy)
    trainer.run()
    return weights


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("scores", "smaller_is_better", "best"),
    [
        ([0.9, NAN, 0.8], False, 0),
        ([0.9, NAN, 0.95], False, 2),
        ([NAN, 0.1, NAN], False, 1),
        ([INF, 0.1], False, 1),
        ([0.9, INF, 0.95], True, 0),
        ([NAN, NAN], True, 1),  # the last weights where there is no score at all
    ],
)
def test_a_score_that_is_not_finite_is_never_the_best(tmp_path, capsys, scores, smaller_is_better, best):
    weights = train_with_scores(tmp_path, scores, key_metric_negative_sign=smaller_is_better)
    assert_same(torch.load(tmp_path / "model.pt", weights_only=True), weights[best])
    found = json.loads((tmp_path / "history.json").read_text(), parse_constant=pytest.fail)["metrics"]["closeness"]
    assert found == [[epoch, None if score in (INF, NAN) else score] for epoch, score in enumerate(scores, start=1)]
    notes = [f"note: epoch {i}: closeness is {s}, which is never the best" for i, s in enumerate(scores, 1) if s - s]
    assert [line for line in capsys.readouterr().err.splitlines() if "never" in line] == notes


def test_what_a_kill_left_of_a_write_is_removed(tmp_path):
    for name in ("state.pt", "model.pt", "history.json"):
        (tmp_path / f".{name}.abc").write_text("half")
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


@pytest.mark.parametrize("broken", ["truncated", "other"])
def test_resume_from_an_unusable_state_says_what_to_do(tmp_path, broken):
    if broken == "truncated":
        build(tmp_path, 1).run()
        os.truncate(tmp_path / "state.pt", 500)
    elif broken == "other":
        torch.save({"network": {"weight": torch.zeros(1)}}, tmp_path / "state.pt")
    assert re.search(
        r"state\.pt: cannot be resumed from .* expected the state .*; pass the old --output_dir, or --overwrite true "
        "without --resume to start again$",
        refusal(tmp_path),
    )


def test_a_training_on_a_cpu_goes_on_with_the_gradient_scaler_of_a_gpu_and_back(tmp_path):

    class MakeScaler:
        """In place of MONAI's trainer, which makes one at its start on a GPU."""

        def attach(self, engine):
            engine.add_event_handler(
                Events.STARTED, lambda: setattr(engine, "scaler", torch.amp.GradScaler("cpu", init_scale=8.0))
            )

    build(tmp_path, max_epochs=1).run()
    for epoch, scale in ((2, 8.0), (3, None)):
        first = [] if scale is None else [MakeScaler()]
        build(tmp_path, max_epochs=epoch, resume=True, first=first).run()
        state = read(tmp_path)
        assert state["epoch"] == epoch and ("scaler" in state["objects"]) == (scale is not None)
        assert scale is None or state["objects"]["scaler"]["scale"] == scale


def test_resume_without_a_state_starts(tmp_path):
    build(tmp_path / "a", 2).run()
    build(tmp_path / "b", 2, resume=True).run()
    assert_same(read(tmp_path / "a")["network"], read(tmp_path / "b")["network"])


def test_smaller_is_better_of_a_distance(tmp_path):
    """Of a metric that rises during training, the weights of the epoch where it was lowest are kept."""
    build(tmp_path, 4, key_metric_negative_sign=True).run()
    scores = dict(read(tmp_path)["history"]["metrics"]["closeness"])
    assert min(scores, key=scores.get) == 1
    build(tmp_path / "first", 1).run()
    assert_same(torch.load(tmp_path / "model.pt", weights_only=True), torch.load(tmp_path / "first/model.pt"))
