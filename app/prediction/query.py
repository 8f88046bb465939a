"""Rows to predict for, and what to compute for each of them.

A wire format makes a query from a request. Nothing in this room knows where the rows came from.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from app.data.columns.encoder import Unknown
from app.data.json_encoder import CodedRows, JsonEncoder
from app.data.json_faults import MAX_DETAILS, are_objects
from app.data.json_rows import as_rows, to_column
from app.errors import FieldError, InvalidInput
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array

WEIGHT_NOT_POSITIVE = "The weight is not a positive number."

Missing: TypeAlias = Literal["refuse", "null"]  # A missing value is an error, or its row has no results.


class PredictionOptions(NamedTuple):
    """Results to compute in addition to the predictions."""

    interval: float | None = None  # Level of the prediction intervals.
    confidence: float | None = None  # Level of the confidence intervals of the expected value.
    explain: bool = False
    extrapolation: bool = False
    missing: Missing = "refuse"
    unknown: Unknown = "refuse"

    @property
    def needs_design(self) -> bool:
        """True if the design matrix of the version has to be decomposed, which is done once per version."""
        return self.interval is not None or self.confidence is not None or self.extrapolation


class PredictionQuery(NamedTuple):
    """Rows decoded from JSON, or a matrix (n, p) of encoded features, and the options.

    Faults in decoded rows are reported below `pointer` and `weights_pointer`.
    """

    rows: list[Any] | Array
    options: PredictionOptions = PredictionOptions()
    weights: list[Any] | Array | None = None  # Precision weight of each row.
    pointer: str = "/instances"
    weights_pointer: str = "/instance_weights"

    @property
    def are_objects(self) -> bool:
        """True if the rows are objects. The results are then objects too."""
        return not isinstance(self.rows, np.ndarray) and are_objects(self.rows)

    def with_rows(self, encoder: JsonEncoder) -> "PredictionQuery":
        """Return the query with a list of rows in place of a flat list of values. Raises InvalidInput."""
        if isinstance(self.rows, np.ndarray):
            return self
        missing, numbers = self.options.missing == "null", encoder.is_plain
        rows = as_rows(self.rows, encoder.names, self.pointer, missing=missing, numbers=numbers)
        return self if rows is self.rows else self._replace(rows=rows)

    def arrays(self, version: Version) -> tuple[CodedRows, Array | None]:
        """Return the codes of the features (n, columns), or the matrix, and the weights (n,), with NaN for gaps.

        Raises InvalidInput with the place of each fault.
        """
        if isinstance(self.rows, np.ndarray):
            return CodedRows(self.rows), self._checked_weights(version.model)
        missing, unknown = self.options.missing == "null", self.options.unknown
        rows = version.encoder.read(self.rows, self.pointer, missing=missing, unknown=unknown, ignored=version.ignored)
        return rows, self._checked_weights(version.model)

    def design(self, codes: Array, version: Version) -> Array:
        """Return the columns of the design for some rows of `arrays`."""
        return codes if isinstance(self.rows, np.ndarray) else version.encoder.design(codes)

    def rows_at_once(self, version: Version) -> int:
        """Return the largest number of rows for which `design` should be called."""
        return max(1, len(self.rows)) if isinstance(self.rows, np.ndarray) else version.encoder.rows_at_once

    def _checked_weights(self, model: LinearModel) -> Array | None:
        if self.weights is None or isinstance(self.weights, np.ndarray):
            return self.weights
        if refused := weights_unavailable(model, self.options):
            raise InvalidInput.at(self.weights_pointer, refused)
        if len(self.weights) != len(self.rows):
            expected = f"Expected one weight for each instance ({len(self.rows)}), found {len(self.weights)}."
            raise InvalidInput.at(self.weights_pointer, expected)
        weights = to_column(self.weights, self.weights_pointer, missing=self.options.missing == "null")[:, 0]
        if (weights <= 0).any():
            rows = np.flatnonzero(weights <= 0)[:MAX_DETAILS].tolist()
            details = [FieldError(WEIGHT_NOT_POSITIVE, pointer=f"{self.weights_pointer}/{row}") for row in rows]
            raise InvalidInput("Not all instance weights are positive.", details)
        return weights


def intervals_unavailable(model: LinearModel, options: PredictionOptions) -> str | None:
    """Return why these options ask for intervals that the model does not have; None if they do not."""
    asked = [name for name in ("interval", "confidence") if getattr(options, name) is not None]
    if not asked or model.inference_unavailable is None:
        return None
    reason = model.inference_unavailable.removesuffix(".")
    return f"This version has no intervals: {reason}. Leave {' and '.join(f'`{name}`' for name in asked)} out."


def weights_unavailable(model: LinearModel, options: PredictionOptions) -> str | None:
    """Return why rows cannot have weights of their own with this model and these options; None if they can."""
    if options.interval is None:
        return "Instance weights are only for prediction intervals. Add `interval`."
    if not model.has_statistics:
        return f"There are no prediction intervals: {model.inference_unavailable}. Leave `instance_weights` out."
    if model.statistics.weight_kind != "precision":
        return (
            "The model was trained with frequency weights. They count observations and do not give the precision of a "
            "new one. Leave `instance_weights` out."
        )
    return None
