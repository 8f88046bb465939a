"""Likelihood of a fitted model with normal errors, and the information criteria AIC and BIC."""

from dataclasses import dataclass

import numpy as np

from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array, SufficientStatistics

DISCOUNTED = "Decay reduced the weights of earlier rows, so the weighted sums are not the likelihood of the rows."
NOT_RECORDED = (
    "This version is from before the sum of the logarithms of its weights was recorded. Train the model again from its "
    "rows."
)


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
