"""Files and folders that a run needs, and the one form in which all checks report what is wrong."""

from __future__ import annotations

import os
import tempfile
import textwrap
from pathlib import Path

__all__ = ["InputError", "InputNote", "describe", "require_file", "require_writable_folder"]


class InputError(ValueError):
    """An input that a run cannot use, as the one line ``FILE: FOUND; expected EXPECTED; REMEDY``.

    Args:
        file: the file or folder at fault.
        found: what is there instead of what was expected.
        expected: what would have been right.
        remedy: what to do about it.

    Example:
        >>> print(InputError("a.png", "is empty", "an image", "copy it again"))
        a.png: is empty; expected an image; copy it again
    """

    def __init__(self, file: str | os.PathLike, found: str, expected: str, remedy: str) -> None:
        super().__init__(f"{file}: {found}; expected {expected}; {remedy}")


class InputNote(InputError):
    """An input that a run can use and that may still be a mistake, in the same form.

    Example:
        >>> print(InputNote("label.nii", "holds background alone", "labels", "draw them"))
        label.nii: holds background alone; expected labels; draw them
    """


def describe(error: Exception) -> str:
    """The type of an exception and the first line of its text, in at most 100 characters.

    Args:
        error: the exception; its text alone may say nothing, as a KeyError's is only the key.

    Example:
        >>> describe(KeyError(101)), describe(ValueError()), describe(ValueError("No.\\nSee below"))
        ('KeyError: 101', 'ValueError', 'ValueError: No.')
    """
    lines = [type(error).__name__, *str(error).strip().splitlines()[:1]]
    return textwrap.shorten(": ".join(lines), 100)


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
        bundlekit.files.InputError: /nowhere/a.png: cannot be opened (No such file or directory); expected a file; \
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
