"""Rows with missing values.

They get no results, and must not change the results of the other rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from app.data.columns.encoder import Notes, Unknown
from app.data.columns.schema import Column
from app.data.names import spelt
from app.regression.sufficient_statistics import Array


@dataclass(frozen=True)
class CompleteRows:
    """The rows of a query that have no missing value."""

    count: int  # Number of all rows, complete or not.
    indices: NDArray[np.intp] | None  # Indices of the complete rows; None if all are complete.

    @classmethod
    def of(cls, values: Array, weights: Array | None = None) -> "CompleteRows":
        """Find the rows without NaN among values (n, d) and weights (n,)."""
        with np.errstate(over="ignore", invalid="ignore"):  # A sum finds NaN in one pass.
            total = float(np.add.reduce(values, axis=None))
            total += 0.0 if weights is None else float(np.add.reduce(weights))
            if not isnan(total):
                return cls(len(values), None)
        missing = np.isnan(values).any(axis=1)
        if weights is not None:
            missing |= np.isnan(weights)
        return cls(len(values), np.flatnonzero(~missing) if missing.any() else None)

    @property
    def missing(self) -> int:
        """The number of rows that are not complete."""
        return 0 if self.indices is None else self.count - len(self.indices)

    @property
    def positions(self) -> NDArray[np.intp]:
        """The index of each row among the complete rows, (n,), or -1 if it is not complete."""
        positions = np.full(self.count, -1)
        positions[slice(None) if self.indices is None else self.indices] = np.arange(self.count - self.missing)
        return positions

    def index(self, row: int) -> int:
        """Return the index among all rows of complete row `row`."""
        return row if self.indices is None else int(self.indices[row])

    def take(self, values: Array) -> Array:
        """Return the complete rows of values (n, ...)."""
        return values if self.indices is None else values[self.indices]

    def spread(self, results: Array) -> Array:
        """Return results for the complete rows, (m, ...), with NaN for the other rows: (n, ...)."""
        if self.indices is None:
            return results
        spread = np.full((self.count, *results.shape[1:]), np.nan)
        spread[self.indices] = results
        return spread

    def spread_optional(self, results: Array | None) -> Array | None:
        return None if results is None else self.spread(results)


MAX_NAMED = 20  # Columns named in the reasons.


@dataclass(frozen=True)
class Reasons:
    """Why rows have no results: the numbers of gaps and unseen levels by column. A row may have several."""

    gaps: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)

    def add(self, values: Array, names: Sequence[str], unseen: Mapping[str, int] = MappingProxyType({})) -> None:
        """Add the NaN values of columns with these names, (n, d), as gaps, except `unseen` levels."""
        missing = np.isnan(values)
        if missing.any():
            self.gaps.update(dict(zip(names, missing.sum(axis=0).tolist(), strict=True)))
            self.gaps.subtract(unseen)
            self.unseen.update(unseen)

    def add_notes(self, notes: Notes, columns: Sequence[Column], unknown: Unknown) -> None:
        """Add the facts about the cells of a file, unless their gaps are filled or their levels replaced."""
        filled = {column.name for column in columns if column.missing in ("indicator", "fill")}
        self.gaps.update({name: count for name, count in notes.gaps.items() if name not in filled})
        if unknown == "null":
            self.unseen.update(notes.unseen)

    def __str__(self) -> str:
        """Return the counts in ASCII, for a header."""
        counts = [("gaps", +self.gaps), ("unseen levels", self.unseen)]
        return "; ".join(f"{what}: {_listed(count)}" for what, count in counts if count)


def _listed(counts: Counter[str]) -> str:
    named = [f"{spelt(name)} {count}" for name, count in counts.most_common(MAX_NAMED)]
    return ", ".join(named) + ", ..." * (len(counts) > MAX_NAMED)
