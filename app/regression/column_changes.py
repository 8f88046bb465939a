"""Change the columns of statistics, without the rows.

A category's indicators change when an update brings new levels, when a level is emptied, or when two versions with
different reference levels are merged.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from app.regression.sufficient_statistics import (
    OPERATION_ERROR,
    Array,
    SufficientStatistics,
    column_norms,
    r_factor,
)

MAX_OPERATIONS = 2.0**53  # Number at which nothing is accurate any more.
NOT_AN_INDICATOR = -1  # entry of `indicator_rows` for a column that is not an indicator


def aligned(
    statistics: SufficientStatistics, columns: Sequence[str], new_columns: Sequence[str]
) -> SufficientStatistics:
    """Return the statistics of the same rows with the columns in a new order, and possibly with more columns.

    `columns` are the names of the columns of `statistics`. `new_columns` includes all of them. The columns that it adds
    are indicators of levels without rows, so they are 0 in every row. Nothing is rounded if the old columns keep their
    order.
    """
    if tuple(columns) == tuple(new_columns):
        return statistics
    index = {name: place for place, name in enumerate(new_columns)}
    return spread(statistics, np.array([index[name] for name in columns], dtype=np.intp), len(new_columns))


def spread(statistics: SufficientStatistics, places: NDArray[np.intp], features: int) -> SufficientStatistics:
    """Return statistics with this number of features, in which column j of the old ones is at places[j].

    The other columns are indicators that are 0 in every row.
    """
    in_order = bool((np.diff(places) > 0).all())
    width = features + statistics.targets
    of_columns = np.concatenate([places, np.arange(features, width)])
    of_factor = np.concatenate([[0], of_columns + 1])

    def placed(factor: Array) -> Array:
        # Rows move with their columns, so that a factor whose columns keep their order is triangular again.
        moved = np.zeros((width + 1, width + 1))
        moved[np.ix_(of_factor, of_factor)] = factor
        return moved if in_order else r_factor(moved)

    counts = np.zeros(features, dtype=np.int64)
    counts[places] = NOT_AN_INDICATOR if statistics.indicator_rows is None else statistics.indicator_rows
    return replace(
        statistics,
        features=features,
        shift=_placed(statistics.shift, of_columns, np.zeros(width)),
        scale=_placed(statistics.scale, of_columns, np.ones(width)),
        factor=placed(statistics.factor),
        minimum=_placed(statistics.minimum, places, np.zeros(features)),
        maximum=_placed(statistics.maximum, places, np.zeros(features)),
        removed=None if statistics.removed is None else placed(statistics.removed),
        indicator_rows=None if (counts == NOT_AN_INDICATOR).all() else counts,
        operations=statistics.operations + (not in_order),
    )


def _placed(values: Array, places: NDArray[np.intp], otherwise: Array) -> Array:
    otherwise[places] = values
    return otherwise


def selected(statistics: SufficientStatistics, columns: NDArray[np.intp]) -> SufficientStatistics:
    """Return the statistics of the same rows with only some of the columns, which are in ascending order."""
    targets = np.arange(statistics.features, len(statistics.shift))
    kept = np.concatenate([columns, targets])
    of_factor = np.concatenate([[0], kept + 1])
    counts = statistics.indicator_rows
    return replace(
        statistics,
        features=len(columns),
        shift=statistics.shift[kept],
        scale=statistics.scale[kept],
        factor=r_factor(statistics.factor[:, of_factor]),
        minimum=statistics.minimum[columns],
        maximum=statistics.maximum[columns],
        removed=None if statistics.removed is None else r_factor(statistics.removed[:, of_factor]),
        indicator_rows=None if counts is None else counts[columns],
        operations=statistics.operations + 1,
    )


def with_targets(statistics: SufficientStatistics, order: NDArray[np.intp]) -> SufficientStatistics:
    """Return the statistics of the same rows with the targets in this order of the present ones."""
    if (order == np.arange(len(order))).all():
        return statistics
    p = statistics.features
    of_columns = np.concatenate([np.arange(p), order + p])
    of_factor = np.concatenate([[0], of_columns + 1])
    return replace(
        statistics,
        shift=statistics.shift[of_columns],
        scale=statistics.scale[of_columns],
        factor=r_factor(statistics.factor[:, of_factor]),
        removed=None if statistics.removed is None else r_factor(statistics.removed[:, of_factor]),
        operations=statistics.operations + 1,
    )


def refilled(statistics: SufficientStatistics, column: int, indicator: int, change: float) -> SufficientStatistics:
    """Return the statistics of the same rows with `change` added to a column in the rows in which the indicator is 1.

    The range of the column is widened accordingly.
    """
    shift, scale = statistics.shift, statistics.scale
    moved = np.eye(len(statistics.factor))
    moved[0, column + 1] = change * shift[indicator] / scale[column]
    moved[indicator + 1, column + 1] = change * scale[indicator] / scale[column]
    minimum, maximum = statistics.minimum.copy(), statistics.maximum.copy()
    minimum[column] += min(change, 0.0)
    maximum[column] += max(change, 0.0)
    return replace(
        statistics,
        factor=r_factor(statistics.factor @ moved),
        removed=None if statistics.removed is None else r_factor(statistics.removed @ moved),
        minimum=minimum,
        maximum=maximum,
        operations=statistics.operations + 1,
    )


def rebased(statistics: SufficientStatistics, block: slice | NDArray[np.intp], reference: int) -> SufficientStatistics:
    """Return the statistics of the same rows with another reference level of a category.

    `block` has the places of the category's indicators, and `reference` is the place in the block of the new reference
    level. This place goes to the indicator of the old reference level, 1 minus the sum of the block's indicators.
    """
    columns = np.arange(statistics.features)[block]
    place = int(columns[reference])
    counts = statistics.indicator_rows
    count = None if counts is None else statistics.rows - int(counts[columns].sum())
    is_constant = count in (0, statistics.rows)
    shift, scale = statistics.shift.copy(), statistics.scale.copy()
    shift[place], scale[place] = float(count is not None and 2 * count > statistics.rows), 2.0
    change = np.eye(len(statistics.factor))
    change[0, place + 1] = (1 - statistics.shift[columns].sum() - shift[place]) / scale[place]
    change[columns + 1, place + 1] = -statistics.scale[columns] / scale[place]

    def changed(factor: Array) -> Array:
        rows = factor @ change
        if is_constant:
            rows[:, place + 1] = 0.0
        return r_factor(rows)

    minimum, maximum = statistics.minimum.copy(), statistics.maximum.copy()
    minimum[place], maximum[place] = float(count == statistics.rows), float(count != 0)
    if counts is not None and count is not None:
        counts = counts.copy()
        counts[place] = count
    result = replace(
        statistics,
        shift=shift,
        scale=scale,
        factor=changed(statistics.factor),
        minimum=minimum,
        maximum=maximum,
        removed=None if statistics.removed is None else changed(statistics.removed),
        indicator_rows=counts,
    )
    return replace(result, operations=result.operations + 1 + _lost_operations(statistics, result, columns, place))


def _lost_operations(
    old: SufficientStatistics, new: SufficientStatistics, columns: NDArray[np.intp], place: int
) -> int:
    """Return the number of operations whose rounding equals that of a difference of columns with a small result.

    The new column has the rounding errors of all columns of the block, each relative to the norm of its column.
    """
    size = float(column_norms(new.cumulative_factor[:, [place + 1]])[0] * new.scale[place])
    if size == 0:
        return 0
    terms = float((column_norms(old.cumulative_factor[:, columns + 1]) * old.scale[columns]).sum())
    return math.ceil(min(old.factor_error / OPERATION_ERROR * max(terms / size - 1, 0.0), MAX_OPERATIONS))
