"""Paths on the command line of ``python -m monai.bundle run`` that a run would take for something else.

Fire reads a word as a Python literal where it can: 1.10 is the number 1.1, 2024_01_15 is 20240115, and # begins a
comment. MONAI then takes what begins with $, @ or % for an expression, a reference or a macro, and # for ``::``.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..processes import gather, is_main_process

__all__ = ["find_misread_paths", "path_of", "require_plain_paths"]

_ENDINGS = ("_dir", "_path", "_root", "_uri", "_weights")
_OR_NONE = ("cache_dir", "encoder_weights", "pretrained_path")
"""Paths that a run can do without, which None then stands for."""
_MARKS = {"$": "an expression", "@": "a reference", "%": "a macro"}
_PROGRAM = ("monai", "bundle", "__main__.py")


def _words() -> list[str]:
    """The words behind ``python -m monai.bundle``; none in any other program."""
    return sys.argv[1:] if Path(sys.argv[0]).parts[-3:] == _PROGRAM else []


def _options(words: Sequence[str]) -> dict[str, str | None]:
    """The options among the words as Fire finds them, by name; None where no value follows."""
    found: dict[str, str | None] = {}
    for word, follower in zip(words, [*words, "--"][1:], strict=True):
        if word.startswith("-") and not word[1:2].isdigit():
            name, equals, value = word.lstrip("-").partition("=")
            has_value = not follower.startswith("-") or follower[1:2].isdigit()
            found[name.replace("-", "_")] = value if equals else follower if has_value else None
    return found


def _read(word: str) -> Any:
    """What Fire makes of a word."""
    from fire.parser import DefaultParseValue  # there where a command line is

    with warnings.catch_warnings(action="ignore"):  # Fire itself has shown them
        return DefaultParseValue(word)


def _misread_as(name: str, word: str) -> str | None:
    """What a word is taken for in place of the path that it is; None where it is taken for that path."""
    value = _read(word)
    if value is None and name in _OR_NONE:
        return None
    if not isinstance(value, str):
        return None if type(value) in (int, float) and str(value) == word else repr(value)
    if value != word and word[:1] not in ("'", '"'):  # in quotes of its own it is meant as text
        return repr(value)
    if "#" in value:
        return repr(value.replace("#", "::"))
    return _MARKS.get(value[:1]) if value else "no name"


def find_misread_paths(words: Sequence[str]) -> Iterator[InputError]:
    """What is wrong with the options for folders and files among the words of a command line.

    Args:
        words: those behind ``python -m monai.bundle``. Options that end with _dir, _path, _root, _uri or _weights
            count, with or without the ids that they are in, as ``--checks::output_dir``.

    Example:
        >>> [error] = find_misread_paths(["run", "--output_dir", "1.10"])
        >>> print(error)
        --output_dir 1.10: is taken for 1.1; expected a path that is taken as it is typed; write --output_dir ./1.10
    """
    for name, word in _options(words).items():
        last = name.replace("#", "::").split("::")[-1]
        if not last.endswith(_ENDINGS):
            continue
        if word is None:
            yield InputError(f"--{name}", "has no value", "a path", f"write the path behind --{name}")
            continue
        misread = _misread_as(last, word)
        if misread is not None:
            remedy = f"write --{name} ./{word}"
            if "#" in word:
                remedy = "use a name without #"
            elif not word:
                remedy = f"write the path behind --{name}"
            expected = "a path that is taken as it is typed"
            yield InputError(f"--{name} {word}", f"is taken for {misread}", expected, remedy)


def require_plain_paths() -> None:
    """End ``python -m monai.bundle run`` where a folder or file that was typed is taken for something else.

    For the list "initialize" of a config, before anything is resolved. In other programs it does nothing.

    Raises:
        SystemExit: with code 1, after the reasons were printed on stderr.
    """
    errors = list(find_misread_paths(_words()))
    if not errors:
        return
    if is_main_process():
        for error in errors:
            print(f"error: {error}", file=sys.stderr, flush=True)
    gather(None)  # torchrun stops the process that prints where another one ends first
    raise SystemExit(1)


def path_of(value: Any) -> str:
    """The path that a config's value stands for: a text, a path, an integer, or a number as it was typed.

    Raises:
        InputError: for any other value, such as the number 1.1 that a YAML file has for 1.10; and for a new path with
            ``::``, which MONAI puts in the place of #.

    Example:
        >>> path_of(Path("a/b")), path_of(77)
        ('a/b', '77')
    """
    text = str(value)
    is_typed = type(value) is float and text in _options(_words()).values()
    if not (isinstance(value, str | os.PathLike) or type(value) is int or is_typed):
        raise InputError(text, f"is of type {type(value).__name__}", "a path", "write it in quotes in the config")
    if "::" in text and not os.path.exists(text):
        remedy = "use a name without #"
        raise InputError(text, "has ::, which MONAI puts in the place of #", "a path that it leaves as it is", remedy)
    return text
