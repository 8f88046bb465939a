"""Request bodies: read within a limit, decoded by their content type, and described in the OpenAPI document."""

import codecs
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import replace
from io import FileIO
from typing import Any, BinaryIO, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.data.columns.options import ReadingOptions
from app.data.content import HEAD_BYTES
from app.data.formats import FORMATS
from app.data.formats.base import TableFormat
from app.data.formats.csv import CSV
from app.errors import BodyTooLarge, LinserveError, MalformedBody
from app.prediction.missing_rows import Reasons
from app.web.decompression import IDENTITY, STATE_BYTES, WINDOW_BYTES, content_encoding, decompress
from app.web.hints import unsupported, unsupported_part
from app.web.multipart import FILE, MAX_OPTIONS, MAX_OTHER, MEDIA_TYPE, OPTIONS
from app.web.problems import invalid
from app.web.recognition import Received, recognise
from app.web.state import get_memory, get_services
from app.web.version_headers import VERSION_HEADER

JSON = "application/json"
MISSING_ROWS = "linserve-missing-rows"  # Response header with the number of rows without results.
MISSING_REASONS = "linserve-missing-reasons"  # Response header with the reasons, if there are such rows.

# Bytes that decoding JSON takes for each comma, quote and bracket, measured with the schemas of this service.
VALUE_BYTES = 76
QUOTE_BYTES = 48
ROW_BYTES = 500

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


async def content_type(request: Request, *accepted: str) -> str:
    """Return the media type of the body: one of the `accepted` ones.

    It is the one in Content-Type, without parameters, unless the body's first bytes are those of another format. Of a
    form, it is that of the part `file`.

    Raises UnsupportedMediaType if it is missing, repeated, or not one of the `accepted` types.
    """
    received: Received = await unless_disconnected(recognise(request, accepted))
    request.state.received = received
    if received.media_type is None and received.is_form:
        raise unsupported_part(accepted)
    if received.media_type is None:
        given = [value.partition(";")[0].strip().lower() for value in request.headers.getlist("content-type")]
        raise unsupported(request, given, accepted, await _beginning(request))
    return received.media_type


def received_of(request: Request) -> Received:
    """Return the facts that `content_type` found: the warning, the form and the encoding."""
    received: Received | None = getattr(request.state, "received", None)
    if received is None:
        request.state.received = received = Received(rest=request.stream())
    return received


async def complete_form(request: Request, limit: int) -> None:
    """Read the rest of a form, whose file has at most `limit` bytes, so that all of its options are known."""
    received = received_of(request)
    if received.is_form:
        received.chunks = [await read_body(request, limit)]


def with_encoding(request: Request, table_format: TableFormat, options: ReadingOptions) -> ReadingOptions:
    """Return the options with the charset of the Content-Type, unless they have an encoding, for a text format."""
    if options.encoding is not None or "encoding" not in table_format.options:
        return options
    return replace(options, encoding=received_of(request).encoding)


async def unless_disconnected(reading: Awaitable[T]) -> T:
    """Return what is read. Raises MalformedBody if the client closes the connection first."""
    try:
        return await reading
    except ClientDisconnect:
        raise MalformedBody("The body ended early.") from None


async def _beginning(request: Request) -> bytes:
    """Return the first bytes of a body that is rejected, decompressed."""
    with contextlib.suppress(LinserveError):
        async for chunk in iter_body(request, get_services(request).max_upload_bytes):
            return chunk[:HEAD_BYTES]
    return b""


def missing_rows(count: int, reasons: Reasons) -> dict[str, str]:
    """Return the headers for `count` rows without results."""
    return {MISSING_ROWS: str(count), **({MISSING_REASONS: str(reasons)} if count else {})}


def content_length(request: Request) -> int:
    """Return the Content-Length of the body; 0 without one."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def iter_body(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Yield the body in chunks, decompressed. Raises as `iter_limited` and `iter_decompressed` do."""
    encoding = content_encoding(request)
    chunks = iter_limited(request, limit)
    return chunks if encoding == IDENTITY else iter_decompressed(request, chunks, encoding, limit)


async def iter_limited(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Yield the body in chunks as it was sent. Raises BodyTooLarge if it exceeds `limit` bytes, or MalformedBody."""
    body = received_of(request)
    if content_length(request) > limit + (MAX_OPTIONS + MAX_OTHER if body.is_form else 0):
        raise _too_large(limit)
    received = 0
    try:
        async for chunk in body.stream():
            received += len(chunk)
            if received > limit:
                raise _too_large(limit)
            yield chunk
    except ClientDisconnect:
        raise MalformedBody("The body ended early.") from None


async def iter_decompressed(
    request: Request, chunks: AsyncIterator[bytes], encoding: str, limit: int
) -> AsyncIterator[bytes]:
    """Yield the body decompressed, in chunks. The decompressor's window is reserved as it fills.

    Raises BodyTooLarge if it exceeds `limit` bytes, WorkerBusy, or what `decompress` raises.
    """
    memory = get_memory(request)
    received = 0
    reserved = STATE_BYTES
    memory.reserve(reserved)
    async for chunk in decompress(chunks, encoding):
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        filled = STATE_BYTES + min(received, WINDOW_BYTES[encoding])
        if filled > reserved:
            memory.reserve(filled - reserved)
            reserved = filled
        yield chunk
    memory.release(reserved)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is longer than the limit of {limit} bytes. Send it in several parts.")


async def regroup(chunks: AsyncIterator[bytes], size: int) -> AsyncIterator[bytearray]:
    """Yield the chunks joined to at least `size` bytes; the last may be shorter."""
    joined = bytearray()
    async for chunk in chunks:
        joined += chunk
        if len(joined) >= size:
            yield joined
            joined = bytearray()
    if joined:
        yield joined


async def read_body(request: Request, limit: int) -> bytes:
    """Return the whole body, at most `limit` bytes.

    Raises WorkerBusy if other requests have reserved the memory; BodyTooLarge as soon as the body and its copy exceed
    what a request may have, also if the worker is busy.
    """
    memory = get_memory(request)
    body = bytearray()  # Not a list of chunks, because each chunk may be one byte.
    async for chunk in iter_body(request, limit):
        memory.check_allowed(len(body) + 2 * len(chunk))
        memory.reserve(len(chunk))
        body += chunk
    with memory.reserved(len(body)):  # The copy, before the original is freed.
        return bytes(body)


def decoding_bytes(body: bytes) -> int:
    """Return an estimate of the bytes that decoding a JSON body takes, with the decoded values.

    Numbers are counted by the commas between them, strings by their quotes, and rows by their brackets.
    """
    brackets = body.count(b"[") + body.count(b"{")
    return VALUE_BYTES * body.count(b",") + QUOTE_BYTES * body.count(b'"') + ROW_BYTES * brackets + len(body)


def decode(schema: type[M], body: bytes) -> M:
    """Return the body as `schema`. Raises MalformedBody if it is not JSON, InvalidInput if it does not fit."""
    if not body:
        raise MalformedBody("The body is empty. Expected a JSON object; curl sends one with --json or --data-binary.")
    try:
        # RFC 8259 lets a parser ignore a byte order mark.
        return schema.model_validate_json(body.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        raise invalid(error, body, schema) from None


async def chunks_of(file: BinaryIO | FileIO, size: int) -> AsyncIterator[bytes]:
    """Yield the rest of a file in chunks of at most `size` bytes, then close it."""
    with file:
        while chunk := await run_in_threadpool(file.read, size):
            yield chunk


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z)
    return Response(body, status, headers=headers, media_type=JSON)


def openapi_request_body(
    schema: type[BaseModel] | str,
    examples: dict[str, Any],
    *,
    csv_example: str | None = None,
    options: Sequence[dict[str, Any]] = (),
    with_form: bool = True,
) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that decodes its body itself: JSON of this schema or its name, or a file.

    Without `csv_example`, the route takes no files. `options` are the query parameters that may be fields of a form,
    if the route takes forms.
    """
    content: dict[str, Any] = {
        JSON: {
            "schema": {"$ref": f"#/components/schemas/{schema if isinstance(schema, str) else schema.__name__}"},
            "examples": {name: {"summary": name, "value": value} for name, value in examples.items()},
        }
    }
    if csv_example:
        content |= _documented_files()
        content[CSV.media_type]["example"] = csv_example
        if with_form:
            content[MEDIA_TYPE] = {"schema": _form(options)}
    return {"requestBody": {"required": True, "content": content}}


def _form(options: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of a form with a file and options."""
    # Without the example, Swagger UI would fill in a value for each option. It sends empty fields, which are not of a
    # stricter type, and generators cannot write a field of one of two types.
    fields = {option["name"]: {"type": "string", "example": "", "description": _values(option)} for option in options}
    return {
        "type": "object",
        "description": "A file, and options in fields of their own or in the part `options`, in any order. Empty "
        "fields do not count.",
        "properties": {
            FILE: {"type": "string", "format": "binary", "description": "The rows, in one of the formats."},
            **fields,
            OPTIONS: {"type": "object", "description": "Options as in a JSON body."},
        },
        "required": [FILE],
    }


def _values(option: dict[str, Any]) -> str:
    """Return the description of an option with its values, if they are words."""
    values = option["schema"].get("enum", ())
    listed = f" Values: {', '.join(f'`{value}`' for value in values if value)}." if values else ""
    return f"{option['description']}{listed}"


def openapi_response() -> dict[str, Any]:
    """Return the response 200 of a route that responds with JSON or a file. FastAPI adds the JSON."""
    return {
        "description": "Predictions, row by row.",
        "content": _documented_files(),
        "headers": {
            "Linserve-Version": VERSION_HEADER,
            "Linserve-Missing-Rows": {
                "description": "Number of rows without predictions, because a value is missing or a level is unknown. "
                "The header is sent if the rows or the results are a file, and in JSON with `missing` or `unknown` of "
                "`null`.",
                "schema": {"type": "integer", "minimum": 0},
            },
            "Linserve-Missing-Reasons": {
                "description": "If there are such rows, the numbers of gaps and of unseen levels in each column.",
                "schema": {"type": "string"},
                "example": 'gaps: "age" 3, "sex" 1; unseen levels: "species" 2',
            },
        },
    }


def _documented_files() -> dict[str, Any]:
    return {
        table_format.media_type: {"schema": {"type": "string"} | ({} if table_format.is_text else {"format": "binary"})}
        for table_format in FORMATS
    }
