"""Switches as they are typed."""

from __future__ import annotations

import pytest

from bundlekit.inputs.switches import is_on


@pytest.mark.parametrize("value", ["maybe", "", "on", 1, 0, None, [True]], ids=str)
def test_what_is_no_switch(value):
    with pytest.raises(SystemExit, match=r"^error: a switch: is .*; expected true or false; correct the option"):
        is_on(value)


@pytest.mark.parametrize(("value", "on"), [(True, True), ("true", True), ("FALSE", False), (False, False)], ids=str)
def test_what_is_one(value, on):
    assert is_on(value) is on
