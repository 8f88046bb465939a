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
    model, as_objects = result.version.model, result.are_objects
    document: dict[str, Any] = {
        "model": result.version.card.model,
        "version": result.version.card.version,
        "predictions": orjson.Fragment(encode_predictions(result.predictions, model.targets, as_objects=as_objects)),
    }
    unavailable = dict(result.unavailable)
    for name in ("intervals", "confidence_intervals"):
        bounds: Array | None = getattr(result, name)
        if bounds is not None:
            document[name] = _nested(bounds, model, as_objects=as_objects)
            if reason := _rows_without_bounds(bounds, result):
                unavailable[name] = reason
        elif name in unavailable:
            document[name] = None
    if result.extrapolation is not None and model.unknown_ranges.any():
        unavailable["extrapolation.outside"] = RANGES_UNKNOWN
    _add_recorded(recorded, document, unavailable)
    if unavailable:
        document["unavailable"] = unavailable
    if result.contributions is not None:
        baseline = model.mean_prediction
        document["baseline"] = dict(zip(model.targets, baseline.tolist(), strict=True)) if as_objects else baseline
        document["contributions"] = _nested(result.contributions, model, as_objects=as_objects, by_column=True)
    if result.extrapolation is not None:
        document["extrapolation"] = _extrapolation(result.extrapolation, result)
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _add_recorded(recorded: Recorded | None, document: dict[str, Any], unavailable: dict[str, str]) -> None:
    if recorded is not None:
        document["recorded"] = recorded.done
        if recorded.reason is not None:
            unavailable["recorded"] = recorded.reason


def _rows_without_bounds(bounds: Array, result: PredictionResult) -> str | None:
    """Return why some of the complete rows have no bounds, and which they are; None if all have."""
    rows = np.flatnonzero(np.isnan(result.rows.take(bounds)).any(axis=(1, 2)))
    if not len(rows):
        return None
    indices = ", ".join(str(result.rows.index(row)) for row in rows[:MAX_DETAILS].tolist())
    indices += ", ..." if len(rows) > MAX_DETAILS else ""
    return f"{len(rows)} row(s) outside the space that the training rows span: /instances/{indices}."


def _nested(values: Array, model: LinearModel, *, as_objects: bool, by_column: bool = False) -> Any:
    """Return (n, k, ...) as it is, or as an object by target for each row, with an object by column for each target."""
    if not as_objects:
        return np.ascontiguousarray(values)

    def objects(rows: slice) -> list[Any]:
        return [
            {
                target: dict(zip(model.columns, value, strict=True)) if by_column else value
                for target, value in zip(model.targets, row, strict=True)
            }
            for row in values[rows].tolist()
        ]

    return _joined(len(values), values[0].size, objects)


def _extrapolation(extrapolation: Extrapolation, result: PredictionResult) -> orjson.Fragment:
    columns, positions = result.version.model.columns, result.rows.positions

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

    return _joined(len(positions), len(columns), lambda rows: [describe(row) for row in positions[rows].tolist()])


def _joined(rows: int, width: int, objects: Callable[[slice], list[Any]]) -> orjson.Fragment:
    """Return one JSON list, made from some rows at a time, because objects take many times as much memory as JSON."""
    step = max(1, MAX_CHUNK_VALUES // width)
    parts = (orjson.dumps(objects(slice(start, start + step)))[1:-1] for start in range(0, rows, step))
    return orjson.Fragment(b"[%b]" % b",".join(parts))
