"""The first rows of a file as text, and the rows that have a fault."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workbooks import workbook

from app.data.columns.options import ReadingOptions
from app.data.first_rows import BLOCK_BYTES, MAX_CELL, MAX_SHOWN_COLUMNS, MAX_SHOWN_ROWS, FirstRows, first_rows
from app.data.formats import BY_SUFFIX
from app.data.formats.base import TableFormat
from app.data.formats.csv import CSV
from app.data.formats.ndjson import NDJSON

LAST = 150_000
NUMBERS = range(LAST)


def read(content: bytes, table_format: TableFormat, *also: int, **options: object) -> FirstRows:
    return first_rows(content, table_format, ReadingOptions(**options), also)  # type: ignore[arg-type]


def parquet() -> bytes:
    table = pa.table({"n": NUMBERS, "text": [f"row {n}" for n in NUMBERS], "list": [[n] for n in NUMBERS]})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=1000)
    return file.getvalue()


def arrow() -> bytes:
    table = pa.table({"n": NUMBERS, "text": [f"row {n}" for n in NUMBERS]})
    with pa.BufferOutputStream() as file:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=777)
        return bytes(file.getvalue())


FILES: dict[str, tuple[Callable[[], bytes], int]] = {
    "csv": (lambda: b"n,text\n" + b"".join(b"%d,row %d\n" % (n, n) for n in NUMBERS), 2),
    "tsv": (lambda: b"\n\nn\ttext\r\n" + b"".join(b'%d\t"row %d"\r\n\r\n' % (n, n) for n in NUMBERS), 2),
    "ndjson": (lambda: b"".join(b'{"n": %d, "text": "row %d"}\n\n' % (n, n) for n in NUMBERS), 1),
    "parquet": (parquet, 1),
    "arrow": (arrow, 1),
    "xlsx": (lambda: workbook({"t": [["n", "text"], *([n, f"row {n}"] for n in range(2000))]}), 2),
}


@pytest.mark.parametrize("suffix", FILES)
def test_the_first_rows_and_later_ones_have_the_numbers_of_messages(suffix: str) -> None:
    make, first = FILES[suffix]
    last = (2000 if suffix == "xlsx" else LAST) - 1
    content = make()
    if suffix in ("csv", "tsv", "ndjson"):
        assert len(content) > 2 * BLOCK_BYTES
    found = read(content, BY_SUFFIX[suffix], first + 3, first + 1234, first + last, first + last + 1)
    assert (found.names[:2], [row.number for row in found.rows]) == (
        ("n", "text"),
        [*range(first, first + MAX_SHOWN_ROWS), first + 1234, first + last],
    )
    for row in found.rows:
        index = row.number - first
        assert (float(row.cells[0] or ""), row.cells[1]) == (index, f"row {index}")


def test_rows_with_other_numbers_of_cells_and_broken_lines_are_shown() -> None:
    ragged = read(b"a,b\n1,2\n3\n4,5,6\n", CSV)
    assert [row.cells for row in ragged.rows] == [("1", "2"), ("3",), ("4", "5", "6")]
    broken = read(b'{"a": 1e999, "b": null}\n{"a": \n{"b": "x", "c": [1, 2]}\n', NDJSON)
    assert broken.names == ("a", "b", "c")
    assert [row.cells for row in broken.rows] == [("1e999", None, None), ('{"a":',), (None, "x", "[1, 2]")]


def test_cells_columns_and_characters_are_bounded() -> None:
    names = ",".join(f"c{n}" for n in range(300))
    found = read(f"{names}\n{'x' * 9000},\u202e\x00,{'1,' * 297}2\n".encode(), CSV)
    assert (len(found.names), found.columns) == (MAX_SHOWN_COLUMNS, 300)
    (row,) = found.rows
    assert len(row.cells) == MAX_SHOWN_COLUMNS + 1
    assert (len(row.cells[0] or ""), row.cells[1]) == (MAX_CELL + 1, "\ufffd\ufffd")


def test_any_table_is_shown() -> None:
    for path in sorted(Path(__file__).parents[1].joinpath("tables").glob("*.*")):
        if table_format := BY_SUFFIX.get(path.suffix[1:]):
            found = first_rows(path, table_format, ReadingOptions(), [10**9])
            assert len(found.rows) <= MAX_SHOWN_ROWS + 1, path
            assert found.rows or "zero" in path.name, path
            json.dumps(found.rows)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"PAR1", b"{", b'"', b'a,"b\n1', b"\x00" * 9])
@pytest.mark.parametrize("suffix", FILES)
def test_a_damaged_file_has_few_rows_or_none(content: bytes, suffix: str) -> None:
    assert len(read(content, BY_SUFFIX[suffix], 7).rows) <= 2
