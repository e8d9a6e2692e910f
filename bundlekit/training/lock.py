"""Locks of a folder and of a file of weights, so that only one training at a time writes there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["LOCK_NAME", "lock_folder", "lock_weights", "unlock_folder", "unlock_weights"]

LOCK_NAME = ".training.lock"
BEAT_S = 30
"""From one sign of life of a training to the next: it changes the time of its lock's file."""
LAPSE_S = 4 * BEAT_S

_held: dict[Path, tuple[int, threading.Event]] = {}


def lock_folder(folder: str | os.PathLike) -> dict[str, Any]:
    """Lock a folder until this process ends, or until :func:`unlock_folder`.

    The lock is the operating system's, a POSIX record lock on a file in the folder, and goes with the process however
    that ends. The file says who holds it. Of a training on another machine the lock may not be seen here, nor any where
    the file system has none; the time of the file's last change then tells whether that training is alive. A process
    may lock a folder again.

    Args:
        folder: it exists and can be written.

    Returns:
        What the last holder has left in the file where it did not unlock, ``{"pid", "parent", "host"}``; else nothing.

    Raises:
        InputError: where another process holds the lock.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> lock_folder(folder), os.listdir(folder)
        ({}, ['.training.lock'])
        >>> unlock_folder(folder)
        >>> os.listdir(folder)
        []
    """
    return _lock(_lock_of_folder(folder))


def lock_weights(weights: str | os.PathLike) -> None:
    """Lock a file of weights in the same way, as trainings in different folders may write to the same one.

    Args:
        weights: the file, which need not exist; its folder does and can be written.

    Raises:
        InputError: where another process holds the lock.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> lock_weights(folder + "/model.pt")
        >>> os.listdir(folder)
        ['.training.model.pt.lock']
        >>> unlock_weights(folder + "/model.pt")
        >>> os.listdir(folder)
        []
    """
    _lock(_lock_of_weights(weights))


def unlock_folder(folder: str | os.PathLike) -> None:
    """Release the lock of a folder, if this process holds it, and remove its file."""
    _unlock(_lock_of_folder(folder))


def unlock_weights(weights: str | os.PathLike) -> None:
    """Release the lock of a file of weights, if this process holds it, and remove the lock's file."""
    _unlock(_lock_of_weights(weights))


def _lock_of_folder(folder: str | os.PathLike) -> Path:
    return Path(folder).resolve() / LOCK_NAME


def _lock_of_weights(weights: str | os.PathLike) -> Path:
    weights = Path(weights)
    return weights.parent.resolve() / f".training.{weights.name}.lock"  # a link is replaced, not what it points to


def _lock(path: Path) -> dict[str, Any]:
    if path in _held:
        return {}
    file, is_locked = _open(path)
    owner = _read(file)
    here = socket.gethostname()
    if owner and not (is_locked and owner.get("host") == here):
        age = _age_s(path)
        if age < LAPSE_S:
            os.close(file)
            raise _in_future(path, owner, -age) if age < -BEAT_S else _in_use(path, owner, is_seen=False)
    own = {"pid": os.getpid(), "parent": os.getppid(), "host": here}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(own).encode(), 0)
    ended = threading.Event()
    threading.Thread(target=_beat, args=(path, ended), daemon=True).start()
    _held[path] = file, ended
    return owner


def _unlock(path: Path) -> None:
    if path in _held:
        file, ended = _held.pop(path)
        ended.set()
        path.unlink(missing_ok=True)  # first, or it might be the next holder's
        os.close(file)


def _open(path: Path) -> tuple[int, bool]:
    """The lock's file, and whether it is locked; False where the file system has no locks."""
    while True:
        file = _open_file(path)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            owner = _read(file)
            os.close(file)
            raise _in_use(path, owner) from None
        except OSError:
            return file, False
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file, True
        os.close(file)  # its holder has removed it meanwhile


def _open_file(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:  # as of a lock that another user's training has left, or of a folder
        found = f"cannot be opened ({error.strerror})"
        raise InputError(path, found, "a file that a training locks", _removal(path)) from error


def _read(file: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(file, 10_000, 0))
    except ValueError:  # empty, or cut short by a kill
        return {}
    return found if isinstance(found, dict) else {}


def _age_s(path: Path) -> float:
    """Seconds since a file's last change, by the clock of its file system."""
    with tempfile.NamedTemporaryFile(dir=path.parent) as probe:
        return os.stat(probe.name).st_mtime - path.stat().st_mtime


def _elsewhere(path: Path) -> str:
    return f"or pass another {'--output_dir' if path.name == LOCK_NAME else '--ckpt_path'}"


def _removal(path: Path) -> str:
    return f"remove it if no training runs there, {_elsewhere(path)}"


def _in_use(path: Path, owner: dict[str, Any], is_seen: bool = True) -> InputError:
    who = f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"
    remedy = f"wait until it has ended{'' if is_seen else f', {LAPSE_S} s where it was killed'}, {_elsewhere(path)}"
    if path.name == LOCK_NAME:
        return InputError(path.parent, f"{who} trains here", "a folder for each training", remedy)
    weights = path.with_name(path.name.removeprefix(".training.").removesuffix(".lock"))
    return InputError(weights, f"{who} writes its best weights here", "a file for each training", remedy)


def _in_future(path: Path, owner: dict[str, Any], seconds: float) -> InputError:
    """Of a lock whose time tells nothing, as where a clock was wrong."""
    found = f"of process {owner.get('pid')} on {owner.get('host')}, has a time {seconds:.0f} s in the future"
    return InputError(path, found, "one of the past", _removal(path))


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)
