"""Record predictions that have ids, and say in the response whether they are recorded."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from app.data.json_faults import MAX_DETAILS, escaped
from app.data.json_rows import without_names
from app.data.names import shown
from app.data.prediction_ids import PREDICTION_ID, PredictionIds, ids_of_column
from app.errors import FieldError, InvalidInput, PredictionTooLarge
from app.monitoring.outcomes.records import LEVEL, NotRecorded, RecordedRows
from app.prediction.encoding import Recorded
from app.prediction.predictor import Observer, PredictionResult, Predictor
from app.prediction.query import PredictionOptions, PredictionQuery
from app.prediction.tables import TablePrediction
from app.registry.version_file import Version
from app.regression.sufficient_statistics import Array
from app.web.state import Services

POINTER = f"/{PREDICTION_ID}"
RECORDED = "linserve-recorded"  # Header of a table: true or false.
NOT_RECORDED_REASON = "linserve-not-recorded-reason"  # Header of a table that is false.
_ID_BYTES = 700  # Bytes that an id takes at most in memory, with its place in a set.


def take_ids(query: PredictionQuery, given: object, version: Version) -> tuple[PredictionQuery, list[str] | None]:
    """Return the query without ids in its rows, and the ids: those `given` in the body, or those in the rows.

    Raises InvalidInput.
    """
    rows = query.rows
    if isinstance(rows, list) and _has_ids(rows, version):
        if given is not None:
            raise InvalidInput.at(POINTER, "Ids are in the instances too. Give them in one place.")
        return query._replace(rows=_without_ids(rows)), _ids_in(rows, query.pointer)
    if given is None:
        return query, None
    if not isinstance(given, str | list):
        message = "Expected one string for one instance, or a list with a string for each instance."
        raise InvalidInput.at(POINTER, message)
    values = [given] if isinstance(given, str) else given
    if len(values) != len(rows):
        message = f"Expected one id for each instance ({len(rows)}), found {len(values)}."
        raise InvalidInput.at(POINTER, message)
    is_list = isinstance(given, list)
    ids = PredictionIds(
        lambda index, message: FieldError(message, pointer=f"{POINTER}/{index}" if is_list else POINTER)
    )
    ids.add(values)
    return query, ids.ids


def with_interval(query: PredictionQuery, version: Version) -> PredictionQuery:
    """Return the query with the interval that is recorded, unless it has an interval or the model has none."""
    if query.options.interval is not None or query.weights is not None or version.model.inference_unavailable:
        return query
    return query._replace(options=query.options._replace(interval=LEVEL))


def predict(
    query: PredictionQuery, version: Version, observer: Observer | None = None
) -> tuple[PredictionResult, Array | None]:
    """Return the result of a query, and the intervals to record, (n, k, 2); None if there are none."""
    recorded = with_interval(query, version)
    predictor = Predictor(version, observer)
    if recorded is query:
        result = predictor.predict(query)
        return result, intervals(query, result)
    try:
        result = predictor.predict(recorded)
    except PredictionTooLarge:  # An interval may overflow, but the client did not request it.
        return predictor.predict(query), None
    return result._replace(intervals=None), result.intervals


def intervals(query: PredictionQuery, result: PredictionResult) -> Array | None:
    """Return the intervals to record for the result of a query, (n, k, 2); None if there are none."""
    version = result.version
    if version.model.inference_unavailable:
        return None
    if query.options.interval == LEVEL:
        return result.intervals
    options = PredictionOptions(LEVEL, missing=query.options.missing, unknown=query.options.unknown)
    try:
        return Predictor(version).predict(query._replace(options=options)).intervals
    except PredictionTooLarge:
        return None


def record(
    services: Services, version: Version, ids: Sequence[str], predictions: Array, bounds: Array | None
) -> Recorded:
    """Record predictions, and return whether they are on disk."""
    card = version.card
    rows = RecordedRows(card.model, card.version, tuple(version.model.targets), ids, predictions, bounds, time.time())
    try:
        services.outcomes.record(rows)
    except NotRecorded as error:
        services.metrics.recorded(0, lost=len(ids))
        return Recorded(done=False, reason=error.reason)
    services.metrics.recorded(len(ids))
    return Recorded(done=True)


class TableRecorder:
    """Collects the predictions for a table, and records them once all are made."""

    def __init__(
        self, services: Services, prediction: TablePrediction, column: str, reserve: Callable[[int], None]
    ) -> None:
        """Record under the ids in `column`. `reserve` is called with the bytes that the predictions take.

        Raises InvalidInput if the ids cannot be in this column.
        """
        version = prediction.version
        if any(feature.name == column and feature.kind == "number" for feature in version.table.features):
            message = f"{shown(column)} is a feature. Name a column with an id for each row."
            raise InvalidInput.of_parameter(PREDICTION_ID, message)
        self._services, self._prediction, self._column, self._reserve = services, prediction, column, reserve
        self._ids = PredictionIds(self._at, services.max_instances)
        self._parts: list[tuple[Array, Array | None]] = []

    def add(self, query: PredictionQuery, kept: Any, result: PredictionResult) -> None:
        """Add the predictions for some rows, with the columns that pass through. Raises InvalidInput."""
        bounds = intervals(query, result)
        predictions = result.predictions.copy()
        self._reserve(predictions.nbytes + (0 if bounds is None else bounds.nbytes) + _ID_BYTES * len(predictions))
        self._ids.add(ids_of_column(kept.column(self._column), self._column))
        self._parts.append((predictions, bounds))

    def record(self) -> Recorded:
        """Record all predictions, and return whether they are on disk."""
        if not self._parts:
            return Recorded(done=True)
        predictions = np.concatenate([predictions for predictions, _ in self._parts])
        parts = [bounds for _, bounds in self._parts if bounds is not None]
        bounds = np.concatenate(parts) if len(parts) == len(self._parts) else None
        return record(self._services, self._prediction.version, self._ids.ids, predictions, bounds)

    def _at(self, index: int, message: str) -> FieldError:
        first = self._prediction.first_row
        if first is None:
            return FieldError(message, pointer=f"/instances/{index}/{escaped(self._column)}")
        return FieldError(message, row=first + index, column=self._column)


def recorded_headers(recorded: Recorded) -> dict[str, str]:
    """Return the headers that say whether the predictions for a table are recorded."""
    headers = {RECORDED: str(recorded.done).lower()}
    return headers if recorded.reason is None else headers | {NOT_RECORDED_REASON: recorded.reason}


def _has_ids(rows: Sequence[Any], version: Version) -> bool:
    """Return True if the first row, which decides for all, has an id."""
    first = rows[0] if rows else None
    return isinstance(first, dict) and PREDICTION_ID in first and PREDICTION_ID not in version.encoder.names


def _without_ids(rows: Sequence[Any]) -> list[Any]:
    return [without_names(row, {PREDICTION_ID}) if isinstance(row, dict) else row for row in rows]


def _ids_in(rows: Sequence[Any], pointer: str) -> list[str]:
    """Return the ids in rows that are objects. Raises InvalidInput with the places of rows without one."""
    missing = [index for index, row in enumerate(rows) if not isinstance(row, dict) or PREDICTION_ID not in row]
    if missing:
        message = f"`{PREDICTION_ID}` is missing. Give all instances an id, or none."
        details = [FieldError(message, pointer=f"{pointer}/{index}") for index in missing[:MAX_DETAILS]]
        raise InvalidInput(f"Not all instances have an id. {pointer}/{missing[0]}: {message}", details)
    ids = PredictionIds(lambda index, message: FieldError(message, pointer=f"{pointer}/{index}/{PREDICTION_ID}"))
    ids.add(row[PREDICTION_ID] for row in rows)
    return ids.ids
