"""The folder of a training: what an earlier one has left there, and where the weights go."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..processes import was_restarted
from .lock import lock_folder, unlock_folder

__all__ = ["HISTORY_NAME", "STATE_NAME", "claim_folder", "is_served", "note_other_weights", "place_weights"]

STATE_NAME, HISTORY_NAME = "state.pt", "history.json"


def claim_folder(
    folder: str | os.PathLike, weights: str | os.PathLike, resume: bool = False, overwrite: bool = False
) -> list[str]:
    """Lock the folder of a training that begins or goes on, and make sure that no other training's files are lost.

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
        InputError: where the folder is another running training's, or holds a training's files that the user does not
            mention.

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
    left = lock_folder(folder)
    goes_on = resume or (was_restarted() and _is_of_this_launch(left))
    kept = [path for path in (folder / STATE_NAME, folder / HISTORY_NAME, weights) if path.exists()]
    notes = [f"the best weights are written to {weights}"]
    if goes_on and folder / STATE_NAME in kept:
        return notes
    if kept and not overwrite:
        unlock_folder(folder)
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
