"""A trained linear model: predictions, intervals, contributions and extrapolation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from app.regression.design import Design
from app.regression.errors import PredictionTooLarge, StatisticsUnknown
from app.regression.ordered_sum import MAX_ORDERED, OrderedSum
from app.regression.sufficient_statistics import EPSILON, Array, SufficientStatistics, column_norms
from app.regression.terms import Factors, expand, parse_terms

MAX_CHUNK_VALUES = 1 << 18  # Values of columns that are computed at once.
# Multiplications of a matrix product up to which OpenBLAS uses one thread. The others cost more time than they save,
# because they wait for each other in a loop.
MAX_SERIAL_MULTIPLIES = 1 << 18
MIN_SERIAL_ROWS = 64  # Rows at a time below which a product is left to several threads.
MAX_PYTHON_MULTIPLIES = 100  # Products of a value and a coefficient up to which plain Python is faster than numpy.
TYPICAL_REACH = 3.0  # Standard deviations within which most values of a column are, if its range is not known.
RANGES_UNKNOWN = (
    "The ranges of some columns in training are not known, because a file that was merged or imported has none. "
    "Values outside of these ranges are not noticed."
)
PLAIN_ERROR = 1e-10  # Error of a prediction, in residual deviations, up to which the plain form is accurate enough.


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """Distance of m rows from the training rows."""

    leverage: Array  # (m,); infinite for a row outside the space that the training rows span
    outside: NDArray[np.bool_]  # (m, p), columns outside their training range
    flag: NDArray[np.bool_]  # (m,), rows outside a range or with a high leverage


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Predict k targets from p features: y = coef x + intercept, or coef times q terms made from x.

    With terms, p in shapes of coefficients, statistics, contributions and extrapolation is q. Without statistics, the
    means of the columns count as 0, and intervals, leverages and extrapolation raise StatisticsUnknown.
    """

    features: tuple[str, ...]
    targets: tuple[str, ...]
    coef: Array  # (k, p), a row for each target, as in nn.Linear
    intercept: Array  # (k,)
    known_statistics: SufficientStatistics | None  # None for a model that was fitted elsewhere and came without them
    residual_norms: Array  # (k,), square root of the training rows' RSS; NaN if withheld
    unscaled_errors: Array | None = None  # (1 + p,), see `Fit`
    centre_prediction: Array | None = None  # (k,), prediction at the shift of the statistics; None if unknown
    has_intercept: bool = True
    terms: tuple[str, ...] = ()  # q terms, see app.regression.terms; empty if the columns are the features
    inference_unavailable: str | None = None  # reason why inference is not valid; None if it is
    stored_rank: int | None = None  # the rank, if it is known without decomposing the design
    stored_centre: Array | None = None  # (p,), the shift of a model without statistics, if it has a centre prediction

    @property
    def has_statistics(self) -> bool:
        """True if the summary of the training rows is known. Without it, the model can only predict and explain."""
        return self.known_statistics is not None

    @property
    def statistics(self) -> SufficientStatistics:
        """The summary of the training rows. Raises StatisticsUnknown if the model came without it."""
        if self.known_statistics is None:
            raise StatisticsUnknown
        return self.known_statistics

    @property
    def rank(self) -> int:
        """Number of coefficients that the rows determine, including the intercept."""
        return self.design.rank if self.stored_rank is None else self.stored_rank

    @property
    def degrees_of_freedom(self) -> float:
        return self.statistics.effective_rows - self.rank

    @property
    def ranges(self) -> tuple[Array, Array]:
        """The minimum and the maximum of each column in training, (p,) each; NaN if they are not known."""
        if self.known_statistics is None:
            unknown = np.full(len(self.columns), np.nan)
            return unknown, unknown
        return self.known_statistics.minimum, self.known_statistics.maximum

    @property
    def unknown_ranges(self) -> NDArray[np.bool_]:
        """Return for each column, (p,), whether its training range is not known."""
        return np.isnan(self.ranges[0])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `coef`: the terms, or else the features."""
        return self.terms or self.features

    def predict(self, x: Array) -> Array:
        """Return predictions (m, k) for rows x (m, p).

        Up to MAX_ORDERED coefficients, the bits of a prediction do not depend on the other rows or on the memory
        layout. With more coefficients, two predictions for the same row differ by at most (p + 3) EPSILON times
        |b| + sum |w_j x_j|, or in the centred form |c| + sum |w_j (x_j - shift_j)| (Higham, Accuracy and Stability of
        Numerical Algorithms, 2nd ed., 3.1, for any order of summation). The centred form is used if the plain one would
        lose digits. Terms are rounded before the centre is subtracted, so models with terms may be less accurate.

        Raises PredictionTooLarge if a prediction exceeds the range of 64-bit numbers.
        """
        if len(x) * self.coef.size <= MAX_PYTHON_MULTIPLIES:
            return np.array(self.predict_few(self._expanded(x).tolist())).reshape(len(x), len(self.targets))
        with np.errstate(over="ignore", invalid="ignore"):
            y = np.concatenate(list(map(self._sums, self._chunks(x)))) if self.terms else self._sums(x)
            finite = isfinite(np.add.reduce(y, axis=None))  # one pass, which is nearly always enough
        if not finite and not np.isfinite(y).all():
            raise PredictionTooLarge(int(np.flatnonzero(~np.isfinite(y).all(axis=1))[0]))
        return np.asarray(y)

    def predict_few(self, rows: Sequence[Sequence[float]]) -> list[list[float]]:
        """Return the bits of `predict` for a few rows of plain numbers, the values of the model's columns."""
        predictions = self._ordered.sum_lists(rows)
        if not isfinite(sum(map(sum, predictions))):
            for index, row in enumerate(predictions):
                if not all(map(isfinite, row)):
                    raise PredictionTooLarge(index)
        return predictions

    @property
    def mean_prediction(self) -> Array:
        """Prediction at the mean of the training rows, (k,); the intercept if their mean is not known."""
        if self.known_statistics is None:
            return self.intercept
        if self.centre_prediction is None:
            return np.asarray(self.coef @ (self._shift + self._offset) + self.intercept)
        return np.asarray(self.coef @ self._offset + self.centre_prediction)

    def contributions(self, x: Array) -> Array:
        """Return coef_j (x_j - mean_j), (m, k, p). Their sum over p is the prediction minus the mean prediction.

        A mean that is not known counts as 0.
        """
        return np.asarray(self._deviations(self._expanded(x))[:, np.newaxis, :] * self.coef)

    def _deviations(self, columns: Array) -> Array:
        """Return the deviations from the mean. It is the sum of shift and offset, which would be rounded."""
        return columns if self.known_statistics is None else columns - self._shift - self._offset

    def interval(
        self, x: Array, level: float, *, of_mean: bool = False, observation_weights: Array | None = None
    ) -> Array:
        """Return intervals (m, k, 2) that contain a new observation with probability `level`.

        The observation has the mean weight of the training rows, or its own precision weight of `observation_weights`,
        (m,). Its variance is s_w^2 (x'(X'WX)^-1 x + 1/w) with s_w^2 = RSS_w / df (Greene, Econometric Analysis, 7th
        ed., 4.6). With `of_mean`, return confidence intervals of the expected value instead. Bounds are NaN for a row
        outside the space that the training rows span. Call it only if `inference_unavailable` is None.

        Raises PredictionTooLarge if another bound exceeds the range of 64-bit numbers.
        """
        from scipy.special import stdtrit  # a quarter of a second and 25 MB, only for intervals

        y = self.predict(x)
        with np.errstate(over="ignore"):
            leverage = self.leverage(x)
            outside = np.isinf(leverage) & self._leaves_span(x)
            own = 1.0 if observation_weights is None else self.statistics.mean_weight / observation_weights
            spread = np.where(outside, np.nan, leverage + (0.0 if of_mean else own))
            deviation = np.outer(np.sqrt(spread), self.residual_deviation)
            # By the lower tail: numbers near 0 have more digits than numbers near 1.
            half = -stdtrit(self.degrees_of_freedom, (1 - level) / 2) * deviation
            bounds = np.stack([y - half, y + half], axis=-1)
        overflow = ~outside & ~np.isfinite(bounds).all(axis=(1, 2))
        if overflow.any():
            raise PredictionTooLarge(int(np.flatnonzero(overflow)[0]))
        return bounds

    @property
    def residual_deviation(self) -> Array:
        """Estimated standard deviation of an observation of mean weight about its expectation, (k,)."""
        freedom = self.degrees_of_freedom * self.statistics.mean_weight
        return np.asarray(self.residual_norms / np.sqrt(freedom))

    def leverage(self, x: Array) -> Array:
        """Return H = 1/n + w (x - mean)' (X'WX)^-1 (x - mean), (m,), with X the centred training rows.

        W has the rows' weights on its diagonal, and w is the mean weight. Without an intercept, H = w x' (X'WX)^-1 x
        with rows that are not centred. Infinite for a row outside the space that the training rows span.
        """
        weight = self.statistics.mean_weight
        least = weight / self.statistics.total_weight if self.has_intercept else 0.0
        squares = [(chunk**2).sum(axis=1) for chunk in self._whitened(x)]
        return np.asarray(least + weight * np.concatenate(squares))

    def _leaves_span(self, x: Array) -> NDArray[np.bool_]:
        """Return for each row whether it is outside the space that the training rows span."""
        if self.design.full_rank:
            return np.zeros(len(x), dtype=bool)
        return np.concatenate([np.isinf(chunk).any(axis=1) for chunk in self._whitened(x)])

    def _whitened(self, x: Array) -> Iterator[Array]:
        for chunk in self._chunks(x, MAX_SERIAL_MULTIPLIES // len(self.columns) ** 2):
            yield self.design.whiten(self._deviations(chunk) if self.has_intercept else chunk)

    def extrapolation(self, x: Array) -> Extrapolation:
        """Flag rows outside the training range of a column, or with a leverage above 3 r / n, with r the rank.

        Three times the mean leverage is a common threshold (Hoaglin and Welsch, The American Statistician 32, 1978,
        recommend twice). No value is outside a range that is not known, which is NaN.
        """
        leverage = self.leverage(x)
        low, high = self.statistics.minimum, self.statistics.maximum
        outside = np.concatenate([(chunk < low) | (chunk > high) for chunk in self._chunks(x)])
        limit = 3 * self.rank / self.statistics.effective_rows
        return Extrapolation(leverage, outside, outside.any(axis=1) | (leverage > limit))

    def _chunks(self, x: Array, most: int = 0) -> Iterator[Array]:
        """Yield the columns of some rows at a time, at most `most` unless that is below MIN_SERIAL_ROWS.

        A few features may have thousands of terms.
        """
        rows = max(1, MAX_CHUNK_VALUES // len(self.columns))
        if most >= MIN_SERIAL_ROWS:
            rows = min(rows, most)
        for start in range(0, max(1, len(x)), rows):
            yield self._expanded(x[start : start + rows])

    def _expanded(self, x: Array) -> Array:
        return expand(x, self._factors) if self.terms else x

    def _sums(self, columns: Array) -> Array:
        """Return start + coef (x - centre), (m, k), for rows of columns (m, p)."""
        if self.coef.size <= MAX_ORDERED:
            return self._ordered.sum_rows(columns)
        if self.centre is not None:
            columns = columns - self.centre
        # The result has the memory layout of the columns.
        y = (self.coef @ columns.T).T if columns.flags.f_contiguous else columns @ self.coef.T
        y += self.start
        return np.asarray(y)

    @cached_property
    def centre(self) -> Array | None:
        """Values of the columns, (p,), that predictions subtract first; None if the plain form is accurate enough."""
        if self.known_statistics is None:
            return self.stored_centre
        return self._shift if _needs_centre(self) else None

    @cached_property
    def start(self) -> Array:
        """Prediction at the centre, (k,)."""
        if self.centre is None or self.centre_prediction is None:
            return self.intercept
        return self.centre_prediction

    @cached_property
    def _ordered(self) -> OrderedSum:
        return OrderedSum(self.coef, self.start, self.centre)

    @cached_property
    def _factors(self) -> list[Factors]:
        return parse_terms(self.terms, self.features)

    @cached_property
    def shift(self) -> Array | None:
        """Values of the columns, (p,), at which the prediction is `centre_prediction`; None if they are not known."""
        return self.stored_centre if self.known_statistics is None else self._shift

    @cached_property
    def _shift(self) -> Array:
        return self.statistics.shift[: len(self.columns)]

    @cached_property
    def _offset(self) -> Array:
        return self.statistics.offset[: len(self.columns)]

    @cached_property
    def design(self) -> Design:
        """Design of the training rows."""
        return Design.of(self.statistics, fit_intercept=self.has_intercept)

    @property
    def has_decomposed_design(self) -> bool:
        """Return True if inference needs no further memory for decomposing the design."""
        return "design" in vars(self) and self.design.is_decomposed


def _needs_centre(model: LinearModel) -> bool:
    """Return True if predictions are to be computed from deviations from the shift of the statistics.

    The plain form intercept + coef x is off by at most (p + 4) EPSILON (|intercept| + sum |w_j| max |x_j|), which
    includes the rounding of the coefficients. Deviations are used if that may exceed PLAIN_ERROR root mean squares of
    the residuals, and if they make the bound less than half as large. An unknown residual counts as zero. An unknown
    range is replaced by that of most values.
    """
    if model.centre_prediction is None:
        return False
    statistics, p = model.statistics, len(model.columns)
    (low, high), shift = _typical_ranges(model), statistics.shift[:p]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        size = np.abs(model.coef)
        plain = np.abs(model.intercept) + size @ np.maximum(np.abs(low), np.abs(high))
        centred = np.abs(model.centre_prediction) + size @ np.maximum(np.abs(low - shift), np.abs(high - shift))
        deviation = model.residual_norms / np.sqrt(statistics.effective_rows * statistics.mean_weight)
        allowed = PLAIN_ERROR * np.where(np.isfinite(deviation), deviation, 0.0)
        lossy = (p + 4) * EPSILON * plain > allowed
    return bool((lossy & (centred < plain / 2)).any())


def _typical_ranges(model: LinearModel) -> tuple[Array, Array]:
    """Return the minimum and the maximum of each column, (p,), or the range of most values if they are not known."""
    statistics, p, unknown = model.statistics, len(model.columns), model.unknown_ranges
    low, high = statistics.minimum, statistics.maximum
    if not unknown.any():
        return low, high
    with np.errstate(over="ignore"):
        deviations = column_norms(statistics.factor[1:, 1 : p + 1]) * statistics.scale[:p]
        reach = TYPICAL_REACH * deviations / np.sqrt(statistics.total_weight)
    mean = statistics.mean[:p]
    return np.where(unknown, mean - reach, low), np.where(unknown, mean + reach, high)
