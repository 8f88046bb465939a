"""Predictions for whole files: a table in, in one format, and a table out, in the same or another."""

import contextlib
import functools
import io
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.data.batch import Columns, Header, RowBatch, Source, row_error, split_wide, wide_batch_bytes
from app.data.content import explained
from app.data.formats import BY_MEDIA_TYPE
from app.data.formats.base import TableFormat, TableWriter
from app.data.formats.json import JSON, JsonDocumentWriter
from app.data.json_faults import escaped
from app.data.names import listed
from app.data.reading import read_file
from app.errors import FieldError, InvalidInput, PredictionTooLarge, not_stored
from app.prediction.missing_rows import HEADER, CompleteRows
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array
from app.storage.memory_budget import LARGE_BODY, MemoryBudget
from app.storage.spooled_output import SpooledOutput
from app.web import bodies
from app.web.problems import invalid_query
from app.web.query import check_query, in_query, names_in_query
from app.web.schemas.train import HEADER_TEXT
from app.web.state import Services, get_services

MEMORY_BYTES = 1 << 23  # of a body; a longer one goes through a file, and so does its answer
WORK_BYTES = 1 << 25  # Bytes for predicting for a table, in addition to the part that is read.
DESIGN_TIMES = 9  # Times its bytes that a design takes while it is decomposed, with the workspace of LAPACK.
READ_TIMES = 3  # Times its bytes that a part takes while it is read.
SHORT_TIMES = 160  # Times its length that predicting for a short table takes.
CHUNK_BYTES = 1 << 18
OBJECT_BYTES = 64  # that a chunk takes beside what is in it, which may be a byte
NUMBER_BYTES = 8
JSON_BYTES = 30  # of a number, and of what is around it and its name
MAX_KEPT = 1000  # columns
NOT_POSITIVE = "The weight is not a positive number."

MEDIA_TYPES = (JSON.media_type, *BY_MEDIA_TYPE)


class TableOptions(BaseModel):
    """Options of a prediction in the query."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    keep: list[str] = Field(
        [],
        max_length=MAX_KEPT,
        description=f"Columns to pass through to the answer, separated by commas; at most {MAX_KEPT}. If a target is "
        "kept, the columns of its predictions and bounds begin with `predicted_` and its name. "
        "In CSV, NDJSON and JSON, dates, times and timestamps are written as in RFC 3339: in UTC with a Z, or without "
        "an offset if the column has no time zone.",
    )
    interval: float | None = Field(None, gt=0, lt=1, description="Adds `..._lower` and `..._upper` of this level.")
    confidence: float | None = Field(None, gt=0, lt=1, description="Likewise `..._mean_lower`, `..._mean_upper`.")
    header: Header | None = Field(None, description=HEADER_TEXT)
    missing: Literal["null", "refuse"] | None = Field(
        None,
        description="What is done with a row in which a value is missing. `null`, the default for files: its "
        "predictions and bounds are null, and `Linserve-Missing-Rows` counts it. `refuse`, the default for JSON: the "
        "request is refused, with the place of the first such value.",
    )
    instance_weights: str | None = Field(
        None,
        description="Column with the precision weight of each row, positive. Intervals are then for an observation of "
        "this weight and not of the mean weight of the training rows. Only with `interval`.",
    )


def options_of(query: QueryParams) -> TableOptions:
    """Raises InvalidInput for an option that is unknown, repeated or wrong."""
    if not query:
        return TableOptions()
    check_query(query, TableOptions.model_fields)
    plain: dict[str, Any] = dict(query)
    if "keep" in plain:
        plain["keep"] = names_in_query("keep", plain["keep"])
    try:
        return TableOptions.model_validate(plain)
    except ValidationError as error:
        raise invalid_query(error, TableOptions.model_fields) from None


def query_parameters() -> list[dict[str, Any]]:
    """The query parameters for the OpenAPI document."""
    schemas = in_query(TableOptions)
    return [
        {"name": name, "in": "query", "required": False, "schema": schemas[name], "description": field.description}
        for name, field in TableOptions.model_fields.items()
    ]


class _Memory:
    """Decides how much of a body or an answer is in memory: up to MEMORY_BYTES, if the budget allows."""

    def __init__(self, request: Request, memory: MemoryBudget) -> None:
        self._request, self._memory = request, memory
        self._bytes = 0

    def hold(self, count: int) -> bool:
        """Return True if `count` more bytes may be in memory. If not, all bytes have to go to a file."""
        if self._bytes + count <= MEMORY_BYTES and self._memory.may_hold(self._request, count):
            self._bytes += count
            return True
        self._memory.release(self._request, self._bytes)
        return False


@contextlib.asynccontextmanager
async def spool_body(request: Request, found: Services, chunks: AsyncIterator[bytes]) -> AsyncIterator[Source]:
    """Yield the whole body: bytes, or a temporary file if it is long."""
    memory = _Memory(request, found.memory)
    first: list[bytes] = []
    async for chunk in chunks:
        first.append(chunk)
        if not memory.hold(len(chunk) + OBJECT_BYTES):
            break
    else:
        content = b"".join(first)
        first.clear()
        yield content
        return
    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(found.scratch.file(bodies.content_length(request)))
            await run_in_threadpool(file.writelines, first)
            first.clear()
            async for chunk in chunks:
                file.write(chunk)
        except OSError as error:
            raise not_stored("The rows", error) from error
        yield file.path


@contextlib.asynccontextmanager
async def inflated(request: Request, found: Services, body: Source, encoding: str) -> AsyncIterator[Source]:
    """The body as it was before it was packed in that encoding. This waits for a turn, which few bytes may need."""
    if encoding == bodies.IDENTITY:
        yield body
        return
    file = body.open("rb") if isinstance(body, Path) else io.BytesIO(body)
    packed = bodies.chunks_of(file, CHUNK_BYTES)
    async with spool_body(
        request, found, bodies.unpacked(request, packed, encoding, found.limits.upload_bytes)
    ) as source:
        yield source


def work_bytes(length: int | None, model: LinearModel, options: TableOptions) -> int:
    """Return an estimate of the bytes that predicting for a table takes, in addition to the part that is read."""
    size = WORK_BYTES if length is None else min(WORK_BYTES, LARGE_BODY + SHORT_TIMES * length)
    return size + (inference_bytes(model) if (options.interval or options.confidence) is not None else 0)


def inference_bytes(model: LinearModel) -> int:
    """Return an estimate of the bytes for decomposing a design, as the first interval of a version does."""
    return DESIGN_TIMES * NUMBER_BYTES * len(model.columns) ** 2


def needs_turn(body: Source, table_format: TableFormat, encoding: str) -> bool:
    """Return True unless the table is short. A compressed or binary one may have any number of rows."""
    is_long = not isinstance(body, bytes) or len(body) > LARGE_BODY
    return is_long or encoding != bodies.IDENTITY or not table_format.is_text


def read_table(
    request: Request, source: Source, table_format: TableFormat, version: Version, options: TableOptions
) -> Iterator[RowBatch]:
    """The rows of a file. Its columns may stand in any order, and are the features and those to keep.

    It may also have the columns that the version ignores, and a file without a header any others: they are not read. A
    missing value is NaN unless `options.missing` refuses it.

    The memory that reading takes is held until the request has its answer. Raises BodyTooLarge or InvalidInput where
    the table comes to too much, WorkerBusy.
    """
    found = get_services(request)
    # Without a header a column's place is its name, so that those between the features have to stay.
    numbers = numbers_of(version.model, options)
    columns = Columns(
        numbers,
        options.keep,
        missing=options.missing != "refuse",
        only=options.header != "none",
        ignored=version.ignored,
        header=options.header,
        training=False,
    )
    read = [*columns.numbers, *columns.keep]
    with explained(source, table_format, options.header):
        metadata = table_format.metadata_bytes(source)
        found.memory.hold(request, metadata + READ_TIMES * wide_batch_bytes(columns))
        found.memory.hold(request, table_format.check_size(source, read, found.limits.upload_bytes))
    yield from read_file(source, table_format, columns)


def numbers_of(model: LinearModel, options: TableOptions) -> Sequence[str]:
    """Return the columns that are read as numbers: the features, and the weights after them unless they are one."""
    column = options.instance_weights
    return model.features if column is None or column in model.features else (*model.features, column)


def no_instance_weights(model: LinearModel) -> str | None:
    """Return why instances cannot have weights of their own with this model; None if they can."""
    if model.statistics.weight_kind == "precision":
        return None
    return (
        "The model was trained with frequency weights. They count observations and say nothing of the precision of a "
        "new one. Leave `instance_weights` out."
    )


def answer_table(
    request: Request,
    parts: Iterator[RowBatch],
    version: Version,
    options: TableOptions,
    out: str,
    *,
    first_row: int | None = None,
) -> tuple[Response, int]:
    """Predict for all parts, and answer with media type `out`; and the number of rows. A row with NaN has no answers.

    The answer is written, into memory or when it is long into a file, before its first byte is sent, so that a fault in
    the last row is answered with its place as one in the first is. Raises InvalidInput, BodyTooLarge where the answer
    is longer than an upload may be, Unavailable. Rows that are no file's have no `first_row`.
    """
    found = get_services(request)
    sink = SpooledOutput(_Memory(request, found.memory).hold, found.scratch.file, found.limits.upload_bytes)
    model = version.model
    names = _names(model, options)
    _check_options(model, options)
    document = {"model": version.card.model, "version": version.card.version}
    table_format = BY_MEDIA_TYPE.get(out)
    if table_format is None:
        writer: TableWriter = JsonDocumentWriter(sink, options.keep, names, document)
    else:
        writer = table_format.writer(sink, options.keep, names)
    names_in_rows = table_format is None or table_format.names_in_rows
    rows = missing = 0
    with contextlib.ExitStack() as failing:
        failing.callback(sink.discard)
        row_bytes = _row_bytes(model, options, names, names_in_rows=names_in_rows)
        for values, kept, *_ in _pieces(parts, row_bytes, first_row):
            complete = CompleteRows.of(values)
            try:
                writer.write(kept, complete.spread(functools.partial(_columns, model, complete.taken(values), options)))
            except PredictionTooLarge as error:
                if first_row is None:
                    raise
                raise row_error(error.message, row=first_row + rows + error.row) from None
            except _NotPositive as error:
                raise _refused_weight(rows + complete.place(error.row), first_row, options) from None
            rows += len(values)
            missing += complete.missing
        writer.close()
        failing.pop_all()
    headers = {
        "linserve-model": version.card.model,
        "linserve-version": str(version.card.version),
        HEADER: str(missing),
    }
    if isinstance(written := sink.written(), bytes):
        return Response(written, headers=headers, media_type=out), rows
    headers["content-length"] = str(sink.length)
    return StreamingResponse(bodies.chunks_of(written, CHUNK_BYTES), headers=headers, media_type=out), rows


def _row_bytes(model: LinearModel, options: TableOptions, names: Sequence[str], *, names_in_rows: bool) -> int:
    """Return the most bytes that one row of the answer takes while it is made."""
    values = max(len(numbers_of(model, options)), len(model.columns), len(names) + len(options.keep))
    text = sum(len(name) + JSON_BYTES for name in [*options.keep, *names]) if names_in_rows else 0
    return max(NUMBER_BYTES * values, text)


def _pieces(parts: Iterator[RowBatch], row_bytes: int, first_row: int | None) -> Iterator[RowBatch]:
    for part in parts:
        yield from split_wide(part, row_bytes, first_row)
        if first_row is not None:
            first_row += len(part.values)


def _names(model: LinearModel, options: TableOptions) -> Sequence[str]:
    """Return the names of the columns of numbers: the predictions, named as targets that are not kept, and the bounds.

    Raises InvalidInput if two columns of the answer would have the same name.
    """
    predictions = [f"predicted_{target}" if target in options.keep else target for target in model.targets]
    names = list(predictions)
    if options.interval is not None:
        names += [f"{prediction}_{side}" for prediction in predictions for side in ("lower", "upper")]
    if options.confidence is not None:
        names += [f"{prediction}_mean_{side}" for prediction in predictions for side in ("lower", "upper")]
    counts = Counter([*options.keep, *names, *model.features])
    twice = sorted({name for name in options.keep if counts[name] > 1})
    if twice or len(set(names)) < len(names):
        if features := [name for name in options.keep if name in model.features]:
            message = f"{listed(features)} cannot be kept: features are read as numbers. Leave them out of `keep`."
            raise InvalidInput(message, [FieldError(message, parameter="keep")])
        details = [FieldError("A column of that name is there already.", column=name) for name in twice]
        raise InvalidInput("Two columns of the answer would have the same name.", details)
    return names


def _check_options(model: LinearModel, options: TableOptions) -> None:
    """Raise InvalidInput for an option that this model or the other options do not allow."""
    for option in ("interval", "confidence"):
        if getattr(options, option) is not None and model.inference_unavailable is not None:
            message = f"This model has no intervals. {model.inference_unavailable}"
            raise InvalidInput(message, [FieldError(message, parameter=option)])
    if options.instance_weights is None:
        return
    refused = no_instance_weights(model)
    if options.interval is None:
        refused = "Instance weights are only for prediction intervals. Add `interval`."
    if refused:
        raise InvalidInput(refused, [FieldError(refused, parameter="instance_weights")])


class _NotPositive(Exception):
    """`row` is that of the first such weight, from 0."""

    def __init__(self, row: int) -> None:
        self.row = row


def _refused_weight(row: int, first_row: int | None, options: TableOptions) -> InvalidInput:
    column = options.instance_weights or ""
    if first_row is None:
        return InvalidInput.at(f"/instances/{row}/{escaped(column)}", NOT_POSITIVE)
    return row_error(NOT_POSITIVE, row=first_row + row, column=column)


def _columns(model: LinearModel, values: Array, options: TableOptions) -> Array:
    """Return predictions and, if asked for, bounds: (n, number of names). A bound that does not exist is NaN."""
    x, weights = values[:, : len(model.features)], None
    if options.instance_weights is not None:
        weights = values[:, numbers_of(model, options).index(options.instance_weights)]
        if not (weights > 0).all():
            raise _NotPositive(int((weights <= 0).argmax()))
    columns = [model.predict(x)]
    if options.interval is not None:
        bounds = model.interval(x, options.interval, observation_weights=weights)
        columns.append(bounds.reshape(len(x), 2 * len(model.targets)))
    if options.confidence is not None:
        bounds = model.interval(x, options.confidence, of_mean=True)
        columns.append(bounds.reshape(len(x), 2 * len(model.targets)))
    return np.hstack(columns) if len(columns) > 1 else columns[0]
