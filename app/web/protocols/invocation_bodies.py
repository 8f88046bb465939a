"""Decoders for the bodies of `/invocations` in JSON and JSON Lines, and for the options in a header."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from pydantic import ConfigDict, Field, ValidationError

from app.data.json_faults import kind_of
from app.data.json_rows import has_more_brackets, is_json
from app.data.names import listed, shown
from app.errors import FieldError, InvalidInput, MalformedBody
from app.prediction.query import Missing, PredictionOptions, PredictionQuery
from app.web import bodies
from app.web.hints import not_json
from app.web.problems import invalid_query
from app.web.protocols.instances import rows_of_columns, unwrapped
from app.web.query import split_names
from app.web.schemas.openapi_schema import DocumentedAs, Row, Schema
from app.web.schemas.predict import SharedOptions

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

# Beginning of lines without names: an array, or an object with an array in SageMaker's member `features`.
_POSITIONAL_LINE = re.compile(rb'\s*(?:\[|\{\s*"features"\s*:\s*\[)')
_OTHER_BRACKETS = 8  # Brackets of a body that belong to no row.
_LINES = msgspec.json.Decoder()


class InvocationParams(SharedOptions):
    """Options. Without them, a prediction is a number or, with several targets, an array in their order."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class InvocationRequest(Schema):
    """Rows in exactly one of MLflow's four members, and options."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dataframe_split: Annotated[Any, DocumentedAs(dict[str, list[Any]] | None)] = None
    """A pandas frame as `to_dict(orient="split")` writes it. Its index is ignored."""
    dataframe_records: Annotated[Any, DocumentedAs(list[dict[str, Any]] | None)] = None
    """A pandas frame as `to_dict(orient="records")` writes it."""
    instances: Annotated[Any, DocumentedAs(list[Row] | None)] = None
    """Rows, all objects or all arrays in the model's feature order. An array may be in an object, as `features`."""
    inputs: Annotated[Any, DocumentedAs(list[Row] | dict[str, list[Any]] | None)] = None
    """Rows as in `instances`, or an object with a list of values for each feature."""
    params: InvocationParams | None = None


EXAMPLES: dict[str, Any] = {
    "A pandas frame": {"dataframe_split": {"columns": ["temp", "rainfall", "humidity"], "data": [[75, 63, 44]]}},
    "Rows as objects": {"dataframe_records": [{"temp": 75, "rainfall": 63, "humidity": 44}]},
    "An array": {"inputs": [[75, 63, 44]]},
    "Columns, with intervals": {
        "inputs": {"temp": [75], "rainfall": [63], "humidity": [44]},
        "params": {"interval": 0.95},
    },
}
MEMBERS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class Attributes(SharedOptions):
    """Options in the header for custom attributes."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)

    model: str | None = None
    version: int | None = Field(None, ge=1)


def read_attributes(text: str) -> Attributes:
    """Return the options in `interval=0.9,model=other`. Raises InvalidInput."""
    options: dict[str, str] = {}
    for part in split_names(ATTRIBUTES, text.strip()):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in Attributes.model_fields or name in options:
            fault = f"{shown(name)} is given twice" if name in options else f"{shown(part)} is not an option"
            raise InvalidInput.of_parameter(
                ATTRIBUTES,
                f"{fault}. Expected options separated by commas, such as `interval=0.9,missing=null`. Options: "
                f"{', '.join(Attributes.model_fields)}.",
            )
        options[name] = value
    try:
        return Attributes.model_validate(options)
    except ValidationError as error:
        raise invalid_query(error, Attributes.model_fields, "custom attributes") from None


def merge_options(attributes: SharedOptions, params: SharedOptions | None, default: Missing) -> PredictionOptions:
    """Return the options of a request. `default` applies to `missing` and `unknown`.

    Raises InvalidInput if one is given in both places.
    """
    given: dict[str, Any] = {name: getattr(attributes, name) for name in SharedOptions.model_fields}
    for name in () if params is None else params.model_fields_set:
        if given[name] is not None:
            message = f"`{name}` is given both in `params` and in the custom attributes. Give it once."
            raise InvalidInput.at(f"/params/{name}", message)
        given[name] = getattr(params, name)
    return PredictionOptions(
        interval=given["interval"],
        confidence=given["confidence"],
        missing=given["missing"] or default,
        unknown=given["unknown"] or default,
    )


class Invocation(NamedTuple):
    """The rows of a body, and whether they are those of a pandas frame."""

    query: PredictionQuery
    is_frame: bool


def decode_invocation(body: bytes, features: Sequence[str], attributes: SharedOptions, max_rows: int) -> Invocation:
    """Decode a body in one of MLflow's four forms. Raises MalformedBody or InvalidInput."""
    _check_rows(body, max_rows)
    payload = bodies.decode(InvocationRequest, body)
    given = [name for name in MEMBERS if getattr(payload, name) is not None]
    if len(given) != 1:
        received = f"found {' and '.join(f'`{name}`' for name in given)}" if given else "found none of them"
        raise InvalidInput(f"Expected rows in one of {', '.join(f'`{name}`' for name in MEMBERS)}; {received}.")
    pointer, value = f"/{given[0]}", getattr(payload, given[0])
    if given == ["dataframe_split"]:
        rows = _split_rows(value, features)
        pointer += "/data"
    elif given == ["inputs"] and isinstance(value, dict):
        rows = _column_rows(value)
    elif isinstance(value, list):
        rows = _without_wrapping(value, features)
    else:
        raise InvalidInput.at(pointer, f"Expected a list of rows, found {kind_of(value)}.")
    if not rows:
        raise InvalidInput.at(pointer, "There are no rows. Expected at least one.")
    if len(rows) > max_rows:
        raise _too_many(max_rows)
    if b"NaN" in body:
        rows = [_without_nan(row) for row in rows]
    options = merge_options(attributes, payload.params, "refuse")
    return Invocation(PredictionQuery(rows, options, pointer=pointer), given[0].startswith("dataframe"))


def are_positional_lines(head: bytes) -> bool:
    """Return True if the lines of a body that begins like this are arrays, or objects with an array in `features`."""
    return _POSITIONAL_LINE.match(head) is not None


def decode_lines(body: bytes, features: Sequence[str], attributes: SharedOptions, max_rows: int) -> PredictionQuery:
    """Decode JSON Lines of arrays. Raises MalformedBody or InvalidInput."""
    if body.count(b"\n") > max_rows:
        raise _too_many(max_rows)
    rows = []
    for number, line in enumerate(filter(bytes.strip, body.split(b"\n"))):
        try:
            rows.append(_LINES.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            message = f"Line {number + 1} is not JSON. Expected an array with a row in each line."
            raise MalformedBody(message, [FieldError(message, row=number + 1)]) from None
    options = merge_options(attributes, None, "refuse")
    return PredictionQuery(_without_wrapping(rows, features), options, pointer="")


def _check_rows(body: bytes, max_rows: int) -> None:
    """Count brackets before decoding, because invalid rows would take many times their length in memory."""
    if len(body) > max_rows and has_more_brackets(body, 2 * max_rows + _OTHER_BRACKETS):
        raise _too_many(max_rows) if is_json(body) else not_json(body, "")


def _too_many(max_rows: int) -> InvalidInput:
    return InvalidInput(f"At most {max_rows} rows fit into one request. Send them in several requests, or as a table.")


def _split_rows(frame: Any, features: Sequence[str]) -> list[Any]:
    """Return the rows of a frame as objects, or as arrays if its columns are only numbered."""
    if not isinstance(frame, dict) or not isinstance(data := frame.get("data"), list):
        raise InvalidInput.at("/dataframe_split", "Expected an object with the lists `columns` and `data`.")
    if others := sorted(set(frame) - {"columns", "data", "index"}):
        message = f"{listed(others)} is not expected here. Expected `columns` and `data`."
        raise InvalidInput.at("/dataframe_split", message)
    columns = frame.get("columns")
    if columns is None or columns == list(range(len(features))):
        return data
    if not isinstance(columns, list) or not all(isinstance(name, str | int) for name in columns):
        raise InvalidInput.at("/dataframe_split/columns", "Expected a list of the names of the columns.")
    names = [str(name) for name in columns]
    if len(set(names)) < len(names):
        raise InvalidInput.at("/dataframe_split/columns", "Two columns have the same name.")
    rows = []
    for index, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(names):
            found = f"{len(row)} values" if isinstance(row, list) else kind_of(row)
            message = f"Expected an array of {len(names)} values ({listed(names)}), found {found}."
            raise InvalidInput.at(f"/dataframe_split/data/{index}", message)
        rows.append(dict(zip(names, row, strict=True)))
    return rows


def _column_rows(columns: dict[str, Any]) -> list[Any]:
    """Return the rows of columns. A value may be in an array of its own, and a column may be one value."""
    lists = {name: value if isinstance(value, list) else [value] for name, value in columns.items()}
    return unwrapped(rows_of_columns(lists, "/inputs"))


def _without_wrapping(rows: list[Any], features: Sequence[str]) -> list[Any]:
    """Return the rows without SageMaker's `features` around their arrays."""
    if "features" in features or not rows or not isinstance(rows[0], dict) or set(rows[0]) != {"features"}:
        return rows
    return [row["features"] if isinstance(row, dict) and set(row) == {"features"} else row for row in rows]


def _without_nan(row: Any) -> Any:
    """Return a row with null in place of NaN, which Python writes to JSON for a missing value of a frame."""
    if isinstance(row, dict):
        return {name: None if value != value else value for name, value in row.items()}  # noqa: PLR0124
    if isinstance(row, list):
        return [None if value != value else value for value in row]  # noqa: PLR0124
    return None if row != row else row  # noqa: PLR0124
