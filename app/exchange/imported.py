"""A model that was fitted elsewhere, as an import reads it."""

from dataclasses import dataclass, field

from app.exchange.portable import PortableModel
from app.registry.origin import Given
from app.regression.sufficient_statistics import Array, SufficientStatistics


@dataclass(frozen=True, eq=False)
class Covariance:
    """The covariance of the coefficients of a least-squares fit, from which intervals follow."""

    covariance: Array  # (k, 1 + p, 1 + p), of [intercept, coefficients] for each target; without an intercept (k, p, p)
    residual_df: float
    rss: Array  # (k,)
    weighted: bool = False  # True if the rows had precision weights


@dataclass(frozen=True, eq=False)
class Statistics:
    """The statistics of the training rows, and the options of the fit that an update takes over."""

    values: SufficientStatistics
    given: Given = "statistics"  # `covariance` if they were computed from a covariance
    centre_prediction: Array | None = None  # (k,), at their shift, if it has more digits than the intercept
    fit_intercept: bool = True
    l2: float = 0.0
    means_unknown: bool = False


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """At most one of `statistics` and `covariance` is given. Without both, the version can only predict and explain."""

    portable: PortableModel
    statistics: Statistics | None = None
    covariance: Covariance | None = None
    source: str = ""  # the program that fitted the model or wrote the file, if the file names it
    warnings: tuple[str, ...] = ()  # differences between the file and the version
    details: dict[str, str] = field(default_factory=dict)
