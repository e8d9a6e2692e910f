"""Folds: every case tests once, and the lists share nothing."""

from __future__ import annotations

import pytest

from bundlekit.prepare.folds import split_fold


@pytest.mark.parametrize(("num_cases", "num_folds"), [(200, 5), (10, 10), (369, 5), (3, 3), (7, 2)])
def test_every_case_tests_once_and_is_in_one_list(num_cases, num_folds):
    cases = [f"{i:03d}" for i in range(num_cases)]
    tested = []
    for fold in range(num_folds):
        lists = split_fold(reversed(cases), fold, num_folds)
        assert sorted(name for names in lists.values() for name in names) == cases
        assert all(lists[name] == sorted(lists[name]) and lists[name] for name in lists)
        tested += lists["test"]
    assert sorted(tested) == cases


def test_sizes_of_the_lists():
    lists = split_fold([f"{i:03d}" for i in range(200)], 0, 5)
    assert {name: len(names) for name, names in lists.items()} == {"training": 140, "validation": 20, "test": 40}
    assert lists["test"][:3] == ["000", "005", "010"]
    # of 001, 002, 003, 004, 006, ... the eighth and the sixteenth
    assert lists["validation"][:2] == ["009", "019"]


@pytest.mark.parametrize(("fold", "num_folds"), [(-1, 5), (5, 5), (0, 1)])
def test_folds_that_are_not_there(fold, num_folds):
    with pytest.raises(ValueError, match=f"fold is {fold} of {num_folds}; expected 0 to "):
        split_fold("abcdefgh", fold, num_folds)


@pytest.mark.parametrize(("cases", "fold"), [("ab", 0), ("abc", 4)])
def test_too_few_cases(cases, fold):
    with pytest.raises(ValueError, match=f"{len(cases)} cases are too few for fold"):
        split_fold(cases, fold, 5)


@pytest.mark.parametrize("num_folds", [2, 5, 7])
def test_cases_of_one_group_are_in_one_list(num_folds):
    cases = [f"{i:03d}" for i in range(1, 120) if i % 7 != 3]  # with gaps, so that some have no partner

    def pair_of(case: str) -> int:
        return (int(case) + 1) // 2

    tested = []
    for fold in range(num_folds):
        lists = split_fold(cases, fold, num_folds, pair_of)
        assert sorted(name for names in lists.values() for name in names) == cases
        groups = [{pair_of(name) for name in names} for names in lists.values()]
        assert all(groups) and sum(map(len, groups)) == len(set.union(*groups))
        tested += lists["test"]
    assert sorted(tested) == cases


def test_too_few_groups():
    with pytest.raises(ValueError, match="6 cases in 2 groups are too few for fold 0; expected more than 2; add cases"):
        split_fold(["a1", "a2", "a3", "b1", "b2", "b3"], 0, 5, lambda case: case[0])
