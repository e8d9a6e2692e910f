"""The folder of a training: what an earlier one has left there, and where the weights go."""

from __future__ import annotations

import os
import socket
from functools import wraps
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..processes import may_be_restarted, was_restarted
from .lock import LOCK_NAME, lock_folder, lock_weights, unlock_folder, unlock_weights

__all__ = [
    "HISTORY_NAME",
    "STATE_NAME",
    "claim_folder",
    "is_served",
    "note_other_weights",
    "place_weights",
    "release_at_failure",
    "release_folder",
]

STATE_NAME, HISTORY_NAME = "state.pt", "history.json"


def claim_folder(
    folder: str | os.PathLike, weights: str | os.PathLike, resume: bool = False, overwrite: bool = False
) -> list[str]:
    """Lock the folder and the weights of a training that begins or goes on, and keep another training's files.

    Afterwards the folder holds ``state.pt`` only where the training has to go on from it: with ``resume``, or where
    torchrun has restarted this very training.

    Args:
        folder: that of the outputs; it exists.
        weights: file that the best weights go to.
        resume: go on with the training whose state is in the folder, if there is one.
        overwrite: remove the files of an earlier training. Its weights stay until they are replaced if they are in
            another folder, as they may be those that the training starts from.

    Returns:
        Notes for the user.

    Raises:
        InputError: where the folder or the weights are another running training's, where the folder holds a training's
            files that the user does not mention, or where the weights would replace another file of the training.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "model.pt").touch()
        >>> claim_folder(folder, folder / "model.pt")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bundlekit.errors.InputError: ...: holds model.pt of an earlier training; expected a folder without one; pass \
--overwrite true to lose it, or another --output_dir
        >>> _ = claim_folder(folder, folder / "model.pt", overwrite=True)
        >>> (folder / "model.pt").exists()
        False
    """
    folder, weights = Path(folder), Path(weights)
    _require_own_name(folder, weights)
    left = lock_folder(folder)
    try:
        lock_weights(weights)
        return _clear(folder, weights, left, resume, overwrite)
    except InputError:
        release_folder(folder, weights)
        raise


def release_folder(folder: str | os.PathLike, weights: str | os.PathLike) -> None:
    """Release what :func:`claim_folder` has locked, if this process holds it.

    Args:
        folder: that of the training.
        weights: its file of the best weights.
    """
    unlock_weights(weights)
    unlock_folder(folder)


def release_at_failure(trainer: Any, folder: str | os.PathLike, weights: str | os.PathLike) -> None:
    """Let a trainer's ``run`` release what is locked where it ends by an exception, as the process may live on.

    An ignite handler of the exception would not do: of several only the first one is called, as it raises.

    Args:
        trainer: ignite's engine.
        folder: that of the training.
        weights: its file of the best weights.
    """
    run = trainer.run

    @wraps(run)
    def run_and_release(*args: Any, **options: Any) -> Any:
        try:
            return run(*args, **options)
        except BaseException:
            if not may_be_restarted():  # the lock's file tells the next process whose training it goes on with
                release_folder(folder, weights)
            raise

    trainer.run = run_and_release


def _require_own_name(folder: Path, weights: Path) -> None:
    file = weights.parent.resolve() / weights.name
    if file.parent == folder.resolve() and file.name in (STATE_NAME, HISTORY_NAME, LOCK_NAME):
        remedy = "pass another --ckpt_path, such as " + str(folder / "model.pt")
        raise InputError(weights, "is a file that the training writes itself", "a file for the weights only", remedy)


def _clear(folder: Path, weights: Path, left: dict[str, Any], resume: bool, overwrite: bool) -> list[str]:
    """Remove what a training that begins would mistake for its own; notes for the user."""
    goes_on = resume or (was_restarted() and _is_of_this_launch(left))
    kept = [path for path in (folder / STATE_NAME, folder / HISTORY_NAME, weights) if path.exists()]
    notes = [f"the best weights are written to {weights}"]
    if goes_on and folder / STATE_NAME in kept:
        return notes
    if kept and not overwrite:
        raise _holds_another(folder, kept)
    for path in kept:
        if _is_in(folder, path):
            path.unlink()
    if resume:
        notes.append(f"{folder} holds no {STATE_NAME}: the training starts from its beginning")
    return notes


def _is_in(folder: Path, file: Path) -> bool:
    return file.resolve().parent == folder.resolve()


def _is_of_this_launch(left: dict[str, Any]) -> bool:
    """Whether a lock's file was left by a process of the torchrun that has started this one."""
    return (left.get("parent"), left.get("host")) == (os.getppid(), socket.gethostname())


def _holds_another(folder: Path, kept: list[Path]) -> InputError:
    names = ", ".join(path.name if _is_in(folder, path) else str(path) for path in kept)
    resume = "--resume true to continue it, " if folder / STATE_NAME in kept else ""
    remedy = f"pass {resume}--overwrite true to lose it, or another --output_dir"
    if not _is_in(folder, kept[-1]):
        remedy += " and --ckpt_path"
    return InputError(folder, f"holds {names} of an earlier training", "a folder without one", remedy)


def is_served(bundle_root: str | os.PathLike) -> bool:
    """Whether a training was started by a MONAI Label server, for a bundle that the server has.

    The server trains again and again in the bundle's own folder and serves ``models/model.pt``. It sets no option of
    the config that would say so, but the variable MONAI_LABEL_APP_DIR.

    Args:
        bundle_root: the bundle's folder.

    Example:
        >>> is_served(".")
        False
    """
    app = os.environ.get("MONAI_LABEL_APP_DIR")
    return bool(app) and Path(str(bundle_root)).resolve().is_relative_to(Path(str(app)).resolve())


def place_weights(bundle_root: str | os.PathLike, output_dir: str | os.PathLike, name: str = "model.pt") -> str:
    """File that a training writes its best weights to: in ``output_dir``, or the shipped weights of a served bundle.

    Args:
        bundle_root: the bundle's folder.
        output_dir: folder of the training.
        name: name of the file.

    Example:
        >>> place_weights(".", "RUN")
        'RUN/model.pt'
    """
    folder = Path(str(bundle_root), "models") if is_served(bundle_root) else Path(str(output_dir))
    return str(folder / name)


def note_other_weights(output_dir: str | os.PathLike, ckpt_path: str | os.PathLike) -> list[str]:
    """A note where a run uses other weights than those that a training has written to its folder.

    Args:
        output_dir: folder of the run.
        ckpt_path: the weights that it uses.

    Example:
        >>> note_other_weights("/nowhere", "models/model.pt")
        []
    """
    own = Path(str(output_dir), Path(ckpt_path).name)
    if not own.exists() or own.resolve() == Path(ckpt_path).resolve():
        return []
    return [f"the weights are {ckpt_path}, not {own}: pass --ckpt_path {own} for those"]
