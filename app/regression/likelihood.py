"""The likelihood of a fitted model with normal errors, and the information criteria that follow from it."""

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
    """Maximum of the log-likelihood for each of k targets, and its criteria: lower is better.

    -inf and inf for a target without residuals.
    """

    log_likelihood: Array  # (k,)
    aic: Array  # (k,)
    bic: Array  # (k,)


def why_no_likelihood(statistics: SufficientStatistics) -> str | None:
    """Return why no likelihood can be given for these rows, in a sentence for the reader; None if it can.

    It is not given either for a model whose `inference_unavailable` says why its coefficients are not those of maximum
    likelihood: a ridge penalty, a descent that stopped early, residuals that are rounding errors.
    """
    if statistics.discounted:
        return DISCOUNTED
    return NOT_RECORDED if np.isnan(statistics.log_weights) else None


def likelihood(model: LinearModel) -> Likelihood:
    """Return 1/2 (sum of log w - n (log(2 pi) + 1 - log n + log RSS)) with AIC = -2 ll + 2 q, BIC = -2 ll + q log n.

    This is R's logLik.lm, which has the same terms for precision weights w and rows n. Multiplying all weights by a
    number does not change it. With frequency weights, n is their sum and there is no term in log w: the value is that
    of the repeated rows. q counts the coefficients that the rows determine, the intercept among them, and the variance,
    as R's AIC and BIC do. statsmodels has the same log-likelihood but does not count the variance, so its AIC is
    smaller by 2 and its BIC by log n.
    """
    statistics = model.statistics
    n, parameters = statistics.effective_rows, model.rank + 1
    with np.errstate(divide="ignore"):
        log_rss = 2 * np.log(model.residual_norms)
    found = 0.5 * (statistics.log_weights - n * (np.log(2 * np.pi) + 1 - np.log(n) + log_rss))
    return Likelihood(found, -2 * found + 2 * parameters, -2 * found + parameters * np.log(n))
