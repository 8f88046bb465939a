"""Rows with missing values, which get null in place of a prediction."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray

from app.errors import PredictionTooLarge
from app.regression import errors
from app.regression.sufficient_statistics import Array

HEADER = "linserve-missing-rows"


@dataclass(frozen=True)
class CompleteRows:
    """The rows of a request that have no missing value."""

    count: int  # all rows, complete or not
    places: NDArray[np.intp] | None  # of the complete rows; None if all are complete

    @classmethod
    def of(cls, values: Array) -> "CompleteRows":
        """Find the rows without NaN among values (n, d)."""
        with np.errstate(over="ignore", invalid="ignore"):
            if not isnan(np.add.reduce(values, axis=None)):  # one pass; usually enough
                return cls(len(values), None)
        missing = np.isnan(values).any(axis=1)
        return cls(len(values), np.flatnonzero(~missing) if missing.any() else None)

    @property
    def missing(self) -> int:
        """The number of rows that are not complete."""
        return 0 if self.places is None else self.count - len(self.places)

    @property
    def positions(self) -> NDArray[np.intp]:
        """The number of each row among the complete rows, (n,), or -1 if it is not complete."""
        found = np.full(self.count, -1)
        places = slice(None) if self.places is None else self.places
        found[places] = np.arange(self.count - self.missing)
        return found

    def place(self, row: int) -> int:
        """Return the number among all rows of complete row `row`."""
        return row if self.places is None else int(self.places[row])

    def taken(self, values: Array) -> Array:
        """Return the complete rows."""
        return values if self.places is None else values[self.places]

    def spread(self, answers: Callable[[], Array]) -> Array:
        """Return the answers to the complete rows, (m, ...), with NaN for the other rows: (n, ...).

        Raises PredictionTooLarge with the row's number among all rows if `answers` does.
        """
        try:
            found = answers()
        except errors.PredictionTooLarge as error:
            raise PredictionTooLarge(self.place(error.row)) from None
        if self.places is None:
            return found
        spread = np.full((self.count, *found.shape[1:]), np.nan)
        spread[self.places] = found
        return spread
