"""A trained linear model, ready to predict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from math import isfinite
from operator import mul

import numpy as np
from numpy.typing import NDArray

from app.errors import PredictionTooLarge
from app.regression.least_squares import Design
from app.regression.sufficient_statistics import Array, SufficientStatistics
from app.regression.terms import Factors, expand, parse_terms

AT_ONCE = 1 << 18  # values of columns made from rows
FEW_PRODUCTS = 100  # of a value and a weight, up to which plain Python is faster than numpy


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
    weights: Array  # (k, p), a row for each target, as nn.Linear keeps them
    intercept: Array  # (k,)
    statistics: SufficientStatistics
    residual_norms: Array  # (k,), square root of the sum of squared residuals of the training rows; NaN if withheld
    unscaled_errors: Array | None = None  # (1 + p,), of the coefficients, see Fit
    centre_prediction: Array | None = None  # (k,), at the shift of the statistics; None if it is not known
    has_intercept: bool = True
    terms: tuple[str, ...] = ()  # q of them, see app.regression.terms; none where the columns are the features
    no_intervals: str | None = None  # why inference is not valid for this model; None where it is

    @property
    def rank(self) -> int:
        """Number of coefficients the rows determine, the intercept among them."""
        return self.design.rank

    @property
    def degrees_of_freedom(self) -> float:
        return self.statistics.count - self.rank

    @property
    def columns(self) -> tuple[str, ...]:
        """What each weight belongs to: the terms, or else the features."""
        return self.terms or self.features

    def predict(self, x: Array) -> Array:
        """Predictions (m, k) for rows x (m, p).

        Raises PredictionTooLarge where a prediction leaves the range of 64-bit numbers.
        """
        if len(x) * self.weights.size <= FEW_PRODUCTS and not self.terms:
            return np.array(self.predict_few(x.tolist())).reshape(len(x), len(self.targets))
        with np.errstate(over="ignore", invalid="ignore"):
            # Columns that lie together give columns that do.
            if self.terms:
                y = np.concatenate([part @ self.weights.T for part in self._parts(x)])
            else:
                y = (self.weights @ x.T).T if x.flags.f_contiguous else x @ self.weights.T
            y += self.intercept
            finite = np.isfinite(y.sum())  # one pass; nearly always enough
        if not finite and not np.isfinite(y).all():
            raise PredictionTooLarge(int(np.flatnonzero(~np.isfinite(y).all(axis=1))[0]))
        return np.asarray(y)

    def predict_few(self, rows: Sequence[Sequence[float]]) -> list[list[float]]:
        """The same for rows that are few and plain numbers: what numpy takes to begin, they take to end.

        Only for a model without terms. Raises PredictionTooLarge.
        """
        weights, intercepts = self._plain
        # For each target sum(map(mul, its weights, row), its intercept), without a Python frame for any of it.
        predictions = [list(map(sum, map(map, repeat(mul), weights, repeat(row)), intercepts)) for row in rows]
        if not isfinite(sum(map(sum, predictions))):
            for index, row in enumerate(predictions):
                if not all(map(isfinite, row)):
                    raise PredictionTooLarge(index)
        return predictions

    @property
    def mean_prediction(self) -> Array:
        """The prediction for the mean of the training rows, (k,)."""
        return np.asarray(self.weights @ self._mean + self.intercept)

    def contributions(self, x: Array) -> Array:
        """B_j (x_j - mean_j), shape (m, k, p): summed over p they are the prediction less the mean prediction."""
        return np.asarray((self._expanded(x) - self._mean)[:, np.newaxis, :] * self.weights)

    def interval(self, x: Array, level: float, *, of_mean: bool = False) -> Array:
        """Intervals (m, k, 2) that hold a new observation with probability `level` (Greene, 4.6).

        `of_mean` gives the confidence interval of the expected value instead. Only where `no_intervals` is None. Raises
        PredictionTooLarge where a bound cannot be had in 64 bits.
        """
        from scipy.special import stdtrit  # a quarter of a second and 25 MB, for those who want intervals

        y = self.predict(x)
        with np.errstate(over="ignore"):
            spread = self.leverage(x) + (not of_mean)
            deviation = np.outer(np.sqrt(spread), self.residual_deviation)
            # By the lower tail: near 0 there are more digits than near 1.
            half = -stdtrit(self.degrees_of_freedom, (1 - level) / 2) * deviation
            bounds = np.stack([y - half, y + half], axis=-1)
        if not np.isfinite(bounds).all():
            raise PredictionTooLarge(int(np.flatnonzero(~np.isfinite(bounds).all(axis=(1, 2)))[0]))
        return bounds

    @property
    def residual_deviation(self) -> Array:
        """Estimated standard deviation of an observation of mean weight about its expectation, (k,)."""
        freedom = self.degrees_of_freedom * self.statistics.mean_weight
        return np.asarray(self.residual_norms / np.sqrt(freedom))

    def leverage(self, x: Array) -> Array:
        """H = 1/n + w (x - mean)' (X'WX)^-1 (x - mean), shape (m,), X being the centred training rows.

        W holds the rows' weights, and w is the mean weight. Without an intercept, w x' (X'WX)^-1 x of the rows as they
        are.
        """
        weight = self.statistics.mean_weight
        if self.has_intercept:
            shift, offset = self.statistics.shift[: len(self.columns)], self.statistics.offset[: len(self.columns)]
            least = weight / self.statistics.weight
        else:
            shift, offset, least = np.zeros(len(self.columns)), np.zeros(len(self.columns)), 0.0
        parts = [(self.design.whiten(part - shift - offset) ** 2).sum(axis=1) for part in self._parts(x)]
        return np.asarray(least + weight * np.concatenate(parts))

    def extrapolation(self, x: Array) -> Extrapolation:
        """Flags rows outside the training range of a feature, or with a leverage beyond 3 (p + 1) / n.

        Three times the mean leverage is the usual mark (Hoaglin and Welsch, 1978, take two).
        """
        leverage = self.leverage(x)
        low, high = self.statistics.minimum, self.statistics.maximum
        outside = np.concatenate([(part < low) | (part > high) for part in self._parts(x)])
        limit = 3 * self.rank / self.statistics.count
        return Extrapolation(leverage, outside, outside.any(axis=1) | (leverage > limit))

    def _parts(self, x: Array) -> Iterator[Array]:
        """The columns of some rows at a time: of a few features there may be thousands of terms."""
        rows = max(1, AT_ONCE // len(self.columns))
        for start in range(0, max(1, len(x)), rows):
            yield self._expanded(x[start : start + rows])

    def _expanded(self, x: Array) -> Array:
        return expand(x, self._parsed) if self.terms else x

    @cached_property
    def _plain(self) -> tuple[list[list[float]], list[float]]:
        return self.weights.tolist(), self.intercept.tolist()

    @cached_property
    def _parsed(self) -> list[Factors]:
        return parse_terms(self.terms, self.features)

    @cached_property
    def _mean(self) -> Array:
        return self.statistics.mean[: len(self.columns)]

    @cached_property
    def design(self) -> Design:
        """The feature side of the statistics: what the rows determine."""
        return Design.of(self.statistics, fit_intercept=self.has_intercept)
