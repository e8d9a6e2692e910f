"""The error that all checks raise, with the fields FILE, FOUND, EXPECTED and REMEDY."""

from __future__ import annotations

import os
import textwrap

__all__ = ["InputError", "InputNote", "describe"]


class InputError(ValueError):
    """An input that a run cannot use, as the one line ``FILE: FOUND; expected EXPECTED; REMEDY``.

    Args:
        file: the file or folder at fault.
        found: what is there instead of what was expected.
        expected: what is accepted there.
        remedy: how to correct it.

    Example:
        >>> print(InputError("a.png", "is empty", "an image", "copy it again"))
        a.png: is empty; expected an image; copy it again
    """

    def __init__(self, file: str | os.PathLike, found: str, expected: str, remedy: str) -> None:
        super().__init__(f"{file}: {found}; expected {expected}; {remedy}")


class InputNote(InputError):
    """An input that a run can use and that may still be a mistake, in the same form.

    Example:
        >>> print(InputNote("label.nii", "has only background", "labels", "draw them"))
        label.nii: has only background; expected labels; draw them
    """


def describe(error: Exception) -> str:
    """The type of an exception and the first line of its text, in at most 100 characters.

    Args:
        error: the exception; its text may not be enough, such as the key that is a KeyError's text.

    Example:
        >>> describe(KeyError(101)), describe(ValueError()), describe(ValueError("No.\\nSee below"))
        ('KeyError: 101', 'ValueError', 'ValueError: No.')
    """
    lines = [type(error).__name__, *str(error).strip().splitlines()[:1]]
    return textwrap.shorten(": ".join(lines), 100)
