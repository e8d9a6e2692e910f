"""Cross-validation by name: the training, validation and test cases of each fold."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

__all__ = ["split_fold"]

_VALIDATION_STEP = 8


def split_fold(
    cases: Iterable[str], fold: int, num_folds: int, group_of: Callable[[str], Hashable] = lambda case: case
) -> dict[str, list[str]]:
    """Of the sorted groups every ``num_folds``-th one from ``fold`` on tests; every eighth of the others validates.

    Each case tests in exactly one fold. One group validates where there are too few for an eighth.

    Args:
        cases: names, each a different one.
        fold: number of the fold, from 0 to ``num_folds - 1``.
        num_folds: number of folds, 2 at least.
        group_of: what a case belongs to, such as a person; cases of one group are in one list. They are sorted by the
            first name of each. By default each case is a group of its own.

    Raises:
        ValueError: if there is no such fold, or fewer groups than one for each of training, validation and test.

    Example:
        >>> split_fold("abcdef", fold=1, num_folds=5)
        {'training': ['a', 'c', 'd', 'e'], 'validation': ['f'], 'test': ['b']}
        >>> split_fold(["a1", "a2", "b1", "c1", "c2"], fold=0, num_folds=3, group_of=lambda case: case[0])
        {'training': ['b1'], 'validation': ['c1', 'c2'], 'test': ['a1', 'a2']}
    """
    if num_folds < 2 or not 0 <= fold < num_folds:
        raise ValueError(f"fold is {fold} of {num_folds}; expected 0 to {max(num_folds, 2) - 1}")
    members: dict[Hashable, list[str]] = {}
    for case in sorted(cases):
        members.setdefault(group_of(case), []).append(case)
    groups = list(members)
    test = groups[fold::num_folds]
    others = [group for group in groups if group not in test]
    if not test or len(others) < 2:
        cases_there = sum(map(len, members.values()))
        grouped = f" in {len(groups)} groups" if len(groups) < cases_there else ""
        raise ValueError(
            f"{cases_there} cases{grouped} are too few for fold {fold}; expected more than {max(fold, 2)}; add cases"
        )
    validation = others[_VALIDATION_STEP - 1 :: _VALIDATION_STEP] or others[-1:]
    training = [group for group in others if group not in validation]
    lists = {"training": training, "validation": validation, "test": test}
    return {name: sorted(case for group in found for case in members[group]) for name, found in lists.items()}
