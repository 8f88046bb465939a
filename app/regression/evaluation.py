"""Metrics of predictions for labelled rows, accumulated over batches of any number of rows.

Sums of squares about a mean are accumulated from shifted values, as deviations from their mean (Chan, Golub and
LeVeque, The American Statistician 37, 1983), so a large mean costs no digits. Memory does not grow with the
number of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.regression.sufficient_statistics import Array

DECILES = 10
EXACT_ROWS = 100_000  # Rows with distinct predictions up to which deciles are exact.
MIN_EXACT_ROWS = 128
EXACT_VALUES = 1 << 19  # Predictions of all targets up to which deciles are exact.
_FIELDS = 4  # Numbers of a calibration's points: prediction, observed mean, weight, rows.
_NUMBER_BYTES = 8
INTERVAL_METRICS = ("interval_coverage", "mean_interval_width")
_ERRORS = ("rmse", "mae", "bias", "r2", "max_absolute_error")

NO_ROWS = "No row counts for this target: each lacks a feature or the target, or has the weight 0."
NO_VARIATION = "All evaluated rows have the same value of this target."
OUT_OF_RANGE = "The number exceeds the range of 64-bit numbers."
OUTSIDE_SPAN = "The rows are outside the space that the training rows span."


class Scored(NamedTuple):
    """Predictions and observations of k targets for n rows."""

    predictions: Array  # (n, k)
    observed: Array  # (n, k); NaN if the row lacks the target
    weights: Array  # (n,), positive
    intervals: Array | None = None  # (n, k, 2); NaN for a row without an interval

    def take(self, rows: NDArray[np.intp] | slice) -> "Scored":
        """Return some of the rows, in this order."""
        intervals = None if self.intervals is None else self.intervals[rows]
        return Scored(self.predictions[rows], self.observed[rows], self.weights[rows], intervals)


@dataclass(frozen=True)
class Metrics:
    """Metrics of one target for a group of rows. Averages are weighted. None: see `unavailable`."""

    rows: int
    rmse: float | None = None
    mae: float | None = None
    bias: float | None = None  # mean of prediction minus observation
    r2: float | None = None  # about the mean of these rows
    max_absolute_error: float | None = None
    interval_rows: int = 0  # rows that have an interval
    interval_coverage: float | None = None
    mean_interval_width: float | None = None


@dataclass(frozen=True)
class Decile:
    """Rows whose predictions are in one tenth of all predictions. Rows with equal predictions are never divided."""

    decile: int  # from 1
    rows: int
    mean_predicted: float | None
    mean_observed: float | None


class ErrorSums:
    """Sums of the errors of k targets in g groups of rows. Each array is (g, k)."""

    def __init__(self, groups: int, targets: int) -> None:
        def zeros() -> Array:
            return np.zeros((groups, targets))

        self.rows, self.weight = zeros(), zeros()
        self.error, self.absolute, self.squared, self.largest = zeros(), zeros(), zeros(), zeros()
        # Of the observations: a number near all of them, their mean above it, and the sum of squares about the mean.
        self.shift, self.mean, self.spread = zeros(), zeros(), zeros()
        self.interval_rows, self.interval_weight, self.covered, self.width = zeros(), zeros(), zeros(), zeros()

    @property
    def _sums(self) -> list[Array]:
        """The arrays that add up."""
        interval = [self.interval_rows, self.interval_weight, self.covered, self.width]
        return [self.rows, self.weight, self.error, self.absolute, self.squared, *interval]

    def add(self, scored: Scored, groups: NDArray[np.intp] | None = None) -> None:
        """Add rows. `groups` has the group of each, (n,), below 2^15; without it, all are in group 0."""
        if not len(scored.weights):
            return
        if groups is None:
            starts, present = np.zeros(1, dtype=np.intp), np.zeros(1, dtype=np.intp)
        else:
            order = np.argsort(groups.astype(np.int16), kind="stable")  # a radix sort
            scored = scored.take(order)
            present, starts = np.unique(groups[order], return_index=True)
        with np.errstate(over="ignore", invalid="ignore"):
            self._add(scored, present, starts)

    def _add(self, scored: Scored, present: NDArray[np.intp], starts: NDArray[np.intp]) -> None:
        is_used = ~np.isnan(scored.observed)
        weights = np.where(is_used, scored.weights[:, np.newaxis], 0.0)
        observed = np.where(is_used, scored.observed, 0.0)
        errors = np.where(is_used, scored.predictions - observed, 0.0)
        absolute = np.abs(errors)

        def totals(values: Array) -> Array:
            return np.add.reduceat(values, starts, axis=0)

        part = ErrorSums(0, 0)
        part.rows, part.weight = totals(_floats(is_used)), totals(weights)
        part.error, part.absolute = totals(weights * errors), totals(weights * absolute)
        part.squared = totals(weights * errors**2)
        interval = _interval_terms(scored, is_used)
        part.interval_rows, part.interval_weight, part.covered, part.width = map(totals, interval)
        part.largest = np.maximum.reduceat(absolute, starts, axis=0)
        sizes = np.diff([*starts, len(weights)])
        rough = _ratio(totals(weights * observed), part.weight)
        part.shift = np.where(self.weight[present] > 0, self.shift[present], rough)
        above = np.where(is_used, observed - np.repeat(part.shift, sizes, axis=0), 0.0)
        part.mean = _ratio(totals(weights * above), part.weight)
        part.spread = totals(weights * (above - np.repeat(part.mean, sizes, axis=0)) ** 2)
        self._merge(part, present)

    def _merge(self, part: "ErrorSums", groups: NDArray[np.intp]) -> None:
        """Add the sums of `part` to these distinct groups."""
        weight, shift, mean = self.weight[groups], self.shift[groups], self.mean[groups]
        is_first, is_empty = weight == 0, part.weight == 0
        share = _ratio(part.weight, weight + part.weight)
        distance = part.mean + (part.shift - shift) - mean
        between = np.where(is_first | is_empty, 0.0, distance**2 * weight * share)
        self.spread[groups] += part.spread + between
        moved = np.where(is_empty, mean, mean + distance * share)
        self.mean[groups] = np.where(is_first, part.mean, moved)
        self.shift[groups] = np.where(is_first, part.shift, shift)
        self.largest[groups] = np.maximum(self.largest[groups], part.largest)
        for mine, theirs in zip(self._sums, part._sums, strict=True):  # noqa: SLF001 - of the same class
            mine[groups] += theirs

    def united(self, groups: Sequence[int]) -> "ErrorSums":
        """Return the sums of some groups together, as one group."""
        union, place = ErrorSums(1, self.rows.shape[1]), np.zeros(1, dtype=np.intp)
        with np.errstate(over="ignore", invalid="ignore"):
            for group in groups:
                part = ErrorSums(0, 0)
                vars(part).update({name: values[[group]] for name, values in vars(self).items()})
                union._merge(part, place)
        return union

    def metrics(self, group: int, target: int) -> Metrics:
        """Return the metrics of one target in one group."""
        (place, weight) = (group, target), float(self.weight[group, target])
        rows, interval_rows = int(self.rows[place]), int(self.interval_rows[place])
        if not rows:
            return Metrics(0)
        with np.errstate(all="ignore"):
            spread, interval_weight = self.spread[place], self.interval_weight[place]
            return Metrics(
                rows,
                rmse=_finite(np.sqrt(self.squared[place] / weight)),
                mae=_finite(self.absolute[place] / weight),
                bias=_finite(self.error[place] / weight),
                r2=_finite(1 - self.squared[place] / spread) if spread > 0 else None,
                max_absolute_error=_finite(self.largest[place]),
                interval_rows=interval_rows,
                interval_coverage=_finite(self.covered[place] / interval_weight) if interval_rows else None,
                mean_interval_width=_finite(self.width[place] / interval_weight) if interval_rows else None,
            )

    def unavailable(self, group: int, target: int) -> dict[str, str]:
        """Return the reason for each metric that is None, except those of intervals if there are none."""
        metrics, place = self.metrics(group, target), (group, target)
        if not metrics.rows:
            return dict.fromkeys((*_ERRORS, *INTERVAL_METRICS), NO_ROWS)
        names = (*_ERRORS, *INTERVAL_METRICS) if metrics.interval_rows else _ERRORS
        reasons = {name: OUT_OF_RANGE for name in names if getattr(metrics, name) is None}
        if metrics.r2 is None and self.spread[place] == 0:
            reasons["r2"] = NO_VARIATION
        return reasons


def _interval_terms(scored: Scored, is_used: NDArray[np.bool_]) -> tuple[Array, Array, Array, Array]:
    """Return for each row whether it has an interval, its weight if so, if it is covered, and times the width."""
    if scored.intervals is None:
        none = np.zeros(is_used.shape)
        return none, none, none, none
    low, high = scored.intervals[..., 0], scored.intervals[..., 1]
    has_interval = is_used & ~np.isnan(low)
    weights = np.where(has_interval, scored.weights[:, np.newaxis], 0.0)
    is_covered = has_interval & (low <= scored.observed) & (scored.observed <= high)
    width = np.where(has_interval, high - low, 0.0)
    return _floats(has_interval), weights, weights * is_covered, weights * width


class Calibration:
    """Predictions of one target and the means of the observations, from which deciles are made.

    Every row is a point, and rows with equal predictions are one point. If there are more than `exact_rows` points,
    neighbours are joined to half as many points of about equal numbers of rows. A row is then at most a few such points
    away from its place in the order of all predictions.
    """

    def __init__(self, exact_rows: int = EXACT_ROWS) -> None:
        self.is_exact = True
        self._limit = exact_rows
        self._parts: list[Array] = []  # (_FIELDS, m) each
        self._length = 0

    def add(self, predictions: Array, observed: Array, weights: Array) -> None:
        """Add rows, (n,) each. Those whose observation is NaN are left out."""
        used = ~np.isnan(observed)
        if not used.all():
            predictions, observed, weights = predictions[used], observed[used], weights[used]
        points = np.empty((_FIELDS, len(observed)))
        points[0], points[1], points[2], points[3] = predictions, observed, weights, 1.0
        self._parts.append(points)
        self._length += len(observed)
        if self._length > 2 * self._limit:
            self._compact()

    def _compact(self) -> None:
        points = _united_ties(np.concatenate(self._parts, axis=1))
        if points.shape[1] > self._limit:
            self.is_exact = False
            points = _united_neighbours(points, self._limit // 2)
        self._parts, self._length = [points], points.shape[1]

    def deciles(self) -> list[Decile]:
        """Return the deciles that have rows, by the predictions.

        The boundaries are the inverse of the empirical distribution function (Hyndman and Fan, The American
        Statistician 50, 1996, definition 1). A row belongs to the first decile whose boundary is not below its
        prediction.
        """
        if not self._length:
            return []
        points = _united_ties(np.concatenate(self._parts, axis=1))
        reached = np.cumsum(points[3]).astype(np.int64)
        boundaries = np.searchsorted(DECILES * reached, np.arange(1, DECILES) * reached[-1])
        deciles = np.searchsorted(boundaries, np.arange(len(reached)))
        present, starts = np.unique(deciles, return_index=True)
        means = _joined(points, starts)
        return [
            Decile(int(decile) + 1, int(rows), _finite(predicted), _finite(observed))
            for decile, (predicted, observed, _, rows) in zip(present, means.T, strict=True)
        ]


def exact_rows(targets: int) -> int:
    """Return the number of rows with distinct predictions up to which the deciles of each target are exact."""
    return min(EXACT_ROWS, max(MIN_EXACT_ROWS, EXACT_VALUES // targets))


def evaluation_bytes(groups: int, targets: int) -> int:
    """Return the bytes that `ErrorSums` of all groups and a `Calibration` of each target take, with what they sort."""
    sums = len(vars(ErrorSums(0, 0))) * _NUMBER_BYTES * (groups + 1) * targets
    points = 2 * _FIELDS * _NUMBER_BYTES * exact_rows(targets)
    return sums + points * (targets + 2)


def _united_ties(points: Array) -> Array:
    """Return points in the order of their predictions, with those of equal predictions as one."""
    points = points[:, np.argsort(points[0])]
    is_new = np.empty(points.shape[1], dtype=bool)
    is_new[:1], is_new[1:] = True, points[0, 1:] != points[0, :-1]
    if is_new.all():
        return points
    starts = np.flatnonzero(is_new)
    united = _joined(points, starts)
    united[0] = points[0, starts]  # without rounding
    return united


def _united_neighbours(points: Array, cells: int) -> Array:
    """Return sorted points as at most `cells` points, of about equal numbers of rows."""
    reached = np.cumsum(points[3])
    cell = np.floor((reached - points[3] / 2) * (cells / reached[-1]))
    return _joined(points, np.flatnonzero(np.diff(cell, prepend=-1)))


def _joined(points: Array, starts: NDArray[np.intp]) -> Array:
    """Return the weighted means of the points from each start to the next, with their weight and number of rows."""
    with np.errstate(over="ignore", invalid="ignore"):
        joined = np.empty((_FIELDS, len(starts)))
        np.add.reduceat(points[2] * points[:2], starts, axis=1, out=joined[:2])
        np.add.reduceat(points[2:], starts, axis=1, out=joined[2:])
        joined[:2] /= joined[2]
    return joined


def _ratio(values: Array, weight: Array) -> Array:
    return np.divide(values, weight, out=np.zeros_like(values), where=weight > 0)


def _floats(values: NDArray[np.generic]) -> Array:
    return values.astype(np.float64, copy=False)


def _finite(value: np.floating | float) -> float | None:
    return float(value) if np.isfinite(value) else None
