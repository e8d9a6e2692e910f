"""Files of an earlier training are lost only to somebody who has said so, and a training's restart finds its own."""

import json
import os
import socket

import pytest

from bundlekit.errors import InputError
from bundlekit.training.folder import claim_folder, is_served, note_other_weights, place_weights, release_folder
from bundlekit.training.lock import LOCK_NAME

FILES = ("state.pt", "history.json", "model.pt")
LOCKS = [LOCK_NAME, ".training.model.pt.lock"]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    yield folder
    release_folder(folder, folder / "model.pt")


def fill(folder, names=FILES):
    for name in names:
        (folder / name).write_text(name)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def claim(folder, **switches):
    return claim_folder(folder, folder / "model.pt", **switches)


def test_a_folder_without_a_training(folder):
    fill(folder, ["metrics.json", "a_seg.png"])
    assert claim(folder) == [f"the best weights are written to {folder}/model.pt"]
    assert names(folder) == [*LOCKS, "a_seg.png", "metrics.json"]


@pytest.mark.parametrize("kept", [FILES, ("state.pt",), ("history.json",), ("model.pt",)])
def test_an_earlier_training_is_kept(folder, kept):
    fill(folder, kept)
    with pytest.raises(InputError) as error:
        claim(folder)
    resume = "--resume true to continue it, " if "state.pt" in kept else ""
    assert str(error.value) == (
        f"{folder}: holds {', '.join(kept)} of an earlier training; expected a folder without one; pass {resume}"
        "--overwrite true to lose it, or another --output_dir"
    )
    assert names(folder) == sorted(kept)


def test_overwrite_removes_what_a_kill_would_let_the_next_training_mistake_for_its_own(folder):
    fill(folder, [*FILES, "metrics.json"])
    claim(folder, overwrite=True)
    assert names(folder) == [*LOCKS, "metrics.json"]


def test_weights_elsewhere_are_kept_until_they_are_replaced(folder, tmp_path):
    fill(tmp_path, ["model.pt"])
    with pytest.raises(InputError, match=f"holds {tmp_path}/model.pt of .* another --output_dir and --ckpt_path"):
        claim_folder(folder, tmp_path / "model.pt")
    fill(folder)
    claim_folder(folder, tmp_path / "model.pt", overwrite=True)
    assert (tmp_path / "model.pt").read_text() == "model.pt" and names(folder) == [LOCK_NAME, "model.pt"]
    release_folder(folder, tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["state.pt", "history.json", LOCK_NAME])
@pytest.mark.parametrize("switches", [{}, {"resume": True}, {"overwrite": True}])
def test_weights_in_place_of_another_file_of_the_training(folder, name, switches):
    fill(folder)
    (folder.parent / "link").symlink_to(folder)
    weights = folder.parent / "link" / name
    with pytest.raises(InputError) as error:
        claim_folder(folder, weights, **switches)
    assert str(error.value) == (
        f"{weights}: is a file that the training writes itself; expected a file for the weights only; pass another "
        f"--ckpt_path, such as {folder}/model.pt"
    )
    assert names(folder) == sorted(FILES)


def test_resume(folder):
    note = f"{folder} holds no state.pt: the training starts from its beginning"
    assert claim(folder, resume=True)[1:] == [note]
    release_folder(folder, folder / "model.pt")
    fill(folder)
    assert claim(folder, resume=True)[1:] == claim(folder, resume=True, overwrite=True)[1:] == []
    assert names(folder) == [*LOCKS, *sorted(FILES)]


def test_resume_of_a_training_whose_state_is_gone(folder):
    fill(folder, ["history.json", "model.pt"])
    with pytest.raises(InputError, match=r"holds history.json, model.pt of .*; pass --overwrite true to lose it, or"):
        claim(folder, resume=True)
    assert len(claim(folder, resume=True, overwrite=True)) == 2 and names(folder) == LOCKS


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("launch", ["this", "other"])
def test_a_restart_by_torchrun_goes_on_with_its_own_training_only(folder, monkeypatch, launch, overwrite):
    parent = os.getppid() if launch == "this" else os.getppid() + 1
    left = {"pid": 1, "parent": parent, "host": socket.gethostname()}
    (folder / LOCK_NAME).write_text(json.dumps(left))
    fill(folder)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    if launch == "this":
        assert len(claim(folder, overwrite=overwrite)) == 1 and (folder / "state.pt").exists()
    elif overwrite:
        claim(folder, overwrite=overwrite)
        assert not (folder / "state.pt").exists()
    else:
        for _ in range(2):  # what is refused is refused again after the next restart
            with pytest.raises(InputError):
                claim(folder)


def test_a_server_of_monai_label_trains_the_weights_that_it_serves(tmp_path, monkeypatch):
    bundle = tmp_path / "apps/monaibundle/model/nuclei"
    assert not is_served(bundle) and place_weights(bundle, "RUN") == "RUN/model.pt"
    monkeypatch.setenv("MONAI_LABEL_APP_DIR", str(tmp_path / "apps/monaibundle"))
    assert is_served(bundle) and place_weights(bundle, bundle / "eval") == str(bundle / "models/model.pt")
    assert not is_served(tmp_path / "bundles/nuclei") and place_weights(".", 77) == "77/model.pt"


def test_a_note_where_a_run_leaves_the_weights_of_its_folder_aside(folder):
    own = folder / "model.pt"
    own.touch()
    assert note_other_weights(folder, own) == note_other_weights(folder, folder / "../run/model.pt") == []
    assert note_other_weights(folder, "models/model.pt") == [
        f"the weights are models/model.pt, not {own}: pass --ckpt_path {own} for those"
    ]
