"""The format of a body, and the parts of a form."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from tables import ENCODINGS, written
from workbooks import workbook

from app.data.formats import BY_MEDIA_TYPE
from app.errors import BodyTooLarge, InvalidInput, LinserveError, MalformedBody, UnsupportedMediaType
from app.web.multipart import MAX_OPTIONS
from app.web.recognition import Received, recognise

ACCEPTED = ("application/json", *BY_MEDIA_TYPE)
CSV, JSON, EXCEL = "text/csv", "application/json", ACCEPTED[5]
PARQUET, ARROW, NDJSON = ACCEPTED[4], ACCEPTED[3], ACCEPTED[2]
TABLE = pa.table({"x": [1.0], "y": [2.0]})
TEXT = b"x,y\n1,2\n"
SHEET = workbook({"Sheet1": [["x"], [1]]})
STREAM, FRAME = written(TABLE, "arrow"), written(TABLE, "parquet")


@dataclass
class Seen:
    received: Received
    body: bytes


def seen(body: bytes, *types: str, pieces: int = 7, headers: Sequence[tuple[str, str]] = ()) -> Seen:
    """Return what is recognised, and the rows, of a body that arrives in pieces."""
    chunks = [body[at : at + pieces] for at in range(0, len(body), pieces)] or [b""]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    given = [*(("content-type", value) for value in types), *headers]
    scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in given]}

    async def read() -> Seen:
        received = await recognise(Request(scope, receive), ACCEPTED)
        return Seen(received, b"".join([chunk async for chunk in received.stream()]))

    return asyncio.run(read())


def refusal(body: bytes, *types: str) -> LinserveError:
    with pytest.raises(LinserveError) as refused:
        seen(body, *types)
    return refused.value


@pytest.mark.parametrize(
    ("body", "given", "media_type"),
    [
        (TEXT, "text/csv; charset=utf-8", CSV),
        (TEXT, "TEXT/CSV", CSV),
        (TEXT, "text/plain", CSV),
        (TEXT, "text/tab-separated-values", CSV),
        (TEXT, "application/vnd.ms-excel", CSV),
        (SHEET, "application/vnd.ms-excel", EXCEL),
        (SHEET, "application/vnd.oasis.opendocument.spreadsheet", EXCEL),
        (STREAM, "application/vnd.apache.arrow.file", ARROW),
        (b'{"a": 1}', JSON, JSON),
        (b"", CSV, CSV),
        (b"PAR1,x\n1,2\n", CSV, CSV),
        (b"PK,x\n1,2\n", CSV, CSV),
        (TEXT, EXCEL, EXCEL),
    ],
)
def test_the_content_type_gives_the_format(body: bytes, given: str, media_type: str) -> None:
    found = seen(body, given)
    assert (found.received.media_type, found.received.warning, found.body) == (media_type, None, body)


@pytest.mark.parametrize("given", [CSV, JSON, NDJSON, "text/plain", "application/octet-stream", "image/png", None])
@pytest.mark.parametrize(("body", "media_type"), [(SHEET, EXCEL), (FRAME, PARQUET), (STREAM, ARROW)])
def test_the_first_bytes_of_a_binary_format_override_the_content_type(
    body: bytes, given: str | None, media_type: str
) -> None:
    found = seen(body, *([given] if given else []), pieces=3)
    assert (found.received.media_type, found.body) == (media_type, body)
    assert "Content-Type names another format" in (found.received.warning or "")
    assert media_type in (found.received.warning or "")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_the_first_bytes_are_those_after_decompression(encoding: str) -> None:
    body = ENCODINGS[encoding](FRAME)
    found = seen(body, CSV, headers=[("content-encoding", encoding)])
    assert (found.received.media_type, found.body) == (PARQUET, body)


@pytest.mark.parametrize(
    ("body", "types"),
    [
        (TEXT, []),
        (TEXT, ["image/png"]),
        (TEXT, [CSV, CSV]),
        (TEXT, ["application/x-www-form-urlencoded"]),
        (FRAME, ["application/x-www-form-urlencoded"]),
        (FRAME, [CSV, CSV]),
        (gzip.compress(TEXT, mtime=0), ["application/octet-stream"]),
    ],
)
def test_other_bodies_are_not_accepted(body: bytes, types: list[str]) -> None:
    found = seen(body, *types)
    assert (found.received.media_type, found.body) == (None, body)


@pytest.mark.parametrize(
    ("given", "encoding"),
    [
        ("text/csv", None),
        ("text/csv; charset=ISO-8859-1", "iso-8859-1"),
        ('text/csv; charset="windows-1252"', "windows-1252"),
        ("text/csv;header=present;charset=UTF-8", "utf-8"),
        ("text/csv; charset=utf-16le", "utf-16"),
    ],
)
def test_the_charset_is_the_encoding(given: str, encoding: str | None) -> None:
    assert seen(TEXT, given).received.encoding == encoding


def test_a_charset_that_is_not_read_is_refused() -> None:
    received = seen(TEXT, "text/csv; charset=koi8-r").received
    with pytest.raises(UnsupportedMediaType, match="utf-16"):
        _ = received.encoding


Part = tuple[str, str, str | None, bytes]  # name, file name, content type, content


def form(*parts: Part, boundary: str = "b", end: bytes = b"--b--\r\n") -> bytes:
    text = b""
    for name, file_name, content_type, content in parts:
        quoted = f'; filename="{file_name}"' if file_name else ""
        text += f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"{quoted}\r\n'.encode()
        text += f"Content-Type: {content_type}\r\n".encode() if content_type else b""
        text += b"\r\n" + content + b"\r\n"
    return text + end


MULTIPART = "multipart/form-data; boundary=b"
OPTIONS = {"targets": ["y"], "columns": {"größe": {"kind": "number"}}}
OPTIONS_PART: Part = ("options", "", "application/json", json.dumps(OPTIONS).encode())


@pytest.mark.parametrize("pieces", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("name", "content_type", "content", "media_type"),
    [
        ("t.csv", "text/csv", TEXT, CSV),
        ("t.csv", "application/octet-stream", TEXT, CSV),
        ("t.CSV", None, TEXT, CSV),
        ("t.tsv", "text/plain", TEXT, CSV),
        ("t.ndjson", "text/plain", b'{"x": 1}\n', NDJSON),
        ("t.json", "application/octet-stream", b"[]", JSON),
        ("t.csv", "application/vnd.ms-excel", TEXT, CSV),
        ("", "text/csv", TEXT, CSV),
        ("t.feather", None, STREAM, ARROW),
        ("t.bin", None, FRAME, PARQUET),
        ("größe.xlsx", None, SHEET, EXCEL),
        ("rows", "application/octet-stream", TEXT, CSV),
        ("rows", None, b'{"x": 1}\n{"x": 2}\n', NDJSON),
    ],
)
def test_a_form_has_a_file_and_options(
    name: str, content_type: str | None, content: bytes, media_type: str, pieces: int
) -> None:
    for parts in ([OPTIONS_PART], []):
        found = seen(form(*parts, ("file", name, content_type, content)), MULTIPART, pieces=pieces)
        assert (found.received.media_type, found.body) == (media_type, content)
        assert found.received.form.options == (OPTIONS if parts else {})


def test_the_content_type_of_the_part_has_the_charset() -> None:
    found = seen(form(("file", "t.csv", "text/csv; charset=latin1", TEXT)), MULTIPART)
    assert found.received.encoding == "iso-8859-1"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (form(OPTIONS_PART), "no part `file`"),
        (b"", "no part `file`"),
        (form(("rows", "t.csv", None, TEXT)), "another name"),
        (form(("größe 𑣪", "t.csv", None, TEXT)), "another name"),
        (form(("rows", "", None, TEXT)), "no part `file`"),
        (b'--b\r\ncontent-disposition: form-data; name="\xff\\"\r\n\r\n\r\n--b--', "no part `file`"),
        (form(("model", "", None, b"\xff"), ("file", "", CSV, TEXT)), "not UTF-8"),
        (b"--b\r\ncontent-disposition: \xff\r\n\r\n\r\n--b--", "without a name"),
        (b"--b\r\n\r\n\r\n--b--", "without a name"),
        (form(("file", "", None, TEXT), ("file", "", None, TEXT)), "more than one part `file`"),
        (form(OPTIONS_PART, OPTIONS_PART, ("file", "", CSV, TEXT)), "more than one part `options`"),
        (form(("options", "", None, b"[1]"), ("file", "", CSV, TEXT)), "not a JSON object"),
        (form(("options", "", None, b"[" * 100_000), ("file", "", CSV, TEXT)), "not a JSON object"),
        (form(("options", "", None, b" " * (MAX_OPTIONS + 1)), ("file", "", CSV, TEXT)), "longer than"),
        (form(("file", "", CSV, TEXT), end=b""), "ended early"),
        (form(("file", "", CSV, TEXT), boundary="c", end=b""), "not a form"),
        (b" " * 100_000, "not a form"),
        (form(("file", "", CSV, TEXT)) + bytes(100_000), "outside its parts"),
        (b"--b\r\n" + b"a: b\r\n" * 20_000, "not a form"),
        (b"--b\r\na: " + b"b" * 100_000, "not a form"),
    ],
)
def test_another_form_is_refused(body: bytes, message: str) -> None:
    error = refusal(body, MULTIPART)
    assert isinstance(error, InvalidInput | MalformedBody | BodyTooLarge)
    assert message in error.message


def test_a_file_of_an_unknown_type_is_not_accepted() -> None:
    received = seen(form(("file", "t.png", "image/png", TEXT)), MULTIPART).received
    assert (received.media_type, received.is_form) == (None, True)


@pytest.mark.parametrize("boundary", ["", "; boundary=", f"; boundary={'b' * 300}"])
def test_a_form_needs_a_boundary(boundary: str) -> None:
    assert "boundary" in refusal(TEXT, f"multipart/form-data{boundary}").message


PIECES = st.sampled_from(
    [
        b"--b",
        b"--b--",
        b"\r\n",
        b"content-disposition: form-data",
        b'; name="file"',
        b'; name="options"',
        b"\r\n\r\n",
        b"{}",
    ]
)


@settings(max_examples=100)
@given(
    st.lists(st.one_of(PIECES, st.binary(max_size=9)), max_size=30),
    st.sampled_from([MULTIPART, CSV, JSON, "application/octet-stream"]),
    st.sampled_from(["identity", "gzip", "zstd"]),
    st.integers(1, 50),
)
def test_any_body_is_recognised_or_refused(parts: list[bytes], given_type: str, encoding: str, pieces: int) -> None:
    with contextlib.suppress(LinserveError):
        seen(b"".join(parts), given_type, pieces=pieces, headers=[("content-encoding", encoding)])
