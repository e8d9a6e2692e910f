"""On and off, as people write it on a command line."""

from __future__ import annotations

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
        raise SystemExit(f"a switch (--amp, --resume, --tta, ...) is {value!r}; expected true or false")
    return words[str(value).lower()]
