"""The view of a model card: what is stored of a version, and what classical theory makes of it.

Everything that is not stored is computed from the version's statistics when it is asked for.
"""

from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from pydantic import BaseModel, Field, RootModel

from app.registry.version_file import Version
from app.regression.solvers import solver_to_record
from app.regression.sufficient_statistics import WeightKind
from app.web.schemas.card_statistics import (
    MAX_COVARIANCE_COEFFICIENTS,
    MAX_DEPENDENCIES,
    NO_VARIATION,
    NOT_IDENTIFIABLE,
    CardStatistics,
)

DEFAULT_LEVEL = 0.95

Extra: TypeAlias = Literal["covariance"]


class Numbers(RootModel[dict[str, float | None]]):
    """Numbers by the names of targets, or of what else the field says. Null if a number is withheld."""


class NumbersByTarget(RootModel[dict[str, Numbers]]):
    """Numbers by the names of targets, and in each by the names of coefficients, or of what else the field says."""


class CovarianceView(BaseModel):
    coefficients: list[str] = Field(description="Names of the rows and columns, the intercept first.")
    matrices: dict[str, list[list[float | None]]] = Field(
        description=(
            "For each target. The square roots of the diagonal are the standard errors. Null for a coefficient without "
            "a standard error. The error is at most about 1e-16 times the condition number, relative to the product of "
            "the two standard errors."
        )
    )


class ModelView(BaseModel):
    """A model card: what is known of a version.

    A statistic that is not valid, or not known, is null, and `unavailable` has the reason.
    """

    model: str
    version: int
    current: bool = Field(description="Whether it is the one that is served.")
    features: list[str]
    targets: list[str]
    unused_columns: list[str] = Field(
        description="Columns of the training rows that are neither features nor targets, such as weights and groups. "
        "Rows to predict for may have them, and the targets: they are ignored."
    )
    terms: list[str] = Field(description="Made from the features; empty where the coefficients are the features' own.")
    intercept: dict[str, float]
    coefficients: dict[str, dict[str, float]]
    standard_errors: NumbersByTarget | None = Field(
        description=(
            "The intercept among them. Null for a coefficient that the rows do not determine: its unit vector does not "
            "lie in the row space of the design. R drops the later of two dependent columns instead."
        )
    )
    t_values: NumbersByTarget | None = Field(description="Coefficient divided by its standard error.")
    p_values: NumbersByTarget | None = Field(description="Two-sided, of the hypothesis that the coefficient is 0.")
    confidence_level: float = Field(description="Of `confidence_intervals`: the parameter `level`.")
    confidence_intervals: dict[str, dict[str, list[float] | None]] | None = Field(
        description="[lower, upper] at `confidence_level`."
    )
    f_tests: NumbersByTarget | None = Field(
        description=(
            "Of all coefficients but the intercept together: f and p_value. Without an intercept, against a prediction "
            "of zero."
        )
    )
    residual_deviation: Numbers | None = Field(
        description="Estimated standard deviation of the errors, for an observation of mean weight."
    )
    residual_degrees_of_freedom: float | None = Field(
        description=(
            "Number of observations less the rank. Observations are rows if weights are of kind `precision`, and the "
            "sum of the weights if they are of kind `frequency`. Decay discounts them."
        )
    )
    model_degrees_of_freedom: int = Field(description="The rank without the intercept.")
    effective_degrees_of_freedom: float | None = Field(
        description="Trace of the hat matrix, in which the intercept counts 1. Without a ridge penalty it is the rank."
    )
    total_weight: float = Field(
        description="Sum of the rows' weights, after decay. A row without a weight counts as 1."
    )
    weight_kind: WeightKind = Field(
        description="`frequency`: times the row was observed. `precision`: inverse of the variance of its error."
    )
    log_likelihood: Numbers | None = Field(
        description="Of normal errors at the maximum, as R's logLik gives it; with frequency weights, of repeated rows."
    )
    aic: Numbers | None = Field(
        description=(
            "Akaike's criterion, -2 log_likelihood + 2 (rank + 1). It counts the variance as R does; that of "
            "statsmodels does not and is smaller by 2."
        )
    )
    bic: Numbers | None = Field(
        description=(
            "Schwarz's criterion, -2 log_likelihood + log(n) (rank + 1), n observations. It counts the variance as R "
            "does; that of statsmodels does not and is smaller by log(n)."
        )
    )
    variance_inflation_factors: Numbers | None = Field(
        description=(
            "For each column, 1 / (1 - R²) of its regression on the others. Without an intercept, that R² is about "
            "zero (uncentred)."
        )
    )
    linear_dependencies: list[list[str]] | None = Field(
        description=(
            "Sets of columns that have a weighted sum of zero in all rows. Each column of a set depends on the others. "
            f"`intercept` takes part if the sum is another constant. At most {MAX_DEPENDENCIES} sets are listed."
        )
    )
    covariance: CovarianceView | None = Field(
        description=(
            f"Covariance matrices of the coefficients. Only with `include=covariance`, for at most "
            f"{MAX_COVARIANCE_COEFFICIENTS} coefficients."
        )
    )
    inference_unavailable: str | None = Field(description="Why inference is not valid for this version.")
    unavailable: dict[str, str] = Field(
        description=(
            "The reason for each statistic that is null. A key is the path in the card, with dots between its names; "
            "`*` stands for every name. A field that is null as a whole has one reason."
        ),
        examples=[{"standard_errors.y.x2": NOT_IDENTIFIABLE, "metrics.y.r2": NO_VARIATION}],
    )
    metrics: dict[str, Any] = Field(description="Of the training rows; `mse` over all targets.")
    validation: dict[str, Any] | None = Field(description="How the cross-validation divided the rows into folds.")
    no_folds: str | None = Field(
        description="Why no statistics of folds are stored, to which an update could add its rows."
    )
    rows: int
    dropped_rows: int = Field(description="Of the job's rows, those left out because a value was missing.")
    rank: int = Field(description="Coefficients that the rows determine, the intercept among them.")
    condition_number: float = Field(
        description=(
            "Largest singular value of the columns divided by the smallest that counts towards the rank. With an "
            "intercept, the columns are deviations from their means; without one, they are the values themselves. They "
            "are brought to unit norm first, so their units do not matter."
        )
    )
    precision_loss: float | None = Field(
        description=(
            "Largest ratio, over all directions of the columns, of the sum of squares ever held to the sum held now: 1 "
            "if no rows were taken out."
        )
    )
    precision_bounds: NumbersByTarget | None = Field(
        description=(
            "How far numbers may be off because rows were taken out: `residual_sum`, relative, of the sum of squared "
            "residuals, and `coefficients`, the largest error of a coefficient in standard errors. Residual sums are "
            "withheld above 1e-6; a job fails above 1e-3 standard errors, unless the error is negligible."
        )
    )
    ranges: dict[str, list[float]] = Field(description="[minimum, maximum] of each column in training.")
    solver: dict[str, Any]
    shares: dict[str, float] | None = Field(
        description="What decay has left of a row, by the version in which it was added; null if it was not recorded."
    )
    mode: str = Field(description="What the job's rows were to those of the parent: `replace`, `update` or `forget`.")
    warnings: list[str]
    job: str | None
    parent: int | None
    created_at: str
    libraries: dict[str, str]


class CurrentModelView(ModelView):
    versions: list[int]


def card_view(
    version: Version, *, current: bool, level: float = DEFAULT_LEVEL, include: Extra | None = None
) -> dict[str, Any]:
    """Return the card as ModelView describes it. In JSON, NaN and infinity become null.

    Raises InvalidInput if what is to be included is too large.
    """
    card, model = version.card, version.model
    ranges = np.column_stack([model.statistics.minimum, model.statistics.maximum]).tolist()
    computed = CardStatistics(version, level)
    return {
        "model": card.model,
        "version": card.version,
        "current": current,
        "features": card.features,
        "targets": card.targets,
        "unused_columns": card.unused_columns,
        "terms": card.terms,
        "intercept": dict(zip(card.targets, model.intercept.tolist(), strict=True)),
        "coefficients": {
            target: dict(zip(model.columns, row, strict=True))
            for target, row in zip(card.targets, model.coef.tolist(), strict=True)
        },
        "confidence_level": level,
        **computed.fields(covariance=include == "covariance"),
        "inference_unavailable": card.inference_unavailable,
        "unavailable": computed.unavailable,
        "metrics": card.metrics,
        "validation": None if card.validation is None else msgspec.to_builtins(card.validation),
        "no_folds": card.no_folds,
        "rows": card.rows,
        "dropped_rows": card.dropped_rows,
        "rank": card.rank,
        "condition_number": card.condition_number,
        "precision_loss": card.precision_loss,
        "precision_bounds": computed.precision_bounds(),
        "ranges": dict(zip(model.columns, ranges, strict=True)),
        "solver": solver_to_record(card.solver),
        "shares": None if card.shares is None else {str(number): share for number, share in card.shares.items()},
        "mode": card.mode,
        "warnings": card.warnings,
        "job": card.job,
        "parent": card.parent,
        "created_at": card.created_at,
        "libraries": card.libraries,
    }
