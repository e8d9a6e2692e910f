"""The note that weights were trained only on phantoms: for exactly that file, and for no other."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from bundlekit.inputs.checks import RunChecks

DATA = [{"image": "a.png"}]


@pytest.fixture
def weights(tmp_path) -> tuple[Path, str]:
    """A file of weights and its SHA-256, computed apart from the package."""
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 3).state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_shipped_file_is_named_once_on_stderr(weights, capsys):
    path, known = weights
    RunChecks(2, 3, ckpt_path=path, phantom_sha256=known).start(DATA)
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    assert line.startswith(f"note: {path} was trained only on phantoms") and out == ""


def test_a_copy_under_another_name_is_known_too(weights, tmp_path, capsys):
    path, known = weights
    copy = tmp_path / "elsewhere.pt"
    copy.write_bytes(path.read_bytes())
    RunChecks(2, 3, ckpt_path=copy, phantom_sha256=known).start(DATA)
    assert f"note: {copy} " in capsys.readouterr().err


@pytest.mark.parametrize("retrained", [True, False])
def test_other_weights_and_other_bundles_get_no_note(weights, capsys, retrained):
    """New weights in the shipped file's place, or a bundle whose weights saw more than phantoms."""
    path, known = weights
    if retrained:
        torch.save({key: value + 1 for key, value in torch.load(path).items()}, path)
    RunChecks(2, 3, ckpt_path=path, phantom_sha256=known if retrained else None).start(DATA)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", [None, "gone.pt"])
def test_weights_that_are_not_there_are_not_read(weights, tmp_path, capsys, path):
    """A training without weights goes on; a missing file is an error of its own, and no note hides it."""
    checks = RunChecks(2, 3, ckpt_path=path and tmp_path / path, phantom_sha256=weights[1])
    if path is None:
        checks.start(DATA)
        assert capsys.readouterr().err == ""
        return
    with pytest.raises(SystemExit) as caught:
        checks.start(DATA)
    [line] = capsys.readouterr().err.splitlines()
    assert caught.value.code == 1 and line.startswith(f"error: {tmp_path / path}: cannot be opened")
