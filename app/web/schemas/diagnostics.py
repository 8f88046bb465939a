"""The diagnostics in a model card."""

from app.web.schemas.openapi_schema import Schema


class LeverageView(Schema):
    """Histogram of the rows' leverages: the weight of a row in its own fitted value, from 0 to 1."""

    edges: list[float]
    """One more than `counts`. The last bin may be wider than the others: it ends at the largest leverage."""
    counts: list[int]
    maximum: float
    threshold: float
    """Three times the mean leverage. The features of a row above it are far from those of the other rows."""
    ones: int
    """Rows whose leverage is 1 up to rounding: each determines a coefficient alone. They have no Cook's distance and no
    standardised residual."""


class ResidualPlotView(Schema):
    """Two-dimensional histogram of the rows by fitted value and residual.

    With precision weights, a residual is multiplied by the square root of its weight over the mean weight.
    """

    fitted_edges: list[float]
    residual_edges: list[float]
    counts: list[list[int]]
    """For each bin of fitted values, the number of rows in each bin of residuals."""


class QuantilesView(Schema):
    """Points of a normal quantile plot, at most 101."""

    theoretical: list[float]
    """Normal quantiles at (i - 3/8) / (n + 1/4), for the i-th smallest of n residuals."""
    observed: list[float]
    """Standardised (internally studentised) residuals."""
    relative_error: float
    """Largest relative error of `observed`: 0, or 1/2048 for files with more than 1,000,000 rows, whose residuals are
    not kept."""


class InfluentialRow(Schema):
    """A row with a large Cook's distance."""

    row: int
    """Number of the row in the file, as messages about faults count it; in JSON, the first row is 1."""
    file: str | None = None
    """The file that has the row, if there are several files."""
    distance: float
    """Sum of the squared changes of all fitted values if this row is removed, divided by the rank times the residual
    variance."""
    leverage: float
    studentized_residual: float | None
    """Externally studentised residual. Null if the other rows leave no error to scale it by."""


class BreuschPaganView(Schema):
    """Breusch-Pagan test of constant variance, studentised after Koenker."""

    lm: float
    """n times R² of the regression of the squared residuals on the columns."""
    df: int
    p_value: float
    f: float
    """F statistic of the same regression."""
    f_p_value: float


class PartialResidualsView(Schema):
    """Partial residuals of a column, residual plus coefficient times value, as means in bins of the column."""

    edges: list[float]
    means: list[float | None]
    """Null in a bin without rows."""
    counts: list[int]


class TargetDiagnosticsView(Schema):
    """Diagnostics of one target. `unavailable` has the reason for each null."""

    residuals: ResidualPlotView | None
    quantiles: QuantilesView | None
    cooks_distance: list[InfluentialRow] | None
    """The 20 rows with the largest Cook's distances, the largest first."""
    durbin_watson: float | None
    """Durbin-Watson statistic of the rows in the order of the file, from 0 to 4: about 2 without correlation."""
    breusch_pagan: BreuschPaganView | None
    partial_residuals: dict[str, PartialResidualsView] | None
    """By column of numbers or dates, those with the largest |t| first."""


class DiagnosticsView(Schema):
    """Diagnostics that need the rows. Counts are of observations: rows, or the sum of frequency weights."""

    rows: int
    leverage: LeverageView | None
    targets: dict[str, TargetDiagnosticsView]
    """The first four targets."""
    notes: list[str]
    """What was left out because of the limits."""
