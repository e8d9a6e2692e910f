"""Numbers of a command line, right and wrong."""

from __future__ import annotations

import pytest

from bundlekit.errors import InputError
from bundlekit.inputs.options import (
    check_ascending,
    check_counts,
    check_multiples,
    check_positive,
    check_ranges,
    check_seed,
    check_switches,
)

NO_NUMBERS = [True, "3", None, float("nan"), float("inf")]


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, -1.5])
def test_what_is_not_above_0(value):
    check_positive({"a": 0.1, "b": 3})
    with pytest.raises(InputError, match=r"^b: is .*; expected a number above 0; pass one with --b$"):
        check_positive({"a": 1, "b": value})


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, -1, 2.0, [1]])
def test_what_is_no_count(value):
    check_counts({"a": 1, "b": 500})
    with pytest.raises(InputError, match=r"^b: is .*; expected a whole number from 1 up; pass one with --b$"):
        check_counts({"a": 1, "b": value})


@pytest.mark.parametrize("value", ["true", "false", "no", 0, 1, None])
def test_what_is_no_switch(value):
    check_switches({"a": True, "b": False})
    with pytest.raises(InputError, match=r"^b: is .*; expected True or False, with a capital; pass one with --b$"):
        check_switches({"a": True, "b": value})


@pytest.mark.parametrize("value", [*NO_NUMBERS, -1, 0.5, 2**32])
def test_what_is_no_seed(value):
    check_seed(0)
    check_seed(2**32 - 1)
    with pytest.raises(InputError, match=r"^seed: is .*; expected a whole number from 0 to 4294967295; "):
        check_seed(value)


@pytest.mark.parametrize(
    "value", [5, "ab", [], [1], [1, 2, 3], [400, -1000], [7, 7], *([0, bad] for bad in NO_NUMBERS)], ids=str
)
def test_what_is_no_range(value):
    check_ascending({"a": [-1000, 400], "b": (0.5, 1)})
    with pytest.raises(InputError, match=r"^a: is .*; expected two numbers, the lower one first; pass them as --a "):
        check_ascending({"a": value})


@pytest.mark.parametrize(
    "value", [128, "128", [], [128], [128, 0], [128, -8], [128, 100], [128.0, 128.0], [8, 8, 8], [True, 8]], ids=str
)
def test_what_is_no_multiple(value):
    check_multiples({"a": ([128, 8], [8, 8]), "b": ((3, 32), (1, 16))})
    nearest = r"\[128,104\]" if value == [128, 100] else r"\[64,64\]"
    with pytest.raises(InputError, match=rf'^a: is .*; expected 2 whole multiples of 8; pass them as --a "{nearest}"'):
        check_multiples({"a": (value, [8, 8])})


@pytest.mark.parametrize("value", [*NO_NUMBERS[:4], 0, -16, 20, 16.0, [16]])
def test_what_is_no_multiple_alone(value):
    check_multiples({"a": (16, 16), "b": (512, 32)})
    nearest = 32 if value == 20 else 64
    with pytest.raises(InputError, match=rf"^a: is .*; expected a whole multiple of 16; pass one as --a {nearest}$"):
        check_multiples({"a": (value, 16)})


@pytest.mark.parametrize("value", [*NO_NUMBERS, -0.1, 1.1, [0.5]])
def test_what_is_out_of_range(value):
    check_ranges({"a": (0, 0, 1), "b": (1.0, 0, 1), "c": (10**9, 0, float("inf"))})
    with pytest.raises(InputError, match=r"^b: is .*; expected a number from 0 to 1; pass one with --b$"):
        check_ranges({"a": (0.5, 0, 1), "b": (value, 0, 1)})


def test_a_range_without_an_end():
    with pytest.raises(InputError, match=r"^a: is -1; expected a number from 0 up; "):
        check_ranges({"a": (-1, 0, float("inf"))})
