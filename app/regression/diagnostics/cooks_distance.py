"""Cook's distance of the most influential rows.

D_i = t_i^2 / r h_i / (1 - h_i), with t_i the standardised residual and r the rank (Cook, Technometrics 19, 1977; Cook
and Weisberg, Residuals and Influence in Regression, 1982, 3.1). It is the squared change of all fitted values without
the row, in units of r s^2. With frequency weights, one observation of the row is left out.
"""

import math
from typing import Any

import numpy as np

from app.regression.diagnostics.chunk import RowChunk
from app.regression.sufficient_statistics import Array

LISTED = 20  # Rows with the largest distances that are listed for each target.


class CooksDistance:
    """Keeps the rows of one target with the largest distances. Of equal ones, the first in the file are kept."""

    def __init__(self, target: int, rank: int) -> None:
        self._target, self._rank = target, rank
        # Distance up to a factor, row, leverage and standardised residual up to a factor, a column for each row.
        self._kept: Array = np.empty((4, 0))

    def add(self, rows: RowChunk) -> None:
        left = 1 - np.where(rows.certain, rows.leverage, 0.0)
        squares = rows.scaled[:, self._target] ** 2 * rows.leverage / left**2
        least = self._kept[0, -1] if self._kept.shape[1] == LISTED else 0.0
        found = np.flatnonzero((squares > least) & rows.certain)
        if not len(found):
            return
        if len(found) > LISTED:
            cut = np.partition(squares[found], -LISTED)[-LISTED]
            found = found[squares[found] >= cut]
        residuals = rows.scaled[found, self._target] / np.sqrt(left[found])
        new = np.stack([squares[found], rows.numbers[found], rows.leverage[found], residuals])
        kept = np.hstack([self._kept, new])
        self._kept = kept[:, np.lexsort((kept[1], -kept[0]))[:LISTED]]

    def result(self, deviation: float, freedom: float) -> list[dict[str, Any]]:
        """Return the rows. `deviation` is s in the unit of the scaled residuals, with `freedom` degrees of freedom.

        The studentised residual is t sqrt((f - 1) / (f - t^2)), scaled by the error without the row (Belsley, Kuh and
        Welsch, Regression Diagnostics, 1980, 2.1); None if the other rows leave no error to scale it by.
        """
        return [
            {
                "row": int(row),
                "distance": squares / (self._rank * deviation**2),
                "leverage": leverage,
                "studentized_residual": _studentized(residual / deviation, freedom),
            }
            for squares, row, leverage, residual in self._kept.T.tolist()
        ]


def _studentized(residual: float, freedom: float) -> float | None:
    left = freedom - residual**2
    # If one row has nearly all of the residual sum, too few digits of the rest are known.
    if freedom <= 1 or left <= 1e-8 * freedom:
        return None
    return residual * math.sqrt((freedom - 1) / left)
