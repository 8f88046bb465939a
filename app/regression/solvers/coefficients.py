"""Coefficients as values, and the state of a descent that is made of them. torch is not needed to read or write it."""

from dataclasses import dataclass

import numpy as np

from app.regression.training_batch import Array


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A linear map and its offset. Their owner knows which columns they apply to."""

    coef: Array  # (k, p)
    intercept: Array  # (k,)

    @classmethod
    def from_matrix(cls, matrix: Array) -> "Coefficients":
        """Split a matrix (k, 1 + p) whose first column is the intercept."""
        return cls(matrix[:, 1:], matrix[:, 0])

    @property
    def matrix(self) -> Array:
        """The coefficients as one matrix (k, 1 + p), the intercept first."""
        return np.column_stack([self.intercept, self.coef])


@dataclass(frozen=True, eq=False)
class BestEpoch:
    """The epoch with the lowest monitored loss so far."""

    epoch: int
    coefficients: Coefficients
    loss: float
    monitored_loss: float


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The state of a run after a whole number of epochs, complete enough to resume it to the same bits.

    Coefficients are those of the run's columns: the features in their own units, unless the run standardises them. A
    loss is the objective: the mean squared error over rows and targets, plus weight_decay / 2 times the sum of the
    squared coefficients and intercepts. The monitored loss is the one that `patience` watches: the mean squared error
    of the validation rows, or without such rows the objective.
    """

    epoch: int
    current: Coefficients
    velocity: Coefficients
    loss: float
    monitored_loss: float
    initial_loss: float
    best: BestEpoch
