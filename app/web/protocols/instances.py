"""Rows as `instances` or `inputs`, and predictions with one element for each row.

TensorFlow Serving's REST API has these bodies. KServe v1 and Vertex AI use them too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ConfigDict

from app.data.json_faults import kind_of
from app.data.names import listed
from app.errors import InvalidInput
from app.prediction.encoding import Recorded, additions, unavailable
from app.prediction.predictor import PredictionResult
from app.prediction.query import PredictionQuery
from app.registry.version_file import Version
from app.regression.sufficient_statistics import Array
from app.web import bodies
from app.web.predict_json import DecodedBody, refuse_many_brackets, too_many_rows
from app.web.schemas.openapi_schema import Schema
from app.web.schemas.predict import PredictOptions

_BINARY = (
    'Base64 values, {"b64": ...}, are for images and other binary inputs. Send each feature as a number, a string or a '
    "boolean."
)


class InstancesSchema(Schema):
    """Base of the bodies."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def rows(self) -> tuple[list[Any], str]:
        """Return the rows, and their place in the body. Raises InvalidInput."""
        raise NotImplementedError

    def options(self, version: Version) -> PredictOptions:
        """Return the options of the request. Raises InvalidInput."""
        raise NotImplementedError


def decode(schema: type[InstancesSchema], body: bytes, version: Version, max_rows: int) -> DecodedBody:
    """Return the query of a body. Raises MalformedBody or InvalidInput."""
    names = version.encoder.names
    refuse_many_brackets(body, max_rows, 1 + len(names), has_tables=False)
    payload = bodies.decode(schema, body)
    rows, pointer = payload.rows()
    if not rows:
        raise InvalidInput.at(pointer, "There are no rows. Expected at least one.")
    if len(rows) > max_rows:
        raise too_many_rows(max_rows, pointer, has_tables=False)
    rows = unwrapped(rows)
    if b'"b64"' in body and "b64" not in names:
        _refuse_binary(rows, pointer)
    options = payload.options(version)
    query = PredictionQuery(rows, options.options(), options.instance_weights, pointer, "/parameters/instance_weights")
    return DecodedBody(query, options.prediction_id)


def with_explanation(decoded: DecodedBody) -> DecodedBody:
    """Return the query with contributions requested."""
    query = decoded.query
    return decoded._replace(query=query._replace(options=query.options._replace(explain=True)))


def rows_of_columns(columns: Mapping[str, Any], pointer: str) -> list[dict[str, Any]]:
    """Return rows as objects, given a list of values for each feature. Raises InvalidInput."""
    for name, values in columns.items():
        if not isinstance(values, list):
            found = f"{listed([name])} is {kind_of(values)}"
            raise InvalidInput.at(pointer, f"{found}. Expected an array with a value for each row.")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        message = (
            f"The columns differ in length: {listed([shortest])} has {lengths[shortest]} values, and "
            f"{listed([longest])} has {lengths[longest]}. Send a value of each feature for each row."
        )
        raise InvalidInput.at(pointer, message)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def unwrapped(rows: list[Any]) -> list[Any]:
    """Return the rows with a plain value in place of each list of one value, as Keras models take features."""
    if not rows or not isinstance(rows[0], dict) or not any(map(_is_wrapped, rows[0].values())):
        return rows
    return [
        {name: value[0] if _is_wrapped(value) else value for name, value in row.items()}
        if isinstance(row, dict)
        else row
        for row in rows
    ]


def elements(values: Array) -> Array:
    """Return predictions (n, k), or bounds (n, k, 2), without the axis of the targets if there is one target."""
    return np.ascontiguousarray(values[:, 0] if values.shape[1] == 1 else values)


def result_document(result: PredictionResult, recorded: Recorded | None) -> dict[str, Any]:
    """Return the additions to the predictions: `explanations` by name, and other lists without names."""
    explained = result._replace(intervals=None, confidence_intervals=None, extrapolation=None, unavailable={})
    document = additions(result._replace(contributions=None), recorded, as_objects=False)
    document = {name: elements(each) if isinstance(each, np.ndarray) else each for name, each in document.items()}
    if result.contributions is not None:
        named = additions(explained, as_objects=True)
        document |= {"explanations": named["contributions"], "baseline": named["baseline"]}
        if reasons := unavailable(result, recorded):
            document["unavailable"] = reasons
    return document


def _is_wrapped(value: object) -> bool:
    return isinstance(value, list) and len(value) == 1


def _refuse_binary(rows: Sequence[Any], pointer: str) -> None:
    for index, row in enumerate(rows):
        values = row.values() if isinstance(row, dict) else row if isinstance(row, list) else ()
        if any(isinstance(value, dict) and "b64" in value for value in (row, *values)):
            raise InvalidInput.at(f"{pointer}/{index}", _BINARY)
