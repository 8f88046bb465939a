"""Check that statistics from elsewhere can be those of rows, in time proportional to their size."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.regression.column_changes import NOT_AN_INDICATOR
from app.regression.sufficient_statistics import Array, SufficientStatistics, column_norms

MAX_ROWS = 2**53
MAX_OPERATIONS = 1_000_000  # Each adds to the bound of the rounding error, which then is 4e-10.
# Largest size of a value or a weight, and of its inverse for weights. Real data is far inside, and squares do not
# overflow.
MAX_SIZE = 1e150
MAX_SCALE_EXPONENT = 1001  # of the power of two
MAX_LOG_WEIGHT = 750.0  # Largest logarithm of a number of 64 bits, and of its inverse.
TOLERANCE = 1e-6  # Relative rounding error of a sum that is compared with another one.
FINE_TOLERANCE = 1e-9


def statistics_faults(
    statistics: SufficientStatistics, counts: NDArray[np.float64] | None, blocks: Sequence[slice]
) -> Iterator[str]:
    """Yield what is wrong with statistics. Later checks rely on the earlier ones, so only the first may be read.

    `counts` has the entries of `indicator_rows`, and `blocks` the places of the indicators.
    """
    yield from _number_faults(statistics)
    yield from _factor_faults(statistics)
    yield from _weight_faults(statistics)
    yield from _range_faults(statistics)
    yield from _indicator_faults(statistics, counts, blocks)


def _number_faults(statistics: SufficientStatistics) -> Iterator[str]:
    """Yield faults of the numbers of rows and operations."""
    rows, effective = statistics.rows, statistics.effective_rows
    if not 1 <= rows <= MAX_ROWS:
        yield "the number of rows is not possible"
    if not 0 < effective <= rows or (effective != rows and not statistics.discounted):
        yield "the effective number of rows is not possible"
    if not 0 <= statistics.operations <= MAX_OPERATIONS or statistics.operations != int(statistics.operations):
        yield "the number of operations is not possible"


def _factor_faults(statistics: SufficientStatistics) -> Iterator[str]:
    """Yield faults of the shift, the scale and the factors."""
    scale = statistics.scale
    mantissas, exponents = np.frexp(scale)
    if not (np.isfinite(scale).all() and (mantissas == 0.5).all() and (np.abs(exponents) <= MAX_SCALE_EXPONENT).all()):  # noqa: PLR2004 - the mantissa of a power of two
        yield "a scale is not a power of two"
    if not (np.isfinite(statistics.shift).all() and (np.abs(statistics.shift) < MAX_SIZE).all()):
        yield "a shift is not finite, or too large"
    for name, factor in (("factor", statistics.factor), ("removed", statistics.removed)):
        if factor is None:
            continue
        if not np.isfinite(factor).all():
            yield f"the {name} is not finite"
        if np.tril(factor, -1).any():
            yield f"the {name} is not upper triangular"
        if not (np.abs(factor) < MAX_SIZE).all() or not (np.abs(factor[:, 1:]) * scale < MAX_SIZE).all():
            yield f"the {name} is too large"


def _weight_faults(statistics: SufficientStatistics) -> Iterator[str]:
    """Yield faults of the sum of the weights, and of that of their logarithms."""
    weight, rows, logs = statistics.total_weight, statistics.effective_rows, statistics.log_weights
    if not 1 / MAX_SIZE < weight < MAX_SIZE:
        yield "the sum of the weights is not possible"
    if statistics.weight_kind == "frequency" and not abs(weight - rows) <= TOLERANCE * rows:
        yield "the sum of the weights is not the number of rows"
    if np.isnan(logs):
        return  # not recorded
    if statistics.weight_kind == "frequency" and logs != 0:
        yield "it has logarithms of weights that count rows"
    if not abs(logs) <= MAX_LOG_WEIGHT * statistics.rows:
        yield "the sum of the logarithms of the weights is not possible"
    # The geometric mean of the weights is at most the arithmetic mean.
    largest = statistics.rows * np.log(weight / statistics.rows)
    is_exact = statistics.weight_kind == "precision" and not statistics.discounted
    if is_exact and logs > largest + TOLERANCE * (statistics.rows + abs(logs)):
        yield "the sum of the logarithms of the weights is too large for their sum"


def _range_faults(statistics: SufficientStatistics) -> Iterator[str]:
    """Yield faults of the minima and maxima. Both may be left out, as NaN."""
    p = statistics.features
    low, high = statistics.minimum, statistics.maximum
    if (np.isnan(low) != np.isnan(high)).any():
        yield "a column has a minimum or a maximum, and not both"
    known = ~np.isnan(low)
    low, high = low[known], high[known]
    if not ((np.abs(low) < MAX_SIZE) & (np.abs(high) < MAX_SIZE)).all():
        yield "a minimum or a maximum is not finite, or too large"
    if not (low <= high).all():
        yield "a minimum is larger than the maximum"
    mean, half = statistics.mean[:p][known], (high - low) / 2
    rounding = TOLERANCE * half + FINE_TOLERANCE * (np.abs(mean) + statistics.scale[:p][known])
    if ((mean < low - rounding) | (mean > high + rounding)).any():
        yield "a mean is outside the range of its column"
    # The deviation of values is at most half of their range (Popoviciu, Mathematica 9, 1935).
    deviation = (column_norms(statistics.factor[1:, 1 : p + 1]) * statistics.scale[:p])[known]
    if (deviation > (half + rounding) * np.sqrt(statistics.total_weight) * (1 + TOLERANCE)).any():
        yield "the values of a column vary more than its range allows"


def _indicator_faults(
    statistics: SufficientStatistics, counts: NDArray[np.float64] | None, blocks: Sequence[slice]
) -> Iterator[str]:
    """Yield faults of the columns that are 0 or 1, and of the numbers of rows in which they are 1."""
    places = np.zeros(statistics.features, dtype=bool)
    for block in blocks:
        places[block] = True
    if counts is None:
        if places.any():
            yield "the numbers of rows of the levels are missing"
        return
    if not (np.isfinite(counts).all() and (counts == np.floor(counts)).all()):
        yield "a number of rows of a level is not whole"
    if (counts[~places] != NOT_AN_INDICATOR).any() or (counts[places] < 0).any():
        yield "the numbers of rows of the levels are not those of its categories"
    for block in blocks:
        if counts[block].sum() > statistics.rows:
            yield "a category has more rows than there are"
        yield from _block_faults(statistics, counts[block], block)


def _block_faults(statistics: SufficientStatistics, counts: Array, block: slice) -> Iterator[str]:
    """Yield faults of indicators of which at most one is 1 in each row, so that they equal their squares."""
    weight = statistics.total_weight
    factor = statistics.factor
    inputs = factor[:, 1 : statistics.features + 1][:, block] * statistics.scale[: statistics.features][block]
    inputs = inputs + factor[:, :1] * statistics.shift[: statistics.features][block]
    columns = np.column_stack([inputs, inputs.sum(axis=1)])  # in their own units, and their sum
    sums = factor[0, 0] * columns[0]
    squares = (columns**2).sum(axis=0)
    tolerance = TOLERANCE * (weight + np.abs(sums))
    if (np.abs(sums - squares) > tolerance).any() or (sums < -tolerance).any() or (sums > weight + tolerance).any():
        yield "a column of a level has other values than 0 and 1"
    counts = np.append(counts, counts.sum())
    if ((counts == 0) & (np.abs(sums) > tolerance)).any():
        yield "a level without rows has rows"
    if ((counts == statistics.rows) & (np.abs(sums - weight) > tolerance)).any():
        yield "a level of all rows does not have all rows"
    if statistics.weight_kind == "frequency" and not statistics.discounted:
        expected = counts
    elif statistics.log_weights == 0 and abs(weight - statistics.effective_rows) <= TOLERANCE * weight:
        expected = counts * (weight / statistics.rows)  # each row weighs the same, as far as is known
    else:
        return
    if not statistics.discounted and (np.abs(sums - expected) > tolerance).any():
        yield "a number of rows of a level is not the sum of its column"
