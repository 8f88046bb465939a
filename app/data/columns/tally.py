"""Count the cells that can be read as one kind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.data.columns.gaps import Parsed
from app.data.columns.number_profile import NumberProfile
from app.data.columns.schema import Column
from app.data.lazy_pyarrow import pa

Indices = NDArray[np.int64]


class TallyRecord(NamedTuple):
    """The content of a Tally."""

    fits: int
    gaps: int
    faults: int
    first: int | None
    is_tried: bool
    numbers: NumberProfile


@dataclass
class Tally:
    """The cells that `parse` reads as values, as gaps, and not at all."""

    column: Column
    parse: "Callable[[pa.Array, Column], Parsed]"
    fits: int = 0
    gaps: int = 0
    faults: int = 0
    first: int | None = None  # first row with a fault, from 0
    is_tried: bool = True  # False if most cells are faults, and further ones are not read
    numbers: NumberProfile = field(default_factory=NumberProfile)  # of the values

    def add(self, cells: "pa.Array", rows: Indices, weights: Indices | None = None) -> Parsed:
        """Count cells of these rows, from 0. With `weights`, each counts for several rows, the first of which it names.

        Raises TypeError if the kind has no values of this Arrow type.
        """
        parsed = self.parse(cells, self.column)
        faults = 0
        if parsed.faults is not None:
            faults = total(parsed.faults, weights)
            first = int(rows[parsed.faults].min())
            self.first = first if self.first is None else min(first, self.first)
        gaps = total(parsed.gaps, weights)
        self.faults, self.gaps = self.faults + faults, self.gaps + gaps
        self.fits += (len(cells) if weights is None else int(weights.sum())) - faults - gaps
        self.numbers.add(parsed.values, rows, weights)
        return parsed

    @property
    def record(self) -> TallyRecord:
        return TallyRecord(self.fits, self.gaps, self.faults, self.first, self.is_tried, self.numbers)

    def merge(self, other: TallyRecord) -> None:
        """Count the cells of other rows."""
        self.fits, self.gaps, self.faults = self.fits + other.fits, self.gaps + other.gaps, self.faults + other.faults
        self.first = min((first for first in (self.first, other.first) if first is not None), default=None)
        self.is_tried = self.is_tried and other.is_tried
        self.numbers.merge(other.numbers)


def total(cells: NDArray[np.bool_], weights: Indices | None) -> int:
    """Return the number of rows that some cells count for."""
    return int(np.count_nonzero(cells) if weights is None else weights[cells].sum())
