"""A training that goes on replaces no weights but its own, and releases its folder however it ends."""

import re

import pytest
import torch
from ignite.engine import Events

from bundlekit.training.folder import claim_folder, release_folder
from bundlekit.training.lock import LOCK_NAME
from tests.unit.bundlekit.training.test_state import assert_same, build, read, refusal

EXPECTED = r"expected the best weights, those of epoch \d, which the training has written; copy them back, pass the "


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stop_at(trainer, event, error=KeyboardInterrupt):
    def fail(_):
        raise error

    trainer.add_event_handler(event, fail)
    with pytest.raises(error):
        trainer.run()


def test_weights_that_have_been_replaced_are_kept(tmp_path):
    build(tmp_path / "a", 2).run()
    build(tmp_path / "b", 1, seed=6).run()
    (tmp_path / "a/model.pt").write_bytes((tmp_path / "b/model.pt").read_bytes())
    before = contents(tmp_path / "a")
    line = refusal(tmp_path / "a", max_epochs=3)
    assert re.match(f"{tmp_path}/a/model.pt: holds other weights, which would be lost; {EXPECTED}", line), line
    assert contents(tmp_path / "a") == before


def test_weights_in_another_place_are_the_trainings_own_or_are_kept(tmp_path):
    build(tmp_path / "a", 2).run()
    build(tmp_path / "b", 2, seed=6).run()
    (tmp_path / "a/model.pt").rename(tmp_path / "moved.pt")
    other = (tmp_path / "b/model.pt").read_bytes()
    line = refusal(tmp_path / "a", max_epochs=3, ckpt_path=tmp_path / "b/model.pt")
    assert re.match(f"{tmp_path}/b/model.pt: holds other weights, which would be lost; {EXPECTED}", line), line
    assert (tmp_path / "b/model.pt").read_bytes() == other
    build(tmp_path / "a", 3, resume=True, ckpt_path=tmp_path / "moved.pt").run()
    assert read(tmp_path / "a")["epoch"] == 3


def test_a_file_where_no_weights_have_been_written_yet(tmp_path):
    """The user has let the first training replace one file, and no other."""
    (tmp_path / "old.pt").write_text("old")
    stop_at(build(tmp_path, 4, val_interval=4, ckpt_path=tmp_path / "old.pt"), Events.EPOCH_STARTED(once=3))
    assert "weights" not in read(tmp_path)["saved"]
    (tmp_path / "other.pt").write_text("other")
    line = refusal(tmp_path, max_epochs=4, val_interval=4, ckpt_path=tmp_path / "other.pt")
    assert "other.pt: holds other weights, which would be lost; expected the file of weights that the training" in line
    assert (tmp_path / "other.pt").read_text() == "other"
    build(tmp_path, 4, val_interval=4, resume=True, ckpt_path=tmp_path / "old.pt").run()
    assert read(tmp_path)["saved"] == {"state": 4, "weights": 4}


@pytest.mark.parametrize("validation", [True, False])
def test_a_kill_between_the_writes_of_weights_and_state(tmp_path, validation):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    build(whole, 3, validation=validation).run()
    trainer = build(parts, 3, validation=validation)
    keeper = next(h.__self__ for h, *_ in trainer._event_handlers[Events.STARTED] if hasattr(h.__self__, "ckpt_path"))
    write = keeper._write_state

    def be_killed(engine):
        if keeper.saved.get("weights") == 1:
            raise KeyboardInterrupt
        write(engine)

    keeper._write_state = be_killed
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert (parts / "model.pt").exists() and read(parts)["weights_sha256"] is None
    build(parts, 3, validation=validation, resume=True).run()
    assert_same(read(whole)["network"], read(parts)["network"])
    assert_same(*(torch.load(folder / "model.pt", weights_only=True) for folder in (whole, parts)))


@pytest.mark.parametrize("torchrun", [False, True])
def test_a_training_that_fails_in_a_living_process_releases_its_folder(tmp_path, monkeypatch, request, torchrun):
    """Of torchrun's process the lock stays, by which the next one knows whose training it goes on with."""
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    request.addfinalizer(lambda: release_folder(tmp_path, tmp_path / "model.pt"))
    claim_folder(tmp_path, tmp_path / "model.pt")
    locks = [LOCK_NAME, ".training.model.pt.lock"]
    assert sorted(contents(tmp_path)) == locks
    trainer = build(tmp_path, 2)
    stop_at(trainer, Events.ITERATION_COMPLETED(once=2), ValueError)
    assert sorted(contents(tmp_path)) == (locks if torchrun else [])
