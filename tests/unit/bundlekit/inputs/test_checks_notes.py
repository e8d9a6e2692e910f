"""The line that tells a run that its weights have seen phantoms alone: for the very file, and for no other."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from bundlekit.inputs.checks import RunChecks

DATA = [[{"image": "a.png"}]]


@pytest.fixture
def weights(tmp_path) -> tuple[Path, str]:
    """A file of weights and its SHA-256, computed apart from the package."""
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 3).state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_shipped_file_is_named_once_on_stderr(weights, capsys):
    path, known = weights
    RunChecks(spatial_dims=2, channels=3).start(DATA, ckpt_path=path, phantom_sha256=known)
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    assert line.startswith(f"note: {path} was trained on phantoms") and out == ""


def test_a_copy_under_another_name_is_known_too(weights, tmp_path, capsys):
    path, known = weights
    copy = tmp_path / "elsewhere.pt"
    copy.write_bytes(path.read_bytes())
    RunChecks(spatial_dims=2, channels=3).start(DATA, ckpt_path=copy, phantom_sha256=known)
    assert f"note: {copy} " in capsys.readouterr().err


@pytest.mark.parametrize("retrained", [True, False])
def test_other_weights_and_other_bundles_are_told_nothing(weights, capsys, retrained):
    """Weights trained anew in the shipped file's place, or a bundle whose weights saw more than phantoms."""
    path, known = weights
    if retrained:
        torch.save({key: value + 1 for key, value in torch.load(path).items()}, path)
    RunChecks(spatial_dims=2, channels=3).start(DATA, ckpt_path=path, phantom_sha256=known if retrained else None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", [None, "gone.pt"])
def test_weights_that_are_not_there_are_not_read(weights, tmp_path, capsys, path):
    """A training without weights goes on; a missing file is an error of its own, and no note hides it."""
    start, arguments = RunChecks(spatial_dims=2, channels=3).start, {"phantom_sha256": weights[1]}
    if path is None:
        start(DATA, **arguments)
        assert capsys.readouterr().err == ""
        return
    with pytest.raises(SystemExit) as caught:
        start(DATA, ckpt_path=tmp_path / path, **arguments)
    [line] = capsys.readouterr().err.splitlines()
    assert caught.value.code == 1 and line.startswith(f"error: {tmp_path / path}: cannot be opened")
