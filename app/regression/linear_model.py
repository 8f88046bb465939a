"""A trained linear model, ready to predict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from app.regression.design import Design
from app.regression.errors import PredictionTooLarge
from app.regression.ordered_sum import MAX_ORDERED, OrderedSum
from app.regression.sufficient_statistics import EPSILON, Array, SufficientStatistics
from app.regression.terms import Factors, expand, parse_terms

AT_ONCE = 1 << 18  # values of columns made from rows
MAX_PYTHON_MULTIPLIES = 100  # of a value and a weight, up to which plain Python is faster than numpy
PLAIN_ERROR = 1e-10  # Error of a prediction in residual deviations, up to which the plain form is accurate enough.


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """How far rows lie from those the model was trained on."""

    leverage: Array  # (m,), infinite where a row leaves the space the training rows span
    outside: NDArray[np.bool_]  # (m, p), feature outside its training range
    flag: NDArray[np.bool_]  # (m,)


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Predicts k targets from p features: y = weights x + intercept, or weights times q terms made from x.

    Where there are terms, they are the columns that weights, statistics, contributions and extrapolation speak of.
    """

    features: tuple[str, ...]
    targets: tuple[str, ...]
    coef: Array  # (k, p), a row for each target, as nn.Linear keeps them
    intercept: Array  # (k,)
    statistics: SufficientStatistics
    residual_norms: Array  # (k,), square root of the sum of squared residuals of the training rows; NaN if withheld
    unscaled_errors: Array | None = None  # (1 + p,), of the coefficients, see Fit
    centre_prediction: Array | None = None  # (k,), at the shift of the statistics; None if it is not known
    has_intercept: bool = True
    terms: tuple[str, ...] = ()  # q of them, see app.regression.terms; none where the columns are the features
    inference_unavailable: str | None = None  # why inference is not valid for this model; None where it is

    @property
    def rank(self) -> int:
        """Number of coefficients the rows determine, the intercept among them."""
        return self.design.rank

    @property
    def degrees_of_freedom(self) -> float:
        return self.statistics.effective_rows - self.rank

    @property
    def columns(self) -> tuple[str, ...]:
        """What each weight belongs to: the terms, or else the features."""
        return self.terms or self.features

    def predict(self, x: Array) -> Array:
        """Return predictions (m, k) for rows x (m, p).

        Up to MAX_ORDERED coefficients, the bits of a prediction do not depend on the other rows or on how they lie in
        memory. With more coefficients, two predictions for the same row differ by at most (p + 3) EPSILON times
        |b| + sum |w_j x_j|, or in the centred form |c| + sum |w_j (x_j - shift_j)| (Higham, Accuracy and Stability of
        Numerical Algorithms, 2nd ed., 3.1, for any order of summation).

        The centred form is used where the plain one would lose digits, see `_centre`. A model without terms is then
        as accurate as its coefficients. Models with terms make no such promise, because a term is rounded when it is
        made, before anything can be taken from it.

        Raises PredictionTooLarge if a prediction leaves the range of 64-bit numbers.
        """
        if len(x) * self.coef.size <= MAX_PYTHON_MULTIPLIES:
            return np.array(self.predict_few(self._expanded(x).tolist())).reshape(len(x), len(self.targets))
        with np.errstate(over="ignore", invalid="ignore"):
            y = np.concatenate(list(map(self._sums, self._parts(x)))) if self.terms else self._sums(x)
            finite = isfinite(np.add.reduce(y, axis=None))  # one pass; nearly always enough
        if not finite and not np.isfinite(y).all():
            raise PredictionTooLarge(int(np.flatnonzero(~np.isfinite(y).all(axis=1))[0]))
        return np.asarray(y)

    def predict_few(self, rows: Sequence[Sequence[float]]) -> list[list[float]]:
        """Return the same for few rows of plain numbers: the values of the model's columns.

        Raises PredictionTooLarge.
        """
        predictions = self._ordered.sum_lists(rows)
        if not isfinite(sum(map(sum, predictions))):
            for index, row in enumerate(predictions):
                if not all(map(isfinite, row)):
                    raise PredictionTooLarge(index)
        return predictions

    @property
    def mean_prediction(self) -> Array:
        """Return the prediction for the mean of the training rows, (k,)."""
        if self.centre_prediction is None:
            return np.asarray(self.coef @ (self._shift + self._offset) + self.intercept)
        return np.asarray(self.coef @ self._offset + self.centre_prediction)

    def contributions(self, x: Array) -> Array:
        """Return B_j (x_j - mean_j), shape (m, k, p). Summed over p they are the prediction less the mean prediction.

        The mean is taken off as shift and offset, one after the other, because it is rounded when they are added.
        """
        return np.asarray((self._expanded(x) - self._shift - self._offset)[:, np.newaxis, :] * self.coef)

    def interval(
        self, x: Array, level: float, *, of_mean: bool = False, observation_weights: Array | None = None
    ) -> Array:
        """Return intervals (m, k, 2) that hold a new observation with probability `level` (Greene, 4.6).

        The observation has the mean weight of the training rows, or its own precision weight of `observation_weights`,
        (m,): its variance is s_w^2 (x'(X'WX)^-1 x + 1/w) with s_w^2 = RSS_w / df. `of_mean` gives the confidence
        interval of the expected value instead. Call it only if `inference_unavailable` is None.

        A row outside the space that the training rows span has no interval: its bounds are NaN. Raises
        PredictionTooLarge if another bound leaves the range of 64-bit numbers.
        """
        from scipy.special import stdtrit  # a quarter of a second and 25 MB, for those who want intervals

        y = self.predict(x)
        with np.errstate(over="ignore"):
            leverage = self.leverage(x)
            outside = np.isinf(leverage) & self._leaves_span(x)
            own = np.ones(len(x))
            if observation_weights is not None:
                own = self.statistics.mean_weight / observation_weights
            spread = np.where(outside, np.nan, leverage + (0.0 if of_mean else own))
            deviation = np.outer(np.sqrt(spread), self.residual_deviation)
            # By the lower tail: near 0 there are more digits than near 1.
            half = -stdtrit(self.degrees_of_freedom, (1 - level) / 2) * deviation
            bounds = np.stack([y - half, y + half], axis=-1)
        beyond = ~outside & ~np.isfinite(bounds).all(axis=(1, 2))
        if beyond.any():
            raise PredictionTooLarge(int(np.flatnonzero(beyond)[0]))
        return bounds

    @property
    def residual_deviation(self) -> Array:
        """Estimated standard deviation of an observation of mean weight about its expectation, (k,)."""
        freedom = self.degrees_of_freedom * self.statistics.mean_weight
        return np.asarray(self.residual_norms / np.sqrt(freedom))

    def leverage(self, x: Array) -> Array:
        """Return H = 1/n + w (x - mean)' (X'WX)^-1 (x - mean), shape (m,), X being the centred training rows.

        W holds the rows' weights, and w is the mean weight. Without an intercept, w x' (X'WX)^-1 x of the rows as they
        are. Infinite for a row outside the space that the training rows span.
        """
        weight = self.statistics.mean_weight
        least = weight / self.statistics.total_weight if self.has_intercept else 0.0
        squares = [(part**2).sum(axis=1) for part in self._whitened(x)]
        return np.asarray(least + weight * np.concatenate(squares))

    def _leaves_span(self, x: Array) -> NDArray[np.bool_]:
        """Return which rows leave the space that the training rows span, (m,)."""
        if self.design.full_rank:
            return np.zeros(len(x), dtype=bool)
        return np.concatenate([np.isinf(part).any(axis=1) for part in self._whitened(x)])

    def _whitened(self, x: Array) -> Iterator[Array]:
        for part in self._parts(x):
            yield self.design.whiten(part - self._shift - self._offset if self.has_intercept else part)

    def extrapolation(self, x: Array) -> Extrapolation:
        """Flags rows outside the training range of a feature, or with a leverage beyond 3 r / n, r being the rank.

        Three times the mean leverage is the usual mark (Hoaglin and Welsch, 1978, take two).
        """
        leverage = self.leverage(x)
        low, high = self.statistics.minimum, self.statistics.maximum
        outside = np.concatenate([(part < low) | (part > high) for part in self._parts(x)])
        limit = 3 * self.rank / self.statistics.effective_rows
        return Extrapolation(leverage, outside, outside.any(axis=1) | (leverage > limit))

    def _parts(self, x: Array) -> Iterator[Array]:
        """The columns of some rows at a time: of a few features there may be thousands of terms."""
        rows = max(1, AT_ONCE // len(self.columns))
        for start in range(0, max(1, len(x)), rows):
            yield self._expanded(x[start : start + rows])

    def _expanded(self, x: Array) -> Array:
        return expand(x, self._parsed) if self.terms else x

    def _sums(self, columns: Array) -> Array:
        """Return start + weights (x - centre), (m, k), for rows of columns (m, p)."""
        if self.coef.size <= MAX_ORDERED:
            return self._ordered.sum_rows(columns)
        if self._centre is not None:
            columns = columns - self._centre
        # Columns that are contiguous in memory give columns that are.
        y = (self.coef @ columns.T).T if columns.flags.f_contiguous else columns @ self.coef.T
        y += self._start
        return np.asarray(y)

    @cached_property
    def _centre(self) -> Array | None:
        """What is taken off the columns before they are weighted, (p,): the shift of the statistics, or None.

        The plain form intercept + weights x is off by at most (p + 4) EPSILON (|intercept| + sum |w_j| max |x_j|), the
        rounding of the coefficients included. If that may exceed PLAIN_ERROR residual deviations, and deviations from
        the shift make the bound less than half as large, predictions are summed from these deviations. The residuals'
        root mean square stands for the residual deviation, which is not less. If it is not known, it counts as zero.
        """
        if self.centre_prediction is None:
            return None
        low, high = self.statistics.minimum, self.statistics.maximum
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            size = np.abs(self.coef)
            plain = np.abs(self.intercept) + size @ np.maximum(np.abs(low), np.abs(high))
            reach = np.maximum(np.abs(low - self._shift), np.abs(high - self._shift))
            centred = np.abs(self.centre_prediction) + size @ reach
            deviation = self.residual_norms / np.sqrt(self.statistics.effective_rows * self.statistics.mean_weight)
            allowed = PLAIN_ERROR * np.where(np.isfinite(deviation), deviation, 0.0)
            lossy = (len(self.columns) + 4) * EPSILON * plain > allowed
        return self._shift if bool((lossy & (centred < plain / 2)).any()) else None

    @cached_property
    def _start(self) -> Array:
        """The prediction where all that is weighted is zero, (k,)."""
        if self._centre is None or self.centre_prediction is None:
            return self.intercept
        return self.centre_prediction

    @cached_property
    def _ordered(self) -> OrderedSum:
        return OrderedSum(self.coef, self._start, self._centre)

    @cached_property
    def _parsed(self) -> list[Factors]:
        return parse_terms(self.terms, self.features)

    @cached_property
    def _shift(self) -> Array:
        return self.statistics.shift[: len(self.columns)]

    @cached_property
    def _offset(self) -> Array:
        return self.statistics.offset[: len(self.columns)]

    @cached_property
    def design(self) -> Design:
        """The feature side of the statistics: what the rows determine."""
        return Design.of(self.statistics, fit_intercept=self.has_intercept)
