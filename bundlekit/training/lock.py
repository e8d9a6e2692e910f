"""Lock of a folder, so that only one training at a time writes there."""

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

__all__ = ["LOCK_NAME", "lock_folder", "unlock_folder"]

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
    path = Path(folder).resolve() / LOCK_NAME
    if path in _held:
        return {}
    file, is_locked = _open(path)
    owner = _read(file)
    here = socket.gethostname()
    if owner and not (is_locked and owner.get("host") == here) and _age_s(path) < LAPSE_S:
        os.close(file)
        raise _in_use(path, owner, f"wait until it has ended, {LAPSE_S} s where it was killed")
    own = {"pid": os.getpid(), "parent": os.getppid(), "host": here}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(own).encode(), 0)
    ended = threading.Event()
    threading.Thread(target=_beat, args=(path, ended), daemon=True).start()
    _held[path] = file, ended
    return owner


def unlock_folder(folder: str | os.PathLike) -> None:
    """Release the lock of a folder, if this process holds it, and remove its file."""
    path = Path(folder).resolve() / LOCK_NAME
    if path in _held:
        file, ended = _held.pop(path)
        ended.set()
        path.unlink(missing_ok=True)  # first, or it might be the next holder's
        os.close(file)


def _open(path: Path) -> tuple[int, bool]:
    """The lock's file, and whether it is locked; False where the file system has no locks."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            owner = _read(file)
            os.close(file)
            raise _in_use(path, owner, "wait until it has ended") from None
        except OSError:
            return file, False
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file, True
        os.close(file)  # its holder has removed it meanwhile


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


def _in_use(path: Path, owner: dict[str, Any], remedy: str) -> InputError:
    who = f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"
    remedy += ", or pass another --output_dir"
    return InputError(path.parent, f"{who} trains here", "a folder for each training", remedy)


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)
