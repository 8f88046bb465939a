"""Predictions of a shadow version for rows that another version was asked for."""

from typing import Any

import numpy as np

from app.prediction.predictor import Predictor
from app.prediction.query import PredictionOptions, PredictionQuery
from app.registry.version_file import Version
from app.regression.sufficient_statistics import Array


def shadow_rows(rows: list[Any] | Array, asked: Version, shadow: Version) -> list[Any] | Array | None:
    """Return rows for `asked` as rows for `shadow`, or None if they do not have all of its features.

    Encoded rows fit only if both versions encode them alike.
    """
    if isinstance(rows, np.ndarray):
        return rows if _encoding(asked) == _encoding(shadow) else None
    adapted = []
    for row in rows:
        values = row if isinstance(row, dict) else dict(zip(asked.encoder.names, row, strict=True))
        if any(name not in values and name not in asked.encoder.names for name in shadow.encoder.names):
            return None
        adapted.append({name: values.get(name) for name in shadow.encoder.names})
    return adapted


def _encoding(version: Version) -> list[tuple[Any, ...]]:
    """Return everything that decides how values are encoded as numbers."""
    return [(column.name, column.kind, column.levels, column.missing, column.fill) for column in version.table.features]


def differences(query: PredictionQuery, predictions: Array, asked: Version, shadow: Version) -> dict[str, Array] | None:
    """Return the shadow's predictions minus the given ones, (n,) for each target that both versions have.

    NaN for a row with a missing value, or with a level that is unknown to the shadow. None if the rows lack one of its
    features. Raises InvalidInput, PredictionTooLarge.
    """
    rows = shadow_rows(query.rows, asked, shadow)
    if rows is None:
        return None
    unknown = "null" if query.options.unknown == "refuse" else query.options.unknown
    options = PredictionOptions(missing="null", unknown=unknown)
    own = Predictor(shadow).predict(PredictionQuery(rows, options)).predictions
    places = {target: place for place, target in enumerate(asked.model.targets)}
    with np.errstate(over="ignore", invalid="ignore"):
        return {
            target: own[:, place] - predictions[:, places[target]]
            for place, target in enumerate(shadow.model.targets)
            if target in places
        }
