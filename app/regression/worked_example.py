"""The worked example: a linear model of the yield of apples and oranges, trained by gradient descent written out.

The page /learn shows each intermediate result, which a solver does not keep. The solvers themselves need torch or
scipy, which the web process does not load. Tests compare the numbers with those of jobs.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from app.regression.solvers.base import Coefficients
from app.regression.sufficient_statistics import Array

FEATURES = ("temp", "rainfall", "humidity")
TARGETS = ("apples", "oranges")
# Regions: temperature, rainfall and humidity, and the yields of apples and oranges.
_TABLE = """
    73 67 43  56  70
    91 88 64  81 101
    87 134 58 119 133
    102 43 37 22  37
    69 96 70 103 119
    74 66 43  57  69
    91 87 65  80 102
    88 134 59 118 132
    101 44 37 21  38
    68 96 71 104 118
    73 66 44  57  69
    92 87 64  82 100
    87 135 57 118 134
    103 43 36 20  38
    68 97 70 102 120
"""
NEW_REGION = (75.0, 63.0, 44.0)
WEIGHTS = ((0.9887, -0.6828, -0.3289), (-0.0954, -0.1854, -0.6360))  # drawn at random once, a row per target
INTERCEPT = (1.0996, 0.1550)


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with their targets."""

    x: Array  # (n, p)
    y: Array  # (n, k)

    def predict(self, model: Coefficients) -> Array:
        """Return x W' + b, (n, k)."""
        return np.asarray(self.x @ model.coef.T + model.intercept)

    def loss(self, model: Coefficients) -> float:
        """Return the mean of the squared errors over rows and targets."""
        error = self.predict(model) - self.y
        return float(np.mean(error * error))

    def gradient(self, model: Coefficients) -> Coefficients:
        """Return the derivatives of the loss: 2 / (n k) E' x for W, and 2 / (n k) times the sums of E for b."""
        error = self.predict(model) - self.y
        return Coefficients(2 / error.size * error.T @ self.x, 2 / error.size * error.sum(axis=0))

    @cached_property
    def eigenvalues(self) -> list[float]:
        """The eigenvalues of the Hessian of the loss, 2 / (n k) Z'Z with Z the rows [1, x], the largest first."""
        z = np.column_stack([np.ones(len(self.x)), self.x])
        return [float(value) for value in np.linalg.eigvalsh(2 / self.y.size * z.T @ z)[::-1]]

    @cached_property
    def largest_learning_rate(self) -> float:
        """The bound below which a descent on these rows cannot diverge: 2 / h with h the largest eigenvalue."""
        return 2 / self.eigenvalues[0]

    @cached_property
    def optimum(self) -> Coefficients:
        """The coefficients with the smallest loss. The columns are centred, so that no digits are lost."""
        x_mean, y_mean = self.x.mean(axis=0), self.y.mean(axis=0)
        coef = np.linalg.lstsq(self.x - x_mean, self.y - y_mean)[0].T
        return Coefficients(coef, y_mean - coef @ x_mean)


def _table() -> Table:
    rows = np.array([line.split() for line in _TABLE.split("\n") if line.strip()], dtype=float)
    return Table(rows[:, : len(FEATURES)], rows[:, len(FEATURES) :])


ALL = _table()
FIVE = Table(ALL.x[:5], ALL.y[:5])
START = Coefficients(np.array(WEIGHTS), np.array(INTERCEPT))


@dataclass(frozen=True, eq=False)
class Descent:
    """The losses from the start to the last step, and the coefficients after the last step with a finite loss."""

    losses: list[float]
    model: Coefficients

    @property
    def steps(self) -> int:
        return len(self.losses) - 1

    @property
    def overflowed(self) -> bool:
        """True if the descent ended early, because the loss exceeds the range of 64-bit numbers."""
        return not math.isfinite(self.losses[-1])


@np.errstate(over="ignore", invalid="ignore")
def descend(table: Table, model: Coefficients, rate: float, steps: int) -> Descent:
    """Take steps down the gradient: W - rate dL/dW, b - rate dL/db. It ends early if the loss overflows."""
    losses = [table.loss(model)]
    for _ in range(steps):
        gradient = table.gradient(model)
        following = Coefficients(model.coef - rate * gradient.coef, model.intercept - rate * gradient.intercept)
        loss = table.loss(following)
        if not math.isfinite(loss):
            return Descent([*losses, math.inf], model)
        losses.append(loss)
        model = following
    return Descent(losses, model)
