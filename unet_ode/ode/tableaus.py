"""Butcher tableaus of explicit Runge-Kutta methods."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TABLEAUS", "Tableau"]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: k_i = f(t + c_i h, y + h sum_j a_ij k_j), y(t + h) = y + h sum_i b_i k_i.

    Args:
        name: what the literature calls it.
        order: p, where the error of one step is O(h^(p + 1)).
        a: row i holds a_i1 .. a_i(i-1); the first row is empty.
        b: weights of the solution.
        error: b minus the weights of the embedded solution of order p - 1; None for a method without one, which needs
            a fixed number of steps.

    Raises:
        ValueError: when the lengths do not fit each other.

    Example:
        >>> euler = Tableau("euler", order=1, a=((),), b=(1.0,))
        >>> euler.c, euler.first_same_as_last
        ((0.0,), False)
    """

    name: str
    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    error: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        num = len(self.b)
        if [len(row) for row in self.a] != list(range(num)) or (self.error is not None and len(self.error) != num):
            raise ValueError(
                f"{self.name}: b has {num} weights; expected rows of a with 0 .. {num - 1} numbers, and {num} in error"
            )

    @property
    def c(self) -> tuple[float, ...]:
        """The stages' places in the step: the row sums of a."""
        return tuple(float(sum(row)) for row in self.a)

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is the next step's first one, so that an accepted step costs one evaluation less."""
        return len(self.b) > 1 and self.b[-1] == 0 and self.a[-1] == self.b[:-1]

    @property
    def stages_of_step(self) -> int:
        """Evaluations of a step without error estimate: a last stage that only serves the next step is left out."""
        return len(self.b) - int(self.first_same_as_last)


_METHODS = (
    Tableau("euler", 1, a=((),), b=(1.0,)),
    Tableau("midpoint", 2, a=((), (1 / 2,)), b=(0.0, 1.0)),
    Tableau("rk4", 4, a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6)),
    # Bogacki and Shampine 1989, "A 3(2) pair of Runge-Kutta formulas"
    Tableau(
        "bosh3",
        3,
        a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        b=(2 / 9, 1 / 3, 4 / 9, 0.0),
        error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    ),
    # Dormand and Prince 1980, "A family of embedded Runge-Kutta formulae", RK5(4)7M
    Tableau(
        "dopri5",
        5,
        a=(
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
        error=(
            35 / 384 - 5179 / 57600,
            0.0,
            500 / 1113 - 7571 / 16695,
            125 / 192 - 393 / 640,
            -2187 / 6784 + 92097 / 339200,
            11 / 84 - 187 / 2100,
            -1 / 40,
        ),
    ),
)

TABLEAUS: dict[str, Tableau] = {method.name: method for method in _METHODS}
"""The methods by name: bosh3 and dopri5 control their steps; euler, midpoint and rk4 need a number of steps."""
