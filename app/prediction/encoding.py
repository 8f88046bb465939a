"""Results as JSON.

The fast path and the route write predictions with the same functions, so that their bytes are equal.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from app.data.formats.json import MAX_CHUNK_VALUES, to_objects
from app.data.json_faults import MAX_DETAILS
from app.prediction.predictor import PredictionResult
from app.registry.origin import MEANS_UNKNOWN
from app.regression.linear_model import RANGES_UNKNOWN, Extrapolation, LinearModel
from app.regression.sufficient_statistics import Array


class Recorded(NamedTuple):
    """Whether predictions with ids are recorded, and if not, why."""

    done: bool
    reason: str | None = None


def encode_few(predictions: list[list[float]], targets: Sequence[str], *, as_objects: bool) -> bytes:
    """Return the predictions for few rows as a JSON list of objects or of arrays."""
    if as_objects:
        return orjson.dumps([dict(zip(targets, row)) for row in predictions])  # noqa: B905 - strict is slower
    return orjson.dumps(predictions)


def encode_predictions(predictions: Array, targets: Sequence[str], *, as_objects: bool) -> bytes:
    """Return predictions (n, k) as a JSON list of objects or of arrays."""
    if as_objects:
        return to_objects(predictions, targets)
    return orjson.dumps(np.ascontiguousarray(predictions), None, orjson.OPT_SERIALIZE_NUMPY)


def encode_result(result: PredictionResult, recorded: Recorded | None = None) -> bytes:
    """Return the result as a document of this service's own JSON format."""
    card, as_objects = result.version.card, result.are_objects
    predictions = encode_predictions(result.predictions, result.version.model.targets, as_objects=as_objects)
    document = {"model": card.model, "version": card.version, "predictions": orjson.Fragment(predictions)}
    return encode_document(document | additions(result, recorded, as_objects=as_objects))


def encode_document(document: Any) -> bytes:
    """Return JSON of values and arrays, with NaN as null."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def additions(result: PredictionResult, recorded: Recorded | None = None, *, as_objects: bool) -> dict[str, Any]:
    """Return everything but the predictions as members of a JSON object: what was requested, and notes on it.

    Lists have an element for each row, which is an object by target or an array.
    """
    model = result.version.model
    document: dict[str, Any] = {}
    for name in ("intervals", "confidence_intervals"):
        bounds: Array | None = getattr(result, name)
        if bounds is not None:
            document[name] = _nested(bounds, model, as_objects=as_objects)
        elif name in result.unavailable:
            document[name] = None
    if "extrapolation" in result.unavailable:
        document["extrapolation"] = None
    if recorded is not None:
        document["recorded"] = recorded.done
    if reasons := unavailable(result, recorded):
        document["unavailable"] = reasons
    if result.contributions is not None:
        baseline = model.mean_prediction
        document["baseline"] = dict(zip(model.targets, baseline.tolist(), strict=True)) if as_objects else baseline
        document["contributions"] = _nested(result.contributions, model, as_objects=as_objects, by_column=True)
    if result.extrapolation is not None:
        document["extrapolation"] = _extrapolation(result.extrapolation, result)
    return document


def unavailable(
    result: PredictionResult, recorded: Recorded | None = None, place: str = "/instances/"
) -> dict[str, str]:
    """Return why parts of what was requested are missing or incomplete.

    `place` is the pointer in front of the index of a row.
    """
    reasons, imported = dict(result.unavailable), result.version.card.imported
    for name in ("intervals", "confidence_intervals"):
        bounds: Array | None = getattr(result, name)
        if bounds is not None and (reason := _rows_without_bounds(bounds, result, place)):
            reasons[name] = reason
    if result.extrapolation is not None and result.version.model.unknown_ranges.any():
        reasons["extrapolation.outside"] = RANGES_UNKNOWN
    if result.contributions is not None and imported is not None and imported.means_unknown:
        reasons["baseline"] = MEANS_UNKNOWN
    if recorded is not None and recorded.reason is not None:
        reasons["recorded"] = recorded.reason
    return reasons


def _rows_without_bounds(bounds: Array, result: PredictionResult, place: str) -> str | None:
    """Return why some of the complete rows have no bounds, and which they are; None if all have."""
    rows = np.flatnonzero(np.isnan(result.rows.take(bounds)).any(axis=(1, 2)))
    if not len(rows):
        return None
    indices = ", ".join(str(result.rows.index(row)) for row in rows[:MAX_DETAILS].tolist())
    indices += ", ..." if len(rows) > MAX_DETAILS else ""
    return f"{len(rows)} row(s) outside the space that the training rows span: {place}{indices}."


def _nested(values: Array, model: LinearModel, *, as_objects: bool, by_column: bool = False) -> Any:
    """Return (n, k, ...) as it is, or as an object by target for each row, with an object by column for each target."""
    if not as_objects:
        return np.ascontiguousarray(values)
    return joined(len(values), values[0].size, lambda rows: named(values[rows], model, by_column=by_column))


def named(values: Array, model: LinearModel, *, by_column: bool = False) -> list[Any]:
    """Return (n, k, ...) as an object by target for each row, with an object by column for each target."""
    return [
        {
            target: dict(zip(model.columns, value, strict=True)) if by_column else value
            for target, value in zip(model.targets, row, strict=True)
        }
        for row in values.tolist()
    ]


def _extrapolation(extrapolation: Extrapolation, result: PredictionResult) -> orjson.Fragment:
    columns = result.version.model.columns
    return joined(len(result.rows.positions), len(columns), lambda rows: extrapolations(extrapolation, result, rows))


def extrapolations(extrapolation: Extrapolation, result: PredictionResult, rows: slice) -> list[dict[str, Any] | None]:
    """Return how far each of these rows is from the training rows; None for a row with a missing value."""
    columns = result.version.model.columns

    def describe(row: int) -> dict[str, Any] | None:
        if row < 0:
            return None
        leverage = float(extrapolation.leverage[row])
        outside = zip(columns, extrapolation.outside[row], strict=True)
        return {
            "leverage": leverage if np.isfinite(leverage) else None,
            "outside": [name for name, is_outside in outside if is_outside],
            "flag": bool(extrapolation.flag[row]),
        }

    return [describe(row) for row in result.rows.positions[rows].tolist()]


def joined(rows: int, width: int, objects: Callable[[slice], list[Any]]) -> orjson.Fragment:
    """Return one JSON list, made from some rows at a time, because objects take many times as much memory as JSON."""
    step = max(1, MAX_CHUNK_VALUES // width)
    parts = (orjson.dumps(objects(slice(start, start + step)))[1:-1] for start in range(0, rows, step))
    return orjson.Fragment(b"[%b]" % b",".join(parts))
