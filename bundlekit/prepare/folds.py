"""Cross-validation by name: the training, validation and test cases of each fold."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["split_fold"]

_VALIDATION_STEP = 8


def split_fold(cases: Iterable[str], fold: int, num_folds: int) -> dict[str, list[str]]:
    """Of the sorted cases every ``num_folds``-th one from ``fold`` on tests; every eighth of the others validates.

    Each case tests in exactly one fold. One case validates where there are too few for an eighth.

    Args:
        cases: names, each a different one.
        fold: number of the fold, from 0 to ``num_folds - 1``.
        num_folds: number of folds, 2 at least.

    Raises:
        ValueError: if there is no such fold, or fewer cases than one for each of training, validation and test.

    Example:
        >>> split_fold("abcdef", fold=1, num_folds=5)
        {'training': ['a', 'c', 'd', 'e'], 'validation': ['f'], 'test': ['b']}
    """
    if num_folds < 2 or not 0 <= fold < num_folds:
        raise ValueError(f"fold is {fold} of {num_folds}; expected 0 to {max(num_folds, 2) - 1}")
    names = sorted(cases)
    test = names[fold::num_folds]
    others = sorted(set(names) - set(test))
    if not test or len(others) < 2:
        raise ValueError(
            f"{len(names)} cases are too few for fold {fold}; expected more than {max(fold, 2)}; add cases"
        )
    validation = others[_VALIDATION_STEP - 1 :: _VALIDATION_STEP] or others[-1:]
    return {"training": sorted(set(others) - set(validation)), "validation": validation, "test": test}
