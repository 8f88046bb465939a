"""Models in requests and responses: cards, lists, promotions."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from app.registry.origin import Imported
from app.regression.sufficient_statistics import WeightKind
from app.web.card_reasons import MAX_DECOMPOSED_COLUMNS, NO_VARIATION, NOT_IDENTIFIABLE
from app.web.card_statistics import MAX_COVARIANCE_COEFFICIENTS, MAX_DEPENDENCIES
from app.web.schemas.diagnostics import DiagnosticsView
from app.web.schemas.openapi_schema import Schema
from app.web.schemas.tables import TableView

NO_CURRENT = "no current version; promote one"


class Numbers(RootModel[dict[str, float | None]]):
    """Numbers by the name of the target, or by another name that the field describes. Null if a number is withheld."""


class NumbersByTarget(RootModel[dict[str, Numbers]]):
    """Numbers by the name of the target, then by that of the coefficient or another name that the field describes."""


class CovarianceView(Schema):
    coefficients: list[str]
    """Names of the rows and columns, the intercept first."""
    matrices: dict[str, list[list[float | None]]]
    """One matrix for each target. The square roots of the diagonal are the standard errors. Null for a coefficient
    without a standard error. The error is at most about 1e-16 times the condition number, relative to the product of
    the two standard errors."""


class CategoryTest(Schema):
    f: float | None
    p_value: float | None
    degrees_of_freedom: int
    """Degrees of freedom of the numerator; those of the denominator are `residual_degrees_of_freedom`."""


class MarginalMean(Schema):
    mean: float | None
    lower: float | None
    upper: float | None


class ImportedView(Schema):
    """How a version that was fitted elsewhere was imported."""

    format: str
    """Format of the file."""
    source: str
    """The program that fitted the model, if the file names it."""
    given: Literal["coefficients", "covariance", "statistics"]
    """The parts of the fit that the file had. `covariance` allows intervals, and `statistics` updates too."""
    baseline: Literal["means", "zero"]
    """The baseline of contributions: the training means, or 0 if the means are not known."""


def imported_to_view(imported: Imported) -> dict[str, Any]:
    """Return the origin as ImportedView describes it."""
    return {
        "format": imported.format,
        "source": imported.source,
        "given": imported.given,
        "baseline": "zero" if imported.means_unknown else "means",
    }


class ModelView(Schema):
    """The card of a version: its history, coefficients and statistics.

    A statistic that is not valid or not known is null, and `unavailable` has the reason.
    """

    model: str
    version: int
    current: bool
    """True if this version is served as the current one."""
    features: list[str]
    targets: list[str]
    unused_columns: list[str]
    """Columns of the training rows that are neither features nor targets, such as weights and groups. Rows to predict
    for may have them, and the targets: they are ignored."""
    terms: list[str]
    """Columns made from the features; empty if the coefficients belong to the features. A category has a coefficient
    for each level except its reference level, named as in `species[Gentoo]`."""
    intercept: dict[str, float]
    coefficients: dict[str, dict[str, float]]
    standard_errors: NumbersByTarget | None
    """Standard errors of the coefficients, including the intercept. Null for a coefficient that the rows do not
    determine: its unit vector does not lie in the row space of the design. R drops the later of two dependent columns
    instead."""
    t_values: NumbersByTarget | None
    """Coefficient divided by its standard error."""
    p_values: NumbersByTarget | None
    """Two-sided p-values of the hypothesis that the coefficient is 0."""
    confidence_level: float
    """Level of `confidence_intervals`, from the parameter `level`."""
    confidence_intervals: dict[str, dict[str, list[float] | None]] | None
    """[lower, upper] at `confidence_level`."""
    f_tests: NumbersByTarget | None
    """F test of all coefficients except the intercept together: f and p_value. Without an intercept, the comparison is
    with a prediction of zero."""
    residual_deviation: Numbers | None
    """Estimated standard deviation of the errors, for an observation of mean weight."""
    residual_degrees_of_freedom: float | None
    """Number of observations minus the rank. Observations are rows if weights are of kind `precision`, and the sum of
    the weights if they are of kind `frequency`. Decay discounts them."""
    model_degrees_of_freedom: int | None
    """The rank without the intercept. Null as `rows`."""
    effective_degrees_of_freedom: float | None
    """Trace of the hat matrix. The intercept counts 1. Without a ridge penalty, it is the rank. Null with a penalty and
    more than 500 columns."""
    total_weight: float | None
    """Sum of the rows' weights, after decay. A row without a weight counts as 1."""
    weight_kind: WeightKind | None
    """`frequency`: number of times the row was observed. `precision`: inverse variance of its error.
    Null as `rows`."""
    log_likelihood: Numbers | None
    """Maximum log-likelihood for normal errors, as in R's logLik. Frequency weights repeat rows."""
    aic: Numbers | None
    """Akaike's criterion, -2 log_likelihood + 2 (rank + 1). It counts the variance as a parameter, as R does. The value
    of statsmodels does not, and is smaller by 2."""
    bic: Numbers | None
    """Schwarz's criterion, -2 log_likelihood + log(n) (rank + 1), with n observations. It counts the variance as `aic`
    does, so the value of statsmodels is smaller by log(n)."""
    variance_inflation_factors: Numbers | None
    """For each column, 1 / (1 - R²), R² being that of its regression on the other columns. Without an intercept, R² is
    uncentred. Null for models with more than 500 columns for which inference is not available."""
    linear_dependencies: list[list[str]] | None = Field(
        description=(
            "Sets of columns that have a weighted sum of zero in all rows. Each column of a set depends on the others. "
            f"`intercept` is in the set if the sum is another constant. At most {MAX_DEPENDENCIES} sets are listed. "
            f"Null for models with more than {MAX_DECOMPOSED_COLUMNS} columns, unless there are none."
        )
    )
    covariance: CovarianceView | None = Field(
        description=(
            f"Covariance matrices of the coefficients. Present only with `include=covariance`, for at most "
            f"{MAX_COVARIANCE_COEFFICIENTS} coefficients."
        )
    )
    inference_unavailable: str | None
    """Why inference is not valid for this version."""
    unavailable: dict[str, str] = Field(
        examples=[{"standard_errors.y.x2": NOT_IDENTIFIABLE, "metrics.y.r2": NO_VARIATION}]
    )
    """The reason for each statistic that is null. A key is the path in the card, with dots between its names; `*` means
    every name. A field that is null as a whole has one reason."""
    metrics: dict[str, Any]
    """Metrics of the training rows; `mse` over all targets."""
    validation: dict[str, Any] | None
    """How the cross-validation divided the rows into folds."""
    no_folds: str | None
    """Why no statistics of folds are stored, to which an update could add its rows."""
    diagnostics: DiagnosticsView | None = Field(
        description=(
            "What a second look at the rows found about the residuals and the influence of single rows. Null for "
            "updates, forgets and merges, which do not see all rows."
        )
    )
    category_tests: dict[str, dict[str, CategoryTest]] | None
    """Joint F test of all levels of each category, by target: whether the category matters at all. Null for models with
    more than 500 columns."""
    marginal_means: dict[str, dict[str, dict[str, MarginalMean]]] | None
    """Prediction for each level of each category with the other columns at their means in the training rows, by target,
    with a confidence interval at `confidence_level`. Null for models with more than 500 columns."""
    table: TableView
    """The columns of the training rows, and how their cells are read; also at `/schema`."""
    rows: int | None
    """Number of training rows. Null if the version was imported without statistics."""
    dropped_rows: int | None
    """Number of the job's rows left out because of a gap, which is a cell without a value. Null if the version was
    imported."""
    gaps: dict[str, int] | None
    """Number of gaps in the job's rows, by column with any. Null as `dropped_rows`."""
    rank: int | None
    """Number of coefficients that the rows determine, including the intercept. Null as `rows`."""
    condition_number: float | None
    """Largest singular value of the columns divided by the smallest that counts towards the rank. With an intercept,
    the columns are deviations from their means; without one, they are the values themselves. They are scaled to unit
    norm first, so their units do not matter. Null as `rows`."""
    precision_loss: float | None
    """Largest ratio, over all directions of the columns, of the largest sum of squares so far to the present one: 1 if
    no rows were taken out."""
    precision_bounds: NumbersByTarget | None
    """Bounds of the errors caused by taking rows out: `residual_sum`, the relative error of the sum of squared
    residuals, and `coefficients`, the largest error of a coefficient in standard errors. Residual sums are withheld
    above 1e-6; a job fails above 1e-3 standard errors, unless the error is negligible."""
    ranges: dict[str, list[float] | None]
    """[minimum, maximum] of each column in training. Null if rows were merged from a file without ranges."""
    solver: dict[str, Any]
    """The solver with its options; the kind is `imported` if the model was fitted elsewhere. Then it
    has options only if the version was imported with statistics or a covariance."""
    imported: ImportedView | None
    """How the version was imported; null if it was trained."""
    shares: dict[str, float] | None
    """Share of a row's weight left by decay, by the version that added it; null if not recorded."""
    mode: str | None
    """Effect of the job's rows on those of the parent: `replace`, `update` or `forget`. Null as `dropped_rows`."""
    warnings: list[str]
    job: str | None
    parent: int | None
    created_at: str
    libraries: dict[str, str]


class CurrentModelView(ModelView):
    versions: list[int]


class ModelSummary(Schema):
    model: str
    current: int | None
    """Number of the current version."""
    note: str | None = Field(None, description=f"`{NO_CURRENT}` if `current` is null.")
    features: list[str]
    """Features of the current version, or of the newest version if none is current."""
    targets: list[str]
    """Targets of the current version, or of the newest version if none is current."""
    versions: list[int]


class UnpromotedModelView(BaseModel):
    """A model with versions, of which none is current."""

    model: str
    current: int | None = Field(description="Always null.")
    note: str = Field(examples=[NO_CURRENT])
    versions: list[int]


class ModelList(BaseModel):
    items: list[ModelSummary]
    next: str | None = Field(description="Cursor of the next page; null on the last page.")


class Promotion(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(ge=1, examples=[1])
