"""Parses and formats amounts of memory."""

from __future__ import annotations

import re

__all__ = ["format_bytes", "parse_bytes"]

_UNITS = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_SPELLING = {unit.lower(): factor for unit, factor in _UNITS.items()}


def parse_bytes(text: str, name: str = "memory") -> int:
    """Number of bytes that a word such as "8GiB" or "7.5 GB" says.

    Args:
        text: a number and a unit; GiB counts in powers of 1024, GB in powers of 1000. Upper or lower case.
        name: of the setting, for the message.

    Raises:
        ValueError: when it is not a positive number with a unit.

    Example:
        >>> parse_bytes("8GiB"), parse_bytes("1.5 kb")
        (8589934592, 1500)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*", text.lower())
    amount = 0 if match is None else float(match[1]) * _SPELLING.get(match[2], 0)
    if not 1 <= amount < float("inf"):
        raise ValueError(
            f"{name} is {text!r}; expected a positive number and one of the units {', '.join(_UNITS)}: such as 8GiB"
        )
    return int(amount)


def format_bytes(number: int) -> str:
    """``number`` bytes in MiB below 10 GiB, in GiB from there.

    Example:
        >>> format_bytes(3 * 2**19), format_bytes(12 * 2**30)
        ('1.5 MiB', '12.0 GiB')
    """
    if number < 10 * 2**30:
        mib = number / 2**20
        return f"{mib:.1f} MiB" if mib < 100 else f"{mib:.0f} MiB"
    return f"{number / 2**30:.1f} GiB"
