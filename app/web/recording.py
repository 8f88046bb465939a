"""Record predictions that have ids, and say in the response whether they are recorded."""

import time
from collections.abc import Sequence
from typing import Any

from app.data.json_faults import MAX_DETAILS
from app.data.json_rows import without_names
from app.data.prediction_ids import PREDICTION_ID, PredictionIds
from app.errors import FieldError, InvalidInput, PredictionTooLarge
from app.monitoring.outcomes.records import LEVEL, NotRecorded, RecordedRows
from app.prediction.encoding import Recorded
from app.prediction.predictor import PredictionResult, Predictor
from app.prediction.query import PredictionOptions, PredictionQuery
from app.registry.version_file import Version
from app.regression.sufficient_statistics import Array
from app.web.state import Services

POINTER = f"/{PREDICTION_ID}"


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


def predict(query: PredictionQuery, version: Version) -> tuple[PredictionResult, Array | None]:
    """Return the result of a query, and the intervals to record, (n, k, 2); None if there are none."""
    recorded = with_interval(query, version)
    if recorded is query:
        result = Predictor(version).predict(query)
        return result, intervals(query, result)
    try:
        result = Predictor(version).predict(recorded)
    except PredictionTooLarge:  # The bound of an interval may be too large, which was not asked for.
        return Predictor(version).predict(query), None
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
        return Recorded(done=False, reason=error.reason)
    return Recorded(done=True)


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
