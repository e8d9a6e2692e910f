"""On and off, as people write it on a command line."""

from __future__ import annotations

from ..errors import InputError

__all__ = ["is_on"]


def is_on(value: bool | str) -> bool:
    """Read a switch: a bool, or the words true and false, which `monai.bundle run` hands over as text.

    Raises:
        SystemExit: when ``value`` is anything else.

    Example:
        >>> is_on("true"), is_on("False"), is_on(True)
        (True, False, True)
    """
    words = {"true": True, "false": False}
    if str(value).lower() not in words:
        error = InputError("a switch", f"is {value!r}", "true or false", "correct the option that was passed so")
        raise SystemExit(f"error: {error}")
    return words[str(value).lower()]
