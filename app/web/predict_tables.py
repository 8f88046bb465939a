"""Predictions for whole files: a table in, in one format, and a table out, in the same or another."""

import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.data.content import explained
from app.data.formats import FileFormat, check_size, read_file
from app.data.json_rows import escaped
from app.data.part import Columns, Header, Part, Source, narrowed, refusal
from app.data.table_writers import OutputFormat, SpillingFile, table_writer
from app.errors import Detail, InvalidInput, PredictionTooLarge, not_stored
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array
from app.web import bodies
from app.web.errors import invalid_query
from app.web.parameters import check_query, in_query, names_in_query
from app.web.services import Held, Services, services
from app.web.training_options import HEADER_TEXT

MEMORY_BYTES = 1 << 23  # of a body; a longer one goes through a file, and so does its answer
CHUNK_BYTES = 1 << 18
OBJECT_BYTES = 64  # that a chunk takes beside what is in it, which may be a byte
MOST_KEPT = 1000  # columns
NOT_POSITIVE = "The weight is not a positive number."

FORMATS: dict[str, OutputFormat] = {bodies.JSON: "json", **bodies.FILES}


class TableOptions(BaseModel):
    """Options of a prediction that stand in the query."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    keep: list[str] = Field(
        [],
        max_length=MOST_KEPT,
        description=f"Columns that are no features and pass through, separated by commas; at most {MOST_KEPT}.",
    )
    interval: float | None = Field(None, gt=0, lt=1, description="Adds `..._lower` and `..._upper` of this level.")
    confidence: float | None = Field(None, gt=0, lt=1, description="Likewise `..._mean_lower`, `..._mean_upper`.")
    header: Header | None = Field(None, description=HEADER_TEXT)
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
    """What of one body, or of one answer, is in memory: up to MEMORY_BYTES, and none where others take the room."""

    def __init__(self, request: Request, held: Held) -> None:
        self._request, self._held = request, held
        self._bytes = 0

    def hold(self, count: int) -> bool:
        """Whether so many bytes more may be in memory. If not, the bytes before them go to a file as well."""
        if self._bytes + count <= MEMORY_BYTES and self._held.may_add(self._request, count):
            self._bytes += count
            return True
        self._held.release(self._request, self._bytes)
        return False


@contextlib.asynccontextmanager
async def received(request: Request, found: Services) -> AsyncIterator[Source]:
    """The body: bytes, or where it is long a file that is there for as long as the block."""
    chunks = bodies.stream(request, found.limits.upload_bytes)
    memory = _Memory(request, found.held)
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
            file = closing.enter_context(found.scratch.file(bodies.announced(request)))
            await run_in_threadpool(file.writelines, first)
            first.clear()
            async for chunk in chunks:
                file.write(chunk)
        except OSError as error:
            raise not_stored("The rows", error) from error
        yield file.path


def read_table(source: Source, form: FileFormat, version: Version, options: TableOptions, limit: int) -> Iterator[Part]:
    """The rows of a file. Its columns may stand in any order, and are the features and those to keep.

    A file without a header may have others, which are not read.

    Raises BodyTooLarge or InvalidInput where an upload of `limit` bytes comes to too much.
    """
    # Without a header a column's place is its name, so that those between the features have to stay.
    numbers = numbers_of(version.model, options)
    columns = Columns(numbers, options.keep, only=options.header != "none", header=options.header, training=False)
    with explained(source, form, options.header):
        check_size(source, form, [*columns.numbers, *columns.keep], limit)
    yield from read_file(source, form, columns)


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
    parts: Iterator[Part],
    version: Version,
    options: TableOptions,
    out: str,
    *,
    first_row: int | None = None,
) -> tuple[Response, int]:
    """Predict for all parts, and answer with media type `out`; and the number of rows.

    The answer is written, into memory or when it is long into a file, before its first byte is sent, so that a fault in
    the last row is answered with its place as one in the first is. Raises InvalidInput, BodyTooLarge where the answer
    is longer than an upload may be, Unavailable. Rows that are no file's have no `first_row`.
    """
    found = services(request)
    sink = SpillingFile(_Memory(request, found.held).hold, found.scratch.file, found.limits.upload_bytes)
    model = version.model
    names = _names(model, options)
    _check_options(model, options)
    document = {"model": version.card.model, "version": version.card.version}
    writer = table_writer(FORMATS[out], sink, options.keep, names, document)
    rows = 0
    with contextlib.ExitStack() as failing:
        failing.callback(sink.discard)
        width = max(len(numbers_of(model, options)), len(model.columns), len(names))
        for values, kept, _ in itertools.chain.from_iterable(narrowed(part, width) for part in parts):
            try:
                writer.write(kept, _columns(model, values, options))
            except PredictionTooLarge as error:
                if first_row is None:
                    raise
                raise refusal(error.message, row=first_row + rows + error.row) from None
            except _NotPositive as error:
                raise _refused_weight(error, rows, first_row, options) from None
            rows += len(values)
        writer.close()
        failing.pop_all()
    headers = {"linserve-model": version.card.model, "linserve-version": str(version.card.version)}
    if isinstance(written := sink.written(), bytes):
        return Response(written, headers=headers, media_type=out), rows
    headers["content-length"] = str(sink.length)
    return StreamingResponse(bodies.chunks_of(written, CHUNK_BYTES), headers=headers, media_type=out), rows


def _names(model: LinearModel, options: TableOptions) -> Sequence[str]:
    names = list(model.targets)
    if options.interval is not None:
        names += [f"{target}_{side}" for target in model.targets for side in ("lower", "upper")]
    if options.confidence is not None:
        names += [f"{target}_mean_{side}" for target in model.targets for side in ("lower", "upper")]
    counts = Counter([*options.keep, *names, *model.features])
    twice = sorted({name for name in options.keep if counts[name] > 1})
    if twice or len(set(names)) < len(names):
        details = [Detail("A column of that name is there already.", column=name) for name in twice]
        raise InvalidInput("Two columns of the answer would have the same name.", details)
    return names


def _check_options(model: LinearModel, options: TableOptions) -> None:
    """Raise InvalidInput for an option that this model or the other options do not allow."""
    for option in ("interval", "confidence"):
        if getattr(options, option) is not None and model.no_intervals is not None:
            message = f"This model has no intervals. {model.no_intervals}"
            raise InvalidInput(message, [Detail(message, parameter=option)])
    if options.instance_weights is None:
        return
    refused = no_instance_weights(model)
    if options.interval is None:
        refused = "Instance weights are only for prediction intervals. Add `interval`."
    if refused:
        raise InvalidInput(refused, [Detail(refused, parameter="instance_weights")])


class _NotPositive(Exception):
    """`row` is that of the first such weight, from 0."""

    def __init__(self, row: int) -> None:
        self.row = row


def _refused_weight(error: _NotPositive, rows: int, first_row: int | None, options: TableOptions) -> InvalidInput:
    column = options.instance_weights or ""
    if first_row is None:
        return InvalidInput.at(f"/instances/{rows + error.row}/{escaped(column)}", NOT_POSITIVE)
    return refusal(NOT_POSITIVE, row=first_row + rows + error.row, column=column)


def _columns(model: LinearModel, values: Array, options: TableOptions) -> Array:
    """Return predictions and, if asked for, bounds: (n, number of names). A bound that does not exist is NaN."""
    x, weights = values[:, : len(model.features)], None
    if options.instance_weights is not None:
        weights = values[:, numbers_of(model, options).index(options.instance_weights)]
        if not (weights > 0).all():
            raise _NotPositive(int((weights <= 0).argmax()))
    columns = [model.predict(x)]
    if options.interval is not None:
        columns.append(model.interval(x, options.interval, observation_weights=weights).reshape(len(x), -1))
    if options.confidence is not None:
        columns.append(model.interval(x, options.confidence, of_mean=True).reshape(len(x), -1))
    return np.hstack(columns) if len(columns) > 1 else columns[0]
