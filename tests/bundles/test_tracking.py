"""Every bundle's training under `--tracking mlflow` and the overlays track_*: numbers and pictures, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from mlflow import MlflowClient
from mlflow.entities import Run
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bundlekit.phantoms import make_dataset
from tests import commands

TRACKERS = ("track_tensorboard", "track_mlflow")
EPOCHS = 2


def workflow(bundle: Path, configs: str, folder: Path, **options: Any) -> ConfigWorkflow:
    """What `python -m monai.bundle run` makes of the configs and options; it writes to folder/run."""
    set_determinism(0)
    places = {"dataset_dir": str(folder / "data"), "output_dir": str(folder / "run")}
    return ConfigWorkflow(
        config_file=[str(bundle / f"configs/{name}.json") for name in configs.split()],
        logging_file=False,
        **{"bundle_root": str(bundle), "device": "cpu", "ckpt_path": str(folder / "run/model.pt"), **places, **options},
    )


def train(bundle: Path, folder: Path, *trackers: str, stop_at_epoch: int | None = None, **options: Any) -> None:
    run = workflow(
        bundle, " ".join(["train", "fit_demo", *trackers]), folder, max_epochs=EPOCHS, val_interval=1, **options
    )
    run.initialize()
    if stop_at_epoch is not None:

        def stop() -> None:
            raise InterruptedError

        trainer = run.parser.get_parsed_content("train::trainer")
        trainer.add_event_handler(Events.EPOCH_STARTED(once=stop_at_epoch), stop)
    run.run()
    run.finalize()


def read_runs(folder: Path) -> tuple[MlflowClient, list[Run]]:
    client = MlflowClient(f"sqlite:///{folder}/run/mlruns.db")
    return client, client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def read_metric(client: MlflowClient, run: Run, name: str) -> list[list[float]]:
    return sorted([metric.step, metric.value] for metric in client.get_metric_history(run.info.run_id, name))


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "run/tensorboard"), size_guidance={"scalars": 0, "images": 0})
    return events.Reload()


@pytest.mark.parametrize(
    ("configs", "sections"),
    [
        ("train", {"train::handlers": True, "validate::handlers": True}),
        ("train evaluate", {"validate::handlers": True}),
        ("inference", {"handlers": True}),
    ],
    ids=["train", "evaluate", "inference"],
)
def test_monai_finds_the_handlers(bundle, configs, sections, tmp_path):
    options = {"workflow_type": "infer"} if configs == "inference" else {}
    plain = workflow(bundle, configs, tmp_path, **options).parser
    patched = workflow(bundle, configs, tmp_path, tracking="mlflow", **options).parser
    for section in sections:
        assert patched[section][:-1] == plain[section]
        assert patched[section][-1]["_target_"] == "MLFlowHandler"


@pytest.mark.by_example
def test_numbers_and_pictures_of_a_training(bundle, small, tmp_path):
    make_dataset(bundle.name, tmp_path / "data", training=2, validation=1, test=0, size=small.size)
    train(bundle, tmp_path, *TRACKERS, tracking="mlflow", **small.train)
    history = json.loads((tmp_path / "run/history.json").read_text())
    client, [run] = read_runs(tmp_path)
    events = read_events(tmp_path)
    assert run.info.status == "FINISHED"
    assert history["metrics"]
    for name, values in [*history["metrics"].items(), *history["terms"].items()]:
        # SQLite keeps float64, an event file float32
        assert read_metric(client, run, name) == pytest.approx(np.array(values), rel=0, abs=0, nan_ok=True), name
        drawn = [[event.step, event.value] for event in events.Scalars(name)]
        assert drawn == pytest.approx(np.array(values), rel=1e-6, nan_ok=True), name
    losses = [value for _, value in read_metric(client, run, "train_loss")]
    means = [np.mean(part) for part in np.split(np.array(losses), EPOCHS)]
    assert means == pytest.approx([value for _, value in history["loss"]], rel=1e-6)
    assert [event.value for event in events.Scalars("train_loss")] == pytest.approx(losses, rel=1e-6)

    [tag] = events.Tags()["images"]
    assert [event.step for event in events.Images(tag)] == [*range(1, EPOCHS + 1)]
    for event in events.Images(tag):
        file = client.download_artifacts(run.info.run_id, f"{tag}/epoch_{event.step:04d}.png", str(tmp_path))
        (tmp_path / "event.png").write_bytes(event.encoded_image_string)
        pages = [np.asarray(Image.open(path)) for path in (file, tmp_path / "event.png")]
        np.testing.assert_array_equal(*pages)
        assert len(np.unique(pages[0].reshape(-1, 3), axis=0)) > 10  # more than a blank page and its captions


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory) -> tuple[Path, Path]:
    """The nuclei bundle, and a folder with phantoms in data/ and a training without tracking in run/."""
    bundle = Path(__file__).resolve().parents[2] / "bundles/nuclei_microscopy_segmentation"
    folder = tmp_path_factory.mktemp("plain")
    make_dataset(bundle.name, folder / "data", training=2, validation=1, test=1, size=64)
    train(bundle, folder)
    return bundle, folder


def test_tracked_training_that_was_stopped_and_resumed_equals_the_plain_one_in_one_run(nuclei, tmp_path):
    bundle, plain = nuclei
    (tmp_path / "data").symlink_to(plain / "data")
    with pytest.raises(RuntimeError, match="Failed to evaluate"):  # as MONAI wraps what its config raises
        train(bundle, tmp_path, *TRACKERS, tracking="mlflow", stop_at_epoch=2)
    assert read_runs(tmp_path)[1][0].info.status == "RUNNING"
    train(bundle, tmp_path, *TRACKERS, tracking="mlflow", resume=True)

    for name in ("model.pt", "state.pt"):
        states = [torch.load(folder / "run" / name, weights_only=True) for folder in (plain, tmp_path)]
        a, b = (state.get("network", state) for state in states)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    client, [run] = read_runs(tmp_path)
    history = json.loads((plain / "run/history.json").read_text())
    assert read_metric(client, run, "val_mean_dice") == history["metrics"]["val_mean_dice"]
    assert [step for step, _ in read_metric(client, run, "train_loss")] == [1, 2]
    assert [event.step for event in read_events(tmp_path).Scalars("val_mean_dice")] == [1, 2]


def test_evaluation_and_inference_are_tracked(nuclei, tmp_path):
    bundle, plain = nuclei
    (tmp_path / "data").symlink_to(plain / "data")
    options = {"tracking": "mlflow", "ckpt_path": str(plain / "run/model.pt")}
    evaluation = workflow(bundle, f"train evaluate {' '.join(TRACKERS)}", tmp_path, **options)
    evaluation.initialize()
    evaluation.run()
    scores = json.loads((tmp_path / "run/metrics.json").read_text())["metrics"]
    client, [run] = read_runs(tmp_path)
    assert scores
    for name, value in scores.items():
        assert read_metric(client, run, name) == [[1, value]]
    assert client.list_artifacts(run.info.run_id, "pictures")
    assert run.info.status == "FINISHED"  # or a training would join it

    inference = workflow(bundle, "inference", tmp_path, workflow_type="infer", run_name="segment", **options)
    inference.initialize()
    inference.run()
    done = {run.data.tags["mlflow.runName"]: run.info.status for run in read_runs(tmp_path)[1]}
    assert len(done) == 2 and set(done.values()) == {"FINISHED"} and "segment" in done


@pytest.mark.slow
def test_the_first_of_two_processes_tracks_alone(bundle, small, tmp_path):
    make_dataset(bundle.name, tmp_path / "data", training=4, validation=2, test=0, size=small.size)
    configs = [f"configs/{name}.json" for name in ("train", "fit_demo", "multi_gpu_train", *TRACKERS)]
    places = {"dataset_dir": tmp_path / "data", "output_dir": tmp_path / "run", "ckpt_path": tmp_path / "model.pt"}
    overrides = {**places, **small.train, "max_epochs": EPOCHS, "val_interval": 1, "tracking": "mlflow"}
    options = [text for key, value in overrides.items() for text in (f"--{key}", str(value))]
    ranks = commands.start_ranks(2, "-m", "monai.bundle", "run", "--config_file", configs, *options, cwd=bundle)
    printed = ["".join(rank.communicate(timeout=600)) for rank in ranks]  # which stream logs is for MLflow to decide
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    assert ["".join(printed).count(f"epoch {i} of {EPOCHS}: loss") for i in range(1, EPOCHS + 1)] == [1] * EPOCHS
    history = json.loads((tmp_path / "run/history.json").read_text())
    client, [run] = read_runs(tmp_path)
    for name, values in history["metrics"].items():
        assert read_metric(client, run, name) == values
        assert [event.step for event in read_events(tmp_path).Scalars(name)] == [step for step, _ in values]
    # the second process validates the other image
    assert len(read_events(tmp_path).Tags()["images"]) == len(client.list_artifacts(run.info.run_id, "pictures")) == 1
