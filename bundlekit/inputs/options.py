"""Options of a run: the rules that a config declares for them, and what is wrong with the values that were passed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from ..errors import InputError

__all__ = ["check_options", "is_on", "is_positive", "is_switch", "usable_seed"]

_WORDS = {"true": True, "false": False}
_LAST_SEED = 2**32 - 1  # NumPy's


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < float("inf")


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_positive(value: Any) -> bool:
    """Whether a value is a finite number above 0.

    Example:
        >>> is_positive(0.5), is_positive("0.5"), is_positive(True)
        (True, False, False)
    """
    return _is_finite(value) and value > 0


def is_switch(value: Any) -> bool:
    """Whether a value is True, False, or one of these words in any case."""
    return str(value).lower() in _WORDS


def is_on(value: Any) -> bool:
    """Whether a switch is on: True, or the word true, which a command line passes as text.

    Any other value than the two words and the two bools counts as off; the rule "switch" of an option reports it.

    Example:
        >>> is_on("true"), is_on("False"), is_on(True), is_on("maybe")
        (True, False, True, False)
    """
    return _WORDS.get(str(value).lower(), False)


def usable_seed(value: Any) -> int:
    """The seed, or 0 in place of a value that cannot be one; the rule "seed" of an option reports it.

    Example:
        >>> usable_seed(7), usable_seed("abc")
        (7, 0)
    """
    return int(value) if _is_integer(value) and 0 <= value <= _LAST_SEED else 0


def _integer_from(name: str, value: Any, lowest: int) -> str | None:
    expected = "a positive integer" if lowest == 1 else f"an integer of at least {lowest}"
    return None if _is_integer(value) and value >= lowest else expected


def _above(name: str, value: Any, limit: float) -> str | None:
    return None if _is_finite(value) and value > limit else f"a number above {limit:g}"


def _at_least(name: str, value: Any, lowest: float) -> str | None:
    return None if _is_finite(value) and value >= lowest else f"a number of at least {lowest:g}"


def _range(name: str, value: Any, bounds: Sequence[float]) -> str | None:
    low, high = bounds
    return None if _is_finite(value) and low <= value <= high else f"a number from {low:g} to {high:g}"


def _seed(name: str, value: Any, _: bool) -> str | None:
    return None if _is_integer(value) and 0 <= value <= _LAST_SEED else f"an integer from 0 to {_LAST_SEED}"


def _boolean(name: str, value: Any, _: bool) -> str | None:
    return None if isinstance(value, bool) else "True or False (capitalised)"


def _switch(name: str, value: Any, _: bool) -> str | None:
    return None if is_switch(value) else "true or false"


def _ascending(name: str, value: Any, _: bool) -> tuple[str, str] | None:
    pair = value if isinstance(value, list | tuple) and all(map(_is_finite, value)) else ()
    if len(pair) == 2 and pair[0] < pair[1]:
        return None
    return "two numbers, the lower one first", f'pass --{name} "[LOWER,UPPER]"'


def _numbers(name: str, value: Any, count: int) -> tuple[str, str] | None:
    if isinstance(value, list | tuple) and len(value) == count and all(map(_is_finite, value)):
        return None
    return f"{count} numbers", f'pass --{name} "[{",".join("0" * count)}]", with your numbers'


def _one_of(name: str, value: Any, allowed: Sequence[Any]) -> str | None:
    return None if value in allowed else f"one of {', '.join(map(str, allowed))}"


def _multiple_of(name: str, value: Any, step: int | Sequence[int]) -> tuple[str, str] | None:
    single = isinstance(step, int)
    steps: Sequence[int] = [step] if isinstance(step, int) else step
    sizes = [value] if single else value if isinstance(value, list | tuple) else ()
    right_kind = len(sizes) == len(steps) and all(_is_integer(size) and size > 0 for size in sizes)
    if right_kind and not any(size % step for size, step in zip(sizes, steps, strict=True)):
        return None
    nearest = sizes if right_kind else [64] * len(steps)
    fitting = ",".join(str(-(-size // step) * step) for size, step in zip(nearest, steps, strict=True))
    if single:
        return f"a positive multiple of {step}", f"pass --{name} {fitting}"
    factors = " and ".join(map(str, dict.fromkeys(steps)))
    kind = "positive integers" if factors == "1" else f"positive multiples of {factors}"
    return f"{len(steps)} {kind}", f'pass --{name} "[{fitting}]"'


_RULES = {
    "above": _above,
    "ascending": _ascending,
    "at_least": _at_least,
    "boolean": _boolean,
    "integer_from": _integer_from,
    "multiple_of": _multiple_of,
    "numbers": _numbers,
    "one_of": _one_of,
    "range": _range,
    "seed": _seed,
    "switch": _switch,
}


def check_options(options: Mapping[str, Mapping[str, Any]]) -> Iterator[InputError]:
    """What is wrong with the options of a run.

    Args:
        options: by the name that the command line uses, ``{"value": ..., RULE: ARGUMENT}`` with one of the rules

            - ``above``: a number above the argument; ``at_least``: one that may be equal to it,
            - ``range``: a number within the two bounds, both included,
            - ``integer_from``: an integer of at least the argument,
            - ``multiple_of``: a positive multiple of the argument, or a list of them where that is a list,
            - ``numbers``: a list of that many numbers; ``one_of``: one of the values in the argument,
            - ``ascending`` (true): two numbers, the lower one first,
            - ``switch`` (true): true or false, as a word or a bool; ``boolean`` (true): a bool and no word,
            - ``seed`` (true): an integer that can seed NumPy and torch,

            and ``"or_null": true`` where the value may be missing.

    Raises:
        ValueError: for a declaration without exactly one known rule.

    Example:
        >>> options = {"threshold": {"value": 2, "range": [0, 1]}, "margin": {"value": 20, "multiple_of": 16}}
        >>> for error in check_options(options):
        ...     print(error)
        threshold: is 2; expected a number from 0 to 1; pass another --threshold
        margin: is 20; expected a positive multiple of 16; pass --margin 32
    """
    for name, declared in options.items():
        rules = declared.keys() - {"value", "or_null"}
        if len(rules) != 1 or not rules <= _RULES.keys():
            raise ValueError(f"option {name!r} declares the rules {sorted(rules)}; expected one of {sorted(_RULES)}")
        [rule] = rules
        value = declared["value"]
        if value is None and declared.get("or_null"):
            continue
        fault = _RULES[rule](name, value, declared[rule])  # type: ignore[operator]
        if fault is not None:
            expected, remedy = fault if isinstance(fault, tuple) else (fault, f"pass another --{name}")
            yield InputError(name, f"is {value!r}", expected, remedy)
