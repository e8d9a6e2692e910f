"""Checks of files and folders, checksums, and atomic writes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import InputError

__all__ = ["compute_sha256", "require_file", "require_writable_folder", "write_atomically"]


def compute_sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits.

    Args:
        path: the file.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/empty"
        >>> open(path, "wb").close()
        >>> compute_sha256(path)[:16]
        'e3b0c44298fc1c14'
    """
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def require_file(path: str | os.PathLike, remedy: str) -> None:
    """Make sure that ``path`` is a file that can be opened and holds at least one byte.

    Args:
        path: the file.
        remedy: what to do where it is not.

    Raises:
        InputError: where the file is missing, a folder, empty, or not to be read by this user.

    Example:
        >>> require_file("/nowhere/a.png", "correct the path")
        Traceback (most recent call last):
        bundlekit.errors.InputError: /nowhere/a.png: cannot be opened (No such file or directory); expected a file; \
correct the path
    """
    try:
        with open(path, "rb") as file:
            empty = not file.read(1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(path, f"cannot be opened ({reason})", "a file", remedy) from error
    if empty:
        raise InputError(path, "is empty (0 bytes)", "a file with content", remedy)


def require_writable_folder(path: str | os.PathLike, remedy: str) -> None:
    """Create the folder ``path`` where it is missing, and create a file in it that vanishes at once.

    Trying is the only sure test: permission bits mean nothing to root or on a read-only file system.

    Args:
        path: the folder.
        remedy: what to do where it cannot be written.

    Raises:
        InputError: where the folder cannot be created or written.

    Example:
        >>> folder = Path(tempfile.mkdtemp(), "a", "b")
        >>> require_writable_folder(folder, "choose another")
        >>> list(folder.iterdir())
        []
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=str(path)).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            path, f"cannot be created or written ({reason})", "a folder that this user may write", remedy
        ) from error


def write_atomically(path: str | os.PathLike, write: Callable[[Path], Any]) -> None:
    """Write to a temporary file next to ``path`` and move it there when it is complete and on the disk.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> write_atomically(folder + "/a.txt", lambda part: part.write_text("done"))
        >>> os.listdir(folder)
        ['a.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    try:
        os.close(handle)
        write(Path(name))
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes files that only their owner may read
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
