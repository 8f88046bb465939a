"""Goodness of fit on the training rows, from their sufficient statistics: metrics, likelihood, AIC and BIC."""

import math
from dataclasses import dataclass

import numpy as np

from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array, SufficientStatistics

TINY = float(np.finfo(np.float64).tiny)

DISCOUNTED = "Decay reduced the weights of earlier rows, so the weighted sums are not the likelihood of the rows."
NOT_RECORDED = (
    "This version is from before the sum of the logarithms of its weights was recorded. Train the model again from its "
    "rows."
)


@dataclass(frozen=True, eq=False)
class Metrics:
    """Goodness of fit for k targets."""

    mse: float  # mean squared residual over rows and targets, as F.mse_loss; NaN as in `mean_square`
    rmse: Array  # (k,), in the target's unit
    r2: Array  # (k,), explained share of the variance; NaN for a constant target
    adjusted_r2: Array  # (k,), the same with unbiased variances; NaN without residual degrees of freedom


def training_metrics(
    statistics: SufficientStatistics, residual_norms: Array, *, rank: int, fit_intercept: bool = True
) -> Metrics:
    """Return the metrics of a model with these square roots of residual sums of squares, (k,).

    Without an intercept, the variance is about zero (Greene, Econometric Analysis, 7th ed., 3.5). `rank` is the number
    of coefficients that the rows determine.
    """
    total = statistics.total_norms(centred=fit_intercept)
    count, freedom = statistics.effective_rows, statistics.effective_rows - rank
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(total > 0, 1 - (residual_norms / total) ** 2, np.nan)
        adjusted = 1 - (1 - r2) * (count - fit_intercept) / freedom if freedom > 0 else np.full_like(r2, np.nan)
    rmse = residual_norms / np.sqrt(statistics.total_weight)
    return Metrics(mse=mean_square(rmse), rmse=rmse, r2=r2, adjusted_r2=adjusted)


def mean_square(values: Array) -> float:
    """Return the mean of the squares; NaN if it leaves the range in which float64 has all its digits."""
    with np.errstate(over="ignore", under="ignore"):
        mean = float((values**2).mean())
    if np.isfinite(mean) and (mean >= TINY or not values.any()):
        return mean
    return math.nan


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Maximum log-likelihood of k targets, and the criteria, of which lower is better.

    Infinite for a target without residuals.
    """

    log_likelihood: Array  # (k,)
    aic: Array  # (k,)
    bic: Array  # (k,)


def why_no_likelihood(statistics: SufficientStatistics) -> str | None:
    """Return the reason, a sentence, why these rows have no likelihood; None if they have one.

    A model with `inference_unavailable` has none either, since its coefficients are not those of maximum likelihood.
    """
    if statistics.discounted:
        return DISCOUNTED
    return NOT_RECORDED if np.isnan(statistics.log_weights) else None


def likelihood(model: LinearModel) -> Likelihood:
    """Return 1/2 (sum of log w - n (log(2 pi) + 1 - log n + log RSS)) with AIC = -2 ll + 2 q, BIC = -2 ll + q log n.

    The source is R's logLik.lm, with precision weights w and n rows. Multiplying all weights by a number does not
    change the result. With frequency weights, n is their sum and the term in log w is 0: the result is that of the
    repeated rows. As in R, q counts the coefficients that the rows determine, including the intercept, and the
    variance. statsmodels does not count the variance, so its AIC is smaller by 2 and its BIC by log n.
    """
    statistics = model.statistics
    n, parameters = statistics.effective_rows, model.rank + 1
    with np.errstate(divide="ignore"):
        log_rss = 2 * np.log(model.residual_norms)
    log_likelihood = 0.5 * (statistics.log_weights - n * (np.log(2 * np.pi) + 1 - np.log(n) + log_rss))
    return Likelihood(
        log_likelihood, -2 * log_likelihood + 2 * parameters, -2 * log_likelihood + parameters * np.log(n)
    )
