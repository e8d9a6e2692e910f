"""Runge-Kutta coefficients against Butcher's order conditions, one for each rooted tree."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from unet_ode.ode import TABLEAUS, Tableau

METHODS = {"euler": (1, 1), "midpoint": (2, 2), "rk4": (4, 4), "bosh3": (3, 4), "dopri5": (5, 7)}  # order, stages


def trees(order: int) -> list[tuple]:
    """Rooted trees with ``order`` nodes; a tree is the sorted tuple of its root's branches."""
    found = set()
    for sizes in itertools.chain.from_iterable(
        itertools.combinations_with_replacement(range(1, order), n) for n in range(order)
    ):
        if sum(sizes) == order - 1:
            for branches in itertools.product(*map(trees, sizes)):
                found.add(tuple(sorted(branches)))
    return sorted(found)


def nodes(tree: tuple) -> int:
    return 1 + sum(map(nodes, tree))


def density(tree: tuple) -> int:
    """The denominator of the exact solution's coefficient: the product of the sizes of all subtrees."""
    return nodes(tree) * math.prod(map(density, tree))


def stage_weights(tree: tuple, a: np.ndarray) -> np.ndarray:
    return math.prod((a @ stage_weights(branch, a) for branch in tree), start=np.ones(len(a)))


def violation(weights: np.ndarray, a: np.ndarray, order: int) -> float:
    """By how much the conditions of this order, and no other, are missed."""
    return max(abs(weights @ stage_weights(tree, a) - 1 / density(tree)) for tree in trees(order))


def matrices(method: Tableau) -> tuple[np.ndarray, np.ndarray]:
    a = np.zeros((len(method.b), len(method.b)))
    for i, row in enumerate(method.a):
        a[i, :i] = row
    return a, np.array(method.b)


def test_there_are_as_many_trees_as_the_literature_counts():
    assert [len(trees(order)) for order in range(1, 7)] == [1, 1, 2, 4, 9, 20]
    assert sorted(map(density, trees(4))) == [4, 8, 12, 24]


def test_the_methods():
    assert {name: (method.order, len(method.b)) for name, method in TABLEAUS.items()} == METHODS
    assert {name for name, method in TABLEAUS.items() if method.first_same_as_last} == {"bosh3", "dopri5"}
    assert {name for name, method in TABLEAUS.items() if method.error} == {"bosh3", "dopri5"}
    assert all(method.name == name for name, method in TABLEAUS.items())


@pytest.mark.parametrize("name", METHODS)
def test_order_of_the_solution(name):
    method = TABLEAUS[name]
    a, b = matrices(method)
    # The coefficients are below 30 and each rounded to 1e-16; a wrong digit would show as 1e-6 or more.
    assert all(violation(b, a, order) < 1e-14 for order in range(1, method.order + 1))
    assert violation(b, a, method.order + 1) > 1e-4  # the order is not higher than it says


@pytest.mark.parametrize("name", ["bosh3", "dopri5"])
def test_order_of_the_error_estimate(name):
    method = TABLEAUS[name]
    a, b = matrices(method)
    error = np.array(method.error)
    assert abs(error.sum()) < 1e-15
    embedded = b - error
    assert all(violation(embedded, a, order) < 1e-14 for order in range(1, method.order))
    assert violation(embedded, a, method.order) > 1e-4


def test_the_published_nodes():
    assert TABLEAUS["bosh3"].c == (0, 1 / 2, 3 / 4, 1)
    np.testing.assert_allclose(TABLEAUS["dopri5"].c, (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1), rtol=1e-14)
    np.testing.assert_allclose(TABLEAUS["rk4"].c, (0, 1 / 2, 1 / 2, 1))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"a": ((), (1.0,)), "b": (1.0,)},
        {"a": ((0.0,),), "b": (1.0,)},
        {"a": ((), (0.5,)), "b": (0.0, 1.0), "error": (1.0,)},
    ],
)
def test_lengths_that_do_not_fit(kwargs):
    with pytest.raises(ValueError, match=r"mine: b has \d weights; expected rows of a with 0 .."):
        Tableau("mine", order=1, **kwargs)
