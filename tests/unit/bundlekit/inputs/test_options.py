"""Options of a command line, right and wrong, against the rules that a config declares."""

from __future__ import annotations

import numpy as np
import pytest

from bundlekit.inputs.options import check_options, usable_seed

NO_NUMBERS = [True, "3", None, float("nan"), float("inf")]


def faults(value, **rule) -> list[str]:
    return [str(error) for error in check_options({"a": {"value": value, **rule}})]


RIGHT = [
    ({"above": 0}, [0.1, 3, np.float32(0.5)]),
    ({"at_least": 0}, [0, 10**9, 0.5]),
    ({"range": [0, 1]}, [0, 0.5, 1.0]),
    ({"integer_from": 1}, [1, 500, np.int64(180)]),
    ({"integer_from": 0}, [0, 4]),
    ({"seed": True}, [0, 2**32 - 1, np.int64(7)]),
    ({"boolean": True}, [True, False]),
    ({"switch": True}, [True, False, "true", "False"]),
    ({"ascending": True}, [[-1000, 400], (0.5, 1)]),
    ({"multiple_of": [8, 8]}, [[128, 8]]),
    ({"multiple_of": (1, 16)}, [(3, 32)]),
    ({"multiple_of": 16}, [16, 512]),
    ({"numbers": 2}, [[-0.25, 1], (0, np.float32(3))]),
    ({"one_of": ["a", "b"]}, ["a", "b"]),
]
WRONG = [
    ({"above": 0}, [*NO_NUMBERS, 0, -1.5], "a number above 0"),
    ({"at_least": 0}, [*NO_NUMBERS, -1], "a number of at least 0"),
    ({"range": [0, 1]}, [*NO_NUMBERS, -0.1, 1.1, [0.5]], "a number from 0 to 1"),
    ({"integer_from": 1}, [*NO_NUMBERS, 0, -1, 2.0, [1]], "a positive integer"),
    ({"integer_from": 0}, [*NO_NUMBERS, -1, 0.5], "an integer of at least 0"),
    ({"seed": True}, [*NO_NUMBERS, -1, 0.5, 2**32, "abc"], "an integer from 0 to 4294967295"),
    ({"boolean": True}, ["true", "false", "no", 0, 1, None], "True or False (capitalised)"),
    ({"switch": True}, ["no", "", 0, 1, None], "true or false"),
    ({"one_of": ["a", "b"]}, ["ab", "", None, 0], "one of a, b"),
]


@pytest.mark.parametrize(("rule", "values"), RIGHT, ids=str)
def test_right_values_pass(rule, values):
    assert [fault for value in values for fault in faults(value, **rule)] == []


@pytest.mark.parametrize(("rule", "values", "expected"), WRONG, ids=str)
def test_wrong_values_are_reported(rule, values, expected):
    for value in values:
        assert faults(value, **rule) == [f"a: is {value!r}; expected {expected}; pass another --a"]


@pytest.mark.parametrize("value", [5, "12", [], [1], [1, 2, 3], *([0, bad] for bad in NO_NUMBERS)], ids=str)
def test_what_is_not_two_numbers(value):
    remedy = 'pass --a "[0,0]", with your numbers'
    assert faults(value, numbers=2) == [f"a: is {value!r}; expected 2 numbers; {remedy}"]


@pytest.mark.parametrize(
    "value", [5, "ab", [], [1], [1, 2, 3], [400, -1000], [7, 7], *([0, bad] for bad in NO_NUMBERS)], ids=str
)
def test_what_is_not_ascending(value):
    remedy = 'pass --a "[LOWER,UPPER]"'
    assert faults(value, ascending=True) == [f"a: is {value!r}; expected two numbers, the lower one first; {remedy}"]


@pytest.mark.parametrize(
    "value", [128, "128", [], [128], [128, 0], [128, -8], [128, 100], [128.0, 128.0], [8, 8, 8], [True, 8]], ids=str
)
def test_what_is_no_multiple(value):
    nearest = "[128,104]" if value == [128, 100] else "[64,64]"
    assert faults(value, multiple_of=[8, 8]) == [
        f'a: is {value!r}; expected 2 positive multiples of 8; pass --a "{nearest}"'
    ]


@pytest.mark.parametrize("value", [*NO_NUMBERS[:4], 0, -16, 20, 16.0, [16]])
def test_what_is_no_single_multiple(value):
    nearest = 32 if value == 20 else 64
    assert faults(value, multiple_of=16) == [f"a: is {value!r}; expected a positive multiple of 16; pass --a {nearest}"]


def test_sizes_without_a_step_are_positive_integers():
    [fault] = faults([0, 3], multiple_of=[1, 1])
    assert fault.endswith('expected 2 positive integers; pass --a "[64,64]"')


def test_a_value_may_be_missing_where_the_config_says_so():
    assert faults(None, integer_from=1, or_null=True) == [] and len(faults(0, integer_from=1, or_null=True)) == 1


def test_all_wrong_options_are_reported_in_their_order():
    options = {"b": {"value": 0, "above": 0}, "c": {"value": 1, "above": 0}, "a": {"value": "x", "switch": True}}
    assert [str(error).split(":")[0] for error in check_options(options)] == ["b", "a"]


@pytest.mark.parametrize("rule", [{}, {"abov": 0}, {"above": 0, "range": [0, 1]}])
def test_a_declaration_without_one_known_rule_is_a_mistake_of_the_config(rule):
    with pytest.raises(ValueError, match="option 'a' declares the rules"):
        faults(1, **rule)


@pytest.mark.parametrize("value", [*NO_NUMBERS, -1, 0.5, 2**32, "abc"])
def test_what_cannot_be_a_seed_is_replaced(value):
    assert usable_seed(value) == 0


def test_a_seed_is_kept():
    assert [usable_seed(value) for value in (0, 7, np.int64(2**32 - 1))] == [0, 7, 2**32 - 1]
