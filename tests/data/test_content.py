import codecs
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.data.columns.schema import Dialect
from app.data.content import HEAD_BYTES, begins_with, better, content_of, explained
from app.data.formats import BY_NAME
from app.data.formats.base import BodyFormat
from app.data.formats.json import JSON
from app.errors import FieldError, InvalidInput, MalformedBody

BODY_FORMATS: dict[str, BodyFormat] = {"json": JSON, **BY_NAME}
CSV = BY_NAME["csv"]
WORKBOOK = "an Excel workbook or an OpenDocument spreadsheet"
FAULT = InvalidInput("A fault.", [FieldError("A fault.", row=1)])


def label_of(head: bytes) -> str | None:
    found = content_of(head)
    return None if found is None else found.label


@pytest.mark.parametrize(
    ("head", "label"),
    [
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"ARROW1\0\0\xff\xff\xff\xff", "an Arrow IPC stream"),
        (b"\xff\xff\xff\xff\x78\0\0\0", "an Arrow IPC stream"),
        (b"PK\x03\x04" + bytes(22) + b"[Content_Types].xml", WORKBOOK),
        (
            b"PK\x03\x04" + bytes(22) + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
            WORKBOOK,
        ),
        (b"PK\x03\x04" + bytes(22) + b"rows.csv", "a ZIP archive"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", WORKBOOK),
        (b"\x93NUMPY\x01", "a NumPy file"),
        (b"\x80\x04\x95", "a Python pickle"),
        (b"%PDF-1.7", "a PDF document"),
        (b"<stata_dta><header>", "a Stata file"),
        (b"\x72\x02\x01\x00", "a Stata file"),
        (bytes(12) + b"\xc2\xea\x81\x60", "a SAS file"),
        (b"$FL2@(#) SPSS DATA FILE", "an SPSS file"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16 text"),
        ("a,b\n1,2\n".encode("utf-16-be"), "UTF-16BE text"),
        ("a,b\n1,2\n".encode("utf-32"), "UTF-32 text"),
        (b'{"instances": [[1]]}', "JSON"),
        (codecs.BOM_UTF8 + b' {"a": 1}\n{"a": 2}\n', "NDJSON (a JSON object in each line)"),
        (b"[[1, 2]]", "a JSON array"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"a,b\n1,2\n", "CSV"),
        (b"a;b\r\n1;2\r\n", "CSV"),
        (b"gr\xf6\xdfe,b\n", "CSV"),
        (b"word", None),
        (b"", None),
        (bytes(100), None),
    ],
)
def test_the_first_bytes_of_a_body_show_its_format(head: bytes, label: str | None) -> None:
    assert label_of(head) == label


@example(b"\x00\r\x00", "csv")
@given(st.binary(max_size=200), st.sampled_from([*BODY_FORMATS]))
def test_any_bytes_leave_an_error_with_a_message(head: bytes, form: str) -> None:
    content_of(head)
    assert better(FAULT, head, BODY_FORMATS[form]).message


@pytest.mark.parametrize(
    ("form", "head"),
    [
        ("csv", b"a,b\n1,2\n"),
        ("csv", b'a,"b;c"\n1,2\n'),
        ("ndjson", b'{"a": 1}\n{"a": "x"}\n'),
        ("ndjson", b'{"a": 1}\n'),
        ("json", b'{"instances": [['),
        ("json", b"[[1, 2"),
        ("parquet", b"PAR1"),
        ("arrow", b"\xff\xff\xff\xff"),
    ],
)
def test_the_error_about_a_body_in_the_declared_format_is_kept(form: str, head: bytes) -> None:
    assert better(FAULT, head, BODY_FORMATS[form]) is FAULT


def test_a_fault_in_a_later_row_is_not_explained_by_the_first_row() -> None:
    fault = InvalidInput("A fault.", [FieldError("A fault.", row=7, column="a;b")])
    assert better(fault, b"a;b\n1\n", CSV) is fault
    assert better(fault, b"{a},b\n1,2\n", CSV) is fault


def test_years_as_names_are_accepted_once_the_header_is_declared_to_hold_names() -> None:
    head = b"place,2024,2025\nnorth,1,2\n"
    assert "the header row seems to be missing" in better(FAULT, head, CSV).message
    assert better(FAULT, head, CSV, Dialect(header="names")) is FAULT


def test_no_cell_of_a_file_without_a_header_is_repeated() -> None:
    assert "4711" not in str(better(FAULT, b"north;4711,25\nsouth;3\n", CSV))
    assert "4711" not in str(better(FAULT, b"north,4711,25\nsouth,3,4\n", CSV))


def test_the_error_about_a_malformed_body_keeps_its_type() -> None:
    error = better(MalformedBody("The body is not JSON."), b"a,b\n1,2\n", JSON)
    assert isinstance(error, MalformedBody)
    assert error.details[0].parameter == "Content-Type"


def test_only_the_beginning_of_a_file_is_read_and_only_after_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(json.dumps({"instances": [[1]] * 10_000}).encode())
    assert len(begins_with(path)) == HEAD_BYTES == len(begins_with(path.read_bytes()))
    with pytest.raises(InvalidInput, match="The body is JSON, but CSV was expected"), explained(path, CSV):
        raise FAULT
    path.unlink()
    with explained(path, CSV):
        pass
