"""Statistics of a category as a whole: the joint F test of its indicators, and marginal means by level.

The tests and intervals are those of `app.regression.hypothesis_tests` and `LinearModel.interval`, for several columns
together.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.regression.design import Design
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array, column_norms, r_factor


@dataclass(frozen=True, eq=False)
class JointTest:
    """F test of the hypothesis that the coefficients of some columns are all 0, for k targets."""

    f_values: Array  # (k,); NaN if the columns depend on the others
    p_values: Array  # (k,)
    hypotheses: int  # degrees of freedom of the numerator: the rank that the model loses without the columns
    degrees_of_freedom: float  # of the denominator


def joint_f_test(model: LinearModel, columns: slice) -> JointTest:
    """Test whether the coefficients of columns are all 0, for a model whose `inference_unavailable` is None.

    The sum of squares that the columns explain in addition to the others is |E b|^2, with b their coefficients and E
    the columns without their projection on the others (Searle, Linear Models, 1971, 3.6 and 5.5). If the rank is full,
    F equals that of a Wald test. Otherwise it compares the models with and without the columns, as R's drop1 does.
    """
    from scipy.special import fdtrc  # a quarter of a second and 25 MB, only for inference

    design, freedom = model.design, model.degrees_of_freedom
    tested = np.zeros(len(design.norms), dtype=bool)
    tested[columns] = True
    additional, hypotheses = _additional(design, tested)
    explained = column_norms(additional @ (model.coef * design.norms)[:, tested].T)
    f = np.full(len(model.targets), np.nan)
    if hypotheses > 0:
        f = (explained / model.residual_norms) ** 2 * freedom / hypotheses
    return JointTest(f, np.asarray(fdtrc(hypotheses, freedom, f)), hypotheses, freedom)


def _additional(design: Design, tested: NDArray[np.bool_]) -> tuple[Array, int]:
    """Return the tested columns, at unit norm and without their projection on the other columns, and their rank.

    They are returned up to a rotation, which leaves their Gram matrix unchanged.
    """
    others, columns = design.unit_factor[:, ~tested], design.unit_factor[:, tested]
    if design.full_rank:
        rotated = r_factor(np.hstack([others, columns]))
        first = others.shape[1]
        return rotated[first:, first:], columns.shape[1]
    u, s, _ = np.linalg.svd(others, full_matrices=False)
    kept = u[:, design.are_nonzero(s)]
    return columns - kept @ (kept.T @ columns), design.rank - design.intercept - kept.shape[1]


@dataclass(frozen=True, eq=False)
class MarginalMeans:
    """Predictions for the m levels of a category, the reference level first, with all other columns at their means.

    NaN for a level without rows, and for a mean that the rows do not determine.
    """

    means: Array  # (m, k)
    lower: Array | None  # (m, k), confidence interval of the expected value; None if inference is not available
    upper: Array | None


def marginal_means(model: LinearModel, block: slice, level: float = 0.95) -> MarginalMeans:
    """Return the marginal means of a category, with confidence intervals of this level.

    `block` has the places of the category's indicators. The other columns are at the means of the training rows, so
    that each mean is the average prediction for these rows if they all had the level (Searle, Speed and Milliken, The
    American Statistician 34, 1980, with observed proportions for the other categories). If
    `model.inference_unavailable` gives a reason, there are no intervals.
    """
    from scipy.special import stdtrit  # a quarter of a second and 25 MB, only for inference

    statistics, design = model.statistics, model.design
    mean = statistics.mean[: statistics.features]
    count = len(mean[block])
    deviations = np.zeros((count + 1, len(mean)))
    deviations[:, block] = np.eye(count + 1, count, -1) - mean[block]
    lengths = design.lengths(deviations if model.has_intercept else deviations + mean)
    means = model.mean_prediction + deviations @ model.coef.T
    means[np.isinf(lengths)] = np.nan
    if model.inference_unavailable is not None:
        return MarginalMeans(means, None, None)
    weight = statistics.mean_weight
    least = weight / statistics.total_weight if model.has_intercept else 0.0
    lengths = np.where(np.isinf(lengths), np.nan, lengths)
    deviation = np.outer(np.sqrt(least + weight * lengths**2), model.residual_deviation)
    half = -stdtrit(model.degrees_of_freedom, (1 - level) / 2) * deviation
    return MarginalMeans(means, means - half, means + half)
