"""Counts the gaps of a table by column, and explains why too few complete rows are left."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidInput

MAX_PATTERNS = 1_000  # Combinations of columns with a gap that are counted apart.


class GapPatterns:
    """The gaps of incomplete rows: their number by column, and how often the same columns have them together."""

    def __init__(self, columns: Sequence[str]) -> None:
        """Count gaps of these columns: the features, targets and weight of the table, before encoding."""
        self.columns = tuple(columns)
        self.rows = 0  # incomplete rows

    def add(self, gaps: NDArray[np.bool_]) -> None:
        """Count some incomplete rows: which cells are gaps, (k, len(columns))."""
        raise NotImplementedError

    @property
    def by_column(self) -> dict[str, int]:
        """The columns with gaps and their numbers, the largest first."""
        raise NotImplementedError


def explain_too_few(
    complete: int, gaps: GapPatterns, widths: Mapping[str, int], intercept: bool = True
) -> InvalidInput:
    """Return the error for fewer complete rows than coefficients, with what `drop=` would keep.

    `widths` gives the number of columns of the design for each feature. Only features can be dropped.
    """
    raise NotImplementedError
