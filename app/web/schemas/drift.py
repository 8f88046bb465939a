"""Drift in responses: served rows compared with training rows."""

from typing import Literal

from pydantic import ConfigDict, Field

from app.monitoring.comparison import MAX_LEVELS
from app.regression.drift import MIN_ROWS, PSI_FLOOR
from app.web.schemas.openapi_schema import Schema


class ColumnDriftView(Schema):
    training_mean: float
    served_mean: float
    standardised_mean_difference: float | None
    """Served mean minus training mean, divided by the training standard deviation. Null if that is zero."""
    variance_ratio: float | None
    """Served variance divided by training variance. Null if that is zero."""
    minimum: float
    maximum: float
    rows: int
    """Number of served rows behind these figures."""


class LevelSharesView(Schema):
    training: float
    served: float


class CategoryDriftView(Schema):
    psi: float = Field(
        description=f"Population stability index of the shares of all levels. Shares below {PSI_FLOOR} count as that."
    )
    rows: int
    """Number of served rows behind these figures."""
    unseen: float
    """Share of served rows with a level that training did not have. `psi` includes it."""
    levels: dict[str, LevelSharesView] = Field(
        description=f"Shares by level: of the {MAX_LEVELS} levels that changed most, if there are more."
    )


class MissingValuesView(Schema):
    gaps: int
    unseen: int
    training_share: float
    """Share of missing values in the training rows."""
    served_share: float
    """Share of missing values in the served rows."""


class DriftView(Schema):
    """Served rows of a version compared with its training rows.

    A figure that is null has its reason in `unavailable`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "crop-yield",
                    "version": 1,
                    "window_seconds": 86400.0,
                    "rows": 250,
                    "predicted_rows": 250,
                    "extrapolated": 0.02,
                    "columns": {
                        "temp": {
                            "training_mean": 84.07,
                            "served_mean": 84.31,
                            "standardised_mean_difference": 0.02,
                            "variance_ratio": 1.04,
                            "minimum": 66.0,
                            "maximum": 104.0,
                            "rows": 250,
                        }
                    },
                    "categories": {},
                    "covariance_distance": 0.3,
                    "missing": {},
                    "verdict": "stable",
                    "drifted": [],
                    "unavailable": {},
                }
            ]
        }
    )

    model: str
    version: int
    window_seconds: float
    rows: int
    """Number of served rows that were summarised. Above a rate, rows are sampled."""
    predicted_rows: int
    """Number of all rows that were predicted."""
    extrapolated: float | None
    """Share of the rows that are flagged as extrapolation, estimated from those that were summarised."""
    columns: dict[str, ColumnDriftView]
    """By column of the model: a feature, a level of one, or a term."""
    categories: dict[str, CategoryDriftView]
    """By feature with levels, and by feature whose missing values have an indicator."""
    covariance_distance: float | None
    """Affine-invariant distance of the covariance matrices of all columns that are not levels: the root of the sum of
    squared logarithms of the ratios of variances along the common axes."""
    missing: dict[str, MissingValuesView]
    """Numbers of missing values and of unknown levels, by feature, for which rows got no prediction."""
    verdict: Literal["stable", "drifted", "too few rows", "no training rows"] = Field(
        description=f"`too few rows`: fewer than {MIN_ROWS} rows were summarised, "
        "and the share of missing values shows no drift."
    )
    drifted: list[str]
    """Columns and categories that differ from training by more than chance explains, features with many more gaps than
    in training, and `covariance`."""
    unavailable: dict[str, str]
    """Reasons for figures that are null or left out, by their paths."""
