"""Numbers that a command line passes to a run: what is wrong with them, told with the option's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from ..errors import InputError

__all__ = [
    "check_ascending",
    "check_counts",
    "check_multiples",
    "check_positive",
    "check_ranges",
    "check_seed",
    "check_switches",
    "is_positive",
]


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < float("inf")


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_positive(value: Any) -> bool:
    """Whether a value is a finite number above 0.

    Example:
        >>> is_positive(0.5), is_positive("0.5"), is_positive(True)
        (True, False, False)
    """
    return _is_finite(value) and value > 0


def _require_each(options: Mapping[str, Any], fits: Callable[[Any], bool], expected: str) -> None:
    for name, value in options.items():
        if not fits(value):
            raise InputError(name, f"is {value!r}", expected, f"pass one with --{name}")


def check_positive(options: Mapping[str, Any]) -> None:
    """Make sure that options are numbers above 0.

    Args:
        options: by name.

    Raises:
        InputError: for the first that is none.

    Example:
        >>> check_positive({"spacing_mm": -1})
        Traceback (most recent call last):
        bundlekit.errors.InputError: spacing_mm: is -1; expected a number above 0; pass one with --spacing_mm
    """
    _require_each(options, is_positive, "a number above 0")


def check_counts(options: Mapping[str, Any]) -> None:
    """Make sure that options are whole numbers from 1 up.

    Args:
        options: by name.

    Raises:
        InputError: for the first that is none.

    Example:
        >>> check_counts({"max_epochs": 0})
        Traceback (most recent call last):
        bundlekit.errors.InputError: max_epochs: is 0; expected a whole number from 1 up; pass one with --max_epochs
    """
    _require_each(options, lambda value: _is_whole(value) and value >= 1, "a whole number from 1 up")


def check_ranges(options: Mapping[str, tuple[Any, float, float]]) -> None:
    """Make sure that options are numbers within bounds.

    Args:
        options: by name the number, its lowest and its highest value, both of which it may have.

    Raises:
        InputError: for the first that is none.

    Example:
        >>> check_ranges({"threshold": (2, 0, 1)})
        Traceback (most recent call last):
        bundlekit.errors.InputError: threshold: is 2; expected a number from 0 to 1; pass one with --threshold
    """
    for name, (number, low, high) in options.items():
        if not (_is_finite(number) and low <= number <= high):
            bounds = f"from {low:g} up" if high == float("inf") else f"from {low:g} to {high:g}"
            raise InputError(name, f"is {number!r}", f"a number {bounds}", f"pass one with --{name}")


def check_seed(value: Any) -> None:
    """Make sure that a number can seed NumPy and torch.

    Raises:
        InputError: unless it is a whole number of 32 bits, none below 0.

    Example:
        >>> check_seed(-1)
        Traceback (most recent call last):
        bundlekit.errors.InputError: seed: is -1; expected a whole number from 0 to 4294967295; pass one with --seed
    """
    _require_each(
        {"seed": value}, lambda seed: _is_whole(seed) and 0 <= seed < 2**32, f"a whole number from 0 to {2**32 - 1}"
    )


def check_switches(options: Mapping[str, Any]) -> None:
    """Make sure that options are True or False, and no words, which would all count as True.

    Args:
        options: by name.

    Raises:
        InputError: for the first that is not.

    Example:
        >>> check_switches({"network_def::batch_norm": "false"})
        Traceback (most recent call last):
        bundlekit.errors.InputError: network_def::batch_norm: is 'false'; expected True or False, with a capital; pass \
one with --network_def::batch_norm
    """
    _require_each(options, lambda value: isinstance(value, bool), "True or False, with a capital")


def check_ascending(options: Mapping[str, Any]) -> None:
    """Make sure that options are two numbers, the lower one first.

    Args:
        options: by name.

    Raises:
        InputError: for the first that is not.

    Example:
        >>> check_ascending({"window_hu": [400, -1000]})
        Traceback (most recent call last):
        bundlekit.errors.InputError: window_hu: is [400, -1000]; expected two numbers, the lower one first; pass them \
as --window_hu "[LOWER,UPPER]"
    """
    for name, value in options.items():
        pair = value if isinstance(value, list | tuple) and all(map(_is_finite, value)) else ()
        if len(pair) != 2 or pair[0] >= pair[1]:
            remedy = f'pass them as --{name} "[LOWER,UPPER]"'
            raise InputError(name, f"is {value!r}", "two numbers, the lower one first", remedy)


def check_multiples(options: Mapping[str, tuple[Any, Sequence[int] | int]]) -> None:
    """Make sure that options are whole numbers above 0, each a multiple of a step of its own.

    Args:
        options: by name the numbers and their steps, or one number and its step.

    Raises:
        InputError: for the first that is not.

    Example:
        >>> check_multiples({"patch_size": ([100, 100], [8, 8])})
        Traceback (most recent call last):
        bundlekit.errors.InputError: patch_size: is [100, 100]; expected 2 whole multiples of 8; pass them as \
--patch_size "[104,104]"
        >>> check_multiples({"margin": (20, 16)})
        Traceback (most recent call last):
        bundlekit.errors.InputError: margin: is 20; expected a whole multiple of 16; pass one as --margin 32
    """
    for name, (value, wanted) in options.items():
        single = isinstance(wanted, int)
        steps = [wanted] if isinstance(wanted, int) else wanted
        sizes = [value] if single else value if isinstance(value, list | tuple) else ()
        whole = all(_is_whole(size) and size > 0 for size in sizes)
        if not whole or len(sizes) != len(steps) or any(size % step for size, step in zip(sizes, steps, strict=True)):
            near = sizes if whole and len(sizes) == len(steps) else [64] * len(steps)
            some = ",".join(str(-(-size // step) * step) for size, step in zip(near, steps, strict=True))
            multiples = " and ".join(map(str, dict.fromkeys(steps)))
            expected = f"a whole multiple of {wanted}" if single else f"{len(steps)} whole multiples of {multiples}"
            remedy = f"pass one as --{name} {some}" if single else f'pass them as --{name} "[{some}]"'
            raise InputError(name, f"is {value!r}", expected, remedy)
