"""Summary of the rows that a version predicted for in one period."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.data.columns.terms import indicator_blocks
from app.registry.version_file import Version
from app.regression.drift import Axes
from app.regression.linear_model import LinearModel
from app.regression.moments import Moments
from app.regression.sufficient_statistics import Array
from app.regression.terms import Factors, expand, parse_terms

# Columns above which only means and variances are kept, and rows are not checked for extrapolation.
MAX_PAIRED_COLUMNS = 100
# Distance from the training rows, in the units of a column's largest training deviation, above which a row is left out
# of means and cross products. The square of a larger one could overflow.
MAX_DEVIATION = 1e100


@dataclass(frozen=True, eq=False)
class ServedRows:
    """Counts of rows, and the moments of those that were summarised.

    The columns are those of the model, shifted and scaled as in its training statistics. Above a rate, rows are
    sampled: `predicted` counts all rows, and `moments.rows` those that were summarised. In all other numbers, a row of
    a sample counts as the rows that it stands for.
    """

    predicted: int = 0
    moments: Moments | None = None
    extreme: int = 0  # rows with a deviation above MAX_DEVIATION, or one that is not finite
    checked: int = 0  # rows that were checked for extrapolation
    flagged: int = 0  # those that were flagged
    gaps: Counter[str] = field(default_factory=Counter)  # values that were missing, by feature
    unseen: Counter[str] = field(default_factory=Counter)  # levels that training did not have, by feature
    fourths: Array | None = None  # (q + 1,), see `Axes.fourth_powers`; None without moments

    @property
    def nbytes(self) -> int:
        """Approximate bytes in memory, and in a file."""
        arrays = (self.moments.nbytes if self.moments else 0) + (0 if self.fourths is None else self.fourths.nbytes)
        return 200 + 50 * (len(self.gaps) + len(self.unseen)) + arrays

    @property
    def summarised(self) -> int:
        return self.moments.rows if self.moments else 0

    def merge(self, other: "ServedRows") -> "ServedRows":
        """Return the summary of both sets of rows together."""
        moments = self.moments or other.moments
        fourths = other.fourths if self.fourths is None else self.fourths
        if self.moments and other.moments:
            moments = self.moments.merge(other.moments)
        if self.fourths is not None and other.fourths is not None:
            fourths = self.fourths + other.fourths
        return ServedRows(
            self.predicted + other.predicted,
            moments,
            self.extreme + other.extreme,
            self.checked + other.checked,
            self.flagged + other.flagged,
            self.gaps + other.gaps,
            self.unseen + other.unseen,
            fourths,
        )


def indicators_of(version: Version) -> set[int]:
    """Return the places of the model's columns that are levels of a category."""
    card = version.card
    blocks = () if card.table is None else indicator_blocks(card.terms, card.table)
    return {place for _, block in blocks for place in range(block.start, block.stop)}


def axes_of(version: Version) -> Axes:
    """Return the axes of the columns that are not levels. A model of many columns has no directions."""
    count, indicators = len(version.model.columns), indicators_of(version)
    compared = [place for place in range(count) if place not in indicators and count <= MAX_PAIRED_COLUMNS]
    columns: NDArray[np.intp] = np.array(compared, dtype=np.intp)
    return Axes.of(version.model.statistics, columns)


class Summariser:
    """Summarises rows of one version."""

    def __init__(self, version: Version) -> None:
        self._model: LinearModel = version.model
        count = len(self._model.columns)
        self._is_wide = count > MAX_PAIRED_COLUMNS
        self._axes = axes_of(version)
        self._shift, self._scale = self._model.statistics.shift[:count], self._model.statistics.scale[:count]
        self._factors: list[Factors] = parse_terms(self._model.terms, self._model.features)

    def summarise(self, x: Array, predicted: int) -> ServedRows:
        """Return the summary of rows of features, (m, p), sampled from a number of predicted rows."""
        if not len(x):
            return ServedRows(predicted)
        columns = expand(x, self._factors) if self._factors else x
        weight = max(1.0, predicted / len(x))
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (columns - self._shift) / self._scale
            usable = np.abs(scaled).max(axis=1) <= MAX_DEVIATION  # False for NaN too
        extreme = len(x) - int(usable.sum())
        if extreme:
            x, scaled = x[usable], scaled[usable]
        moments = fourths = None
        if len(scaled):
            moments = Moments.of(scaled, weight=weight, pairs=not self._is_wide)
            fourths = weight * self._axes.fourth_powers(scaled)
        checked, flagged = (0, 0) if self._is_wide else self._extrapolating(x)
        if checked or not self._is_wide:
            checked, flagged = checked + extreme, flagged + extreme
        extreme, checked, flagged = (round(weight * count) for count in (extreme, checked, flagged))
        return ServedRows(predicted, moments, extreme, checked, flagged, fourths=fourths)

    def _extrapolating(self, x: Array) -> tuple[int, int]:
        """Return the number of rows that were checked, and of those that are flagged as extrapolation."""
        if not len(x):
            return 0, 0
        try:
            with np.errstate(all="ignore"):
                return len(x), int(self._model.extrapolation(x).flag.sum())
        except np.linalg.LinAlgError:  # the design cannot be decomposed
            return 0, 0
