"""The JSON form of a model, which imports read, and exports and clients write.

The structs are the format. Reading checks each value, and names the place of a fault by a JSON pointer.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from app.data.columns.options import DateOrder, Decimal, GapPolicy, Kind, Thousands
from app.regression.sufficient_statistics import WeightKind

FORMAT = "linserve-model/1"
MAX_SOURCE = 200  # Characters of `source`.

Numbers: TypeAlias = list[float]
Unknowns: TypeAlias = list[float | None]  # null: not known


class ColumnRecord(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """One feature or target. A plain string is a column of numbers. The fields are those of `Column`."""

    name: str
    kind: Kind = "number"
    levels: tuple[str, ...] = ()
    missing: GapPolicy = "drop"
    fill: float | str | None = None
    decimal: Decimal = "."
    thousands: Thousands = ""
    na: tuple[str, ...] = ()
    strip: tuple[str, ...] = ()
    dates: DateOrder | None = None
    strings: bool = False


class StatisticsRecord(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """The sufficient statistics of the training rows: the tensors of a version file, and its card's fields for them.

    Ranges, and a sum of logarithms of weights, that are not known are null.
    """

    rows: int
    effective_rows: float
    shift: Numbers
    scale: Numbers
    factor: list[Numbers]
    minimum: Unknowns
    maximum: Unknowns
    log_weights: float | None
    operations: int = 0
    removed: list[Numbers] | None = None
    indicator_rows: list[int] | None = None
    weight_kind: WeightKind = "precision"
    discounted: bool = False
    untracked: bool = False
    fit_intercept: bool = True
    l2: Annotated[float, Meta(ge=0)] = 0.0


class ModelRecord(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """A linear model. With one target, its value may replace a list over targets, as in `coefficients: [1.5, 2]`."""

    format: Literal["linserve-model/1"] | None = None
    features: list[str | ColumnRecord]
    targets: list[str | ColumnRecord]
    terms: list[str] = []
    columns: list[str] | None = None  # columns of the features and terms; checked if given
    coefficients: list[Numbers | float]  # a list for each target
    intercept: list[float] | float
    # If these are given, predictions are coefficients (columns - centre) + start. This limits rounding errors if the
    # columns are far from 0.
    centre: Numbers | None = None
    start: list[float] | float | None = None
    # Covariance of the coefficients of a least-squares fit, a matrix for each target, the intercept first. A model
    # without an intercept has matrices without it, and the intercept 0.
    covariance: list[list[Numbers | float]] | None = None
    residual_df: float | None = None
    rss: list[float] | float | None = None
    weighted: bool = False  # True if the rows had precision weights that do not sum to their number
    statistics: StatisticsRecord | None = None
    source: Annotated[str, Meta(max_length=MAX_SOURCE)] = ""  # the program that fitted the model


def encode(record: ModelRecord) -> bytes:
    """Return the JSON of a record, with its format first."""
    fields = msgspec.to_builtins(record)
    fields.pop("format", None)
    return msgspec.json.encode({"format": FORMAT, **fields})
