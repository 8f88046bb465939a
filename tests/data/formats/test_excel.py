"""Tables in sheets of workbooks."""

import datetime as dt
import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import statsmodels
from workbooks import NAMESPACE, spreadsheet, with_part, with_sheet, workbook

from app.data.batch import Columns, Source
from app.data.columns.options import ReadingOptions
from app.data.content import explained
from app.data.formats.excel import EXCEL
from app.data.names import missing_columns
from app.data.sheets import reader
from app.errors import BodyTooLarge, InvalidInput, LinserveError

ROWS: list[list[Any]] = [["x", "word"], [1.5, "a"], [2, None], [None, "b"]]
A1 = '<c r="A1" t="inlineStr"><is><t>a</t></is></c>'


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_last", None)


def read(content: Source, numbers: Sequence[str] = (), **options: Any) -> dict[str, list[Any]]:
    """Return the cells of all columns."""
    dialect = EXCEL.dialect(content, ReadingOptions(**options))
    names = EXCEL.column_names(content, dialect)
    keep = [name for name in names if name not in numbers]
    columns = Columns(numbers, keep, missing=True, dialect=dialect)
    cells = pa.Table.from_batches([batch.cells for batch in EXCEL.cells(content, columns)])
    return {name: cells[name].to_pylist() for name in names}


def refusal(content: bytes, **options: Any) -> LinserveError:
    with pytest.raises(LinserveError) as refused:
        read(content, **options)
    return refused.value


def test_a_workbook_and_a_spreadsheet_are_read_from_memory_and_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    for content in (workbook({"Sheet1": ROWS}), spreadsheet(ROWS)):
        path.write_bytes(content)
        for source in (content, path):
            assert read(source) == {"x": [1.5, 2.0, None], "word": ["a", None, "b"]}


def test_cells_have_the_type_that_all_of_their_column_have() -> None:
    day, time = dt.datetime(2020, 2, 29), dt.datetime(2020, 1, 1, 12, 30)  # noqa: DTZ001 - sheets have no time zones
    rows: list[list[Any]] = [
        ["n", "b", "d", "w", "mixed", "formula", "error", "empty"],
        [1, True, day, "5", 1, "=1+1", "=NA()", None],
        [2.5, False, time, "NA", "n/a", "=2+2", 3, None],
        [None, None, None, None, True, None, None, None],
        [-1e300, True, day, "x", day, 4, 5, None],
    ]
    assert read(workbook({"Sheet1": rows}), ["n"]) == {
        "n": [1.0, 2.5, None, -1e300],
        "b": [True, False, None, True],
        "d": [day, time, None, day],
        "w": ["5", "NA", None, "x"],
        "mixed": ["1", "n/a", "TRUE", "2020-02-29"],
        "formula": [None, None, None, 4.0],
        "error": [None, 3.0, None, 5.0],
        "empty": [None] * 4,
    }


@pytest.mark.parametrize(
    ("above", "names", "top"),
    [
        ([], ["x", "word"], 0),
        ([["A title"], [], ["made today", None]], ["x", "word"], 3),
        ([[None, None]], ["x", "word"], 1),
    ],
)
def test_the_header_is_the_first_full_row(above: list[list[Any]], names: list[str], top: int) -> None:
    content = workbook({"Sheet1": [*above, *ROWS]})
    dialect = EXCEL.dialect(content, ReadingOptions())
    assert (EXCEL.column_names(content, dialect), EXCEL.first_row(dialect)) == (names, top + 2)
    assert read(content)["x"] == [1.5, 2.0, None]
    assert EXCEL.dialect(content, ReadingOptions(skip=top)) == dialect


def test_the_index_that_pandas_writes_has_no_name() -> None:
    assert read(workbook({"Sheet1": [[None, "x"], [0, 1.5], [1, 2.5]]})) == {"": [0.0, 1.0], "x": [1.5, 2.5]}


def test_a_header_with_a_gap_is_not_taken_for_a_title() -> None:
    content = workbook({"Sheet1": [["a", None, "c", "d"], [1, 2, 3, 4], [5, 6, 7, 8]]})
    assert EXCEL.column_names(content, EXCEL.dialect(content, ReadingOptions())) == ["a", "", "c", "d"]


def test_a_table_need_not_begin_in_the_first_cell_and_may_have_columns_without_cells() -> None:
    content = workbook({"Sheet1": [[], [None, None, "x", None, "two\nlines "], [None, None, 1, None, 2], [None]]})
    assert read(content, skip=1) == {"x": [1.0], "two lines": [2.0]}


def test_the_first_row_counts_as_data_if_the_table_has_no_header() -> None:
    content = workbook({"Sheet1": [[], [1, 2], [3, 4]]})
    assert "header=none" in refusal(content).message
    assert read(content, header="none") == {"c1": [1.0, 3.0], "c2": [2.0, 4.0]}
    assert read(content, header="names") == {"1": [3.0], "2": [4.0]}
    assert EXCEL.first_row(EXCEL.dialect(content, ReadingOptions(header="none"))) == 2


def test_the_sheet_is_the_first_with_a_table_or_the_one_that_is_named() -> None:
    content = workbook({"Empty": [], "About": [["some text"], ["more"]], "A": ROWS, "B": [["y", "z"], [1, 2]]})
    assert [*read(content)] == ["x", "word"]
    assert [*read(content, sheet="B")] == [*read(content, sheet=4)] == [*read(content, sheet="4")] == ["y", "z"]
    assert 'There is no sheet "C". The workbook has "Empty", "About", "A", "B".' in refusal(content, sheet="C").message
    assert "the workbook has 4" in refusal(content, sheet=5).message
    assert "is empty" in refusal(content, sheet="Empty").message


def test_an_old_workbook_is_read() -> None:
    path = Path(statsmodels.__file__).parent / "datasets" / "macrodata" / "src" / "macrodata.xls" / "macrodata.xls"
    for source in (path, path.read_bytes()):
        found = read(source, sheet="Quarterly")
        assert (len(found), len(found["DATE"])) == (6, 251)
        assert (found["DATE"][0], found["GDPC96"][0]) == (dt.datetime(1947, 1, 1), 1772.204)  # noqa: DTZ001 - as above


def test_an_error_about_missing_columns_says_which_sheet_was_read() -> None:
    content = workbook({"Sheet1": ROWS})
    with pytest.raises(InvalidInput, match="`sheet` chooses another"), explained(content, EXCEL):
        raise missing_columns(["z"], ["x", "word"])


def test_two_columns_with_one_name_are_refused_with_the_row() -> None:
    error = refusal(workbook({"Sheet1": [["title"], ["x", "x"], [1, 2]]}))
    assert (error.details[0].row, error.details[0].column) == (2, "x")


def test_plain_numbers_are_read_without_an_encoder_and_words_among_them_are_refused() -> None:
    content = workbook({"Sheet1": ROWS})
    columns = Columns(["x"], missing=True)
    (batch,) = EXCEL.batches(content, columns)
    np.testing.assert_array_equal(batch.values, [[1.5], [2.0], [np.nan]])
    with pytest.raises(InvalidInput, match='Row 4, column "x": The value is missing'):
        list(EXCEL.batches(content, Columns(["x"])))
    with pytest.raises(InvalidInput, match="Expected numbers"):
        list(EXCEL.batches(content, Columns(["word"])))


def test_a_workbook_is_parsed_once_for_its_header_and_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[reader.Part] = []
    start = reader._start

    def counted(source: Source, part: reader.Part) -> Any:
        started.append(part)
        return start(source, part)

    monkeypatch.setattr(reader, "_start", counted)
    content = workbook({"Sheet1": [["title"], *ROWS]})
    read(content)
    read(content)
    assert len(started) == 1
    monkeypatch.setattr(reader, "CACHE_BYTES", 100)
    monkeypatch.setattr(reader, "_last", None)
    assert read(content)["x"] == [1.5, 2.0, None]
    assert len(started) == 4


def encrypted(content: bytes) -> bytes:
    """Return a workbook whose directory says that a part is encrypted."""
    changed = bytearray(content)
    changed[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


def claiming(content: bytes, size: int) -> bytes:
    """Return a workbook whose directory says that its longest part has `size` bytes."""
    changed, places = bytearray(content), []
    at = content.index(b"PK\x01\x02")
    while content[at : at + 4] == b"PK\x01\x02":
        unpacked, name, extra, comment = struct.unpack_from("<IHHH", content, at + 24)
        places.append((unpacked, at + 24))
        at += 46 + name + extra + comment
    struct.pack_into("<I", changed, max(places)[1], size)
    return bytes(changed)


BOMBS: dict[str, tuple[bytes, str]] = {
    "parts beyond 256 MiB": (claiming(workbook({"S": ROWS}), 257 << 20), "256 MiB"),
    "a part longer than the directory says": (
        claiming(with_part(workbook({"S": ROWS}), "sheet1.xml", b"<a>" + b" " * (1 << 24) + b"</a>"), 1000), ""
    ),
    "cells in opposite corners": (
        with_sheet(f'<row r="1">{A1}</row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'), "more memory"
    ),
    "too many rows": (with_sheet(f'<row r="1">{A1}</row><row r="1048577"><c r="A1048577"><v>1</v></c></row>'), "rows"),
    "a long string in many cells": (
        with_part(
            with_sheet("".join(f'<row r="{row}"><c r="A{row}" t="s"><v>0</v></c></row>' for row in range(1, 9000))),
            "sharedStrings.xml",
            f"<sst {NAMESPACE}><si><t>{'x' * 32767}</t></si></sst>",
        ),
        "more memory",
    ),
    "deep XML": (with_sheet(f'<row r="1"><c r="A1">{"<is>" * 200_000}{"</is>" * 200_000}</c></row>'), "header row"),
    "entities": (
        with_part(workbook({"S": ROWS}), "sheet1.xml", '<!DOCTYPE a [<!ENTITY b "&c;"><!ENTITY c "&b;">]><a>&b;</a>'),
        "",
    ),
    "an encrypted part": (encrypted(workbook({"S": ROWS})), "encrypted"),
    "half a file": (workbook({"S": ROWS})[:2000], "cut off"),
    "only a signature": (b"PK\x03\x04", "cut off"),
    "an old workbook without content": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "not readable"),
    "another ZIP archive": (with_part(workbook({"S": ROWS}), "workbook.xml", b"<a/>"), ""),
    "nothing": (b"", "not readable"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_or_a_damaged_workbook_is_refused(name: str) -> None:
    content, message = BOMBS[name]
    error = refusal(content)
    assert isinstance(error, InvalidInput | BodyTooLarge)
    assert message in error.message


def test_the_length_of_an_archive_directory_is_checked_before_it_is_read() -> None:
    content = bytearray(workbook({"S": ROWS}))
    end = content.rindex(b"PK\x05\x06")
    for at, change in ((10, b"\xff\xff"), (12, b"\xff\xff\xff\xff"), (12, bytes(4))):
        damaged = content[:end] + content[end:][:at] + change + content[end:][at + len(change) :]
        with pytest.raises(InvalidInput):
            EXCEL.metadata_bytes(bytes(damaged))


def test_words_of_an_answer_are_never_formulas_or_links() -> None:
    words = ["=1+1", "+1", "@SUM(A1)", "http://a.b", "5", "", None]
    dates = pa.array([dt.date(2020, 2, 29)] * 6 + [dt.date(1850, 1, 1)])
    kept = pa.record_batch({"w": pa.array(words), "d": dates, "b": pa.array([True] * 7)})
    file = io.BytesIO()
    writer = EXCEL.writer(file, ["w", "d", "b"], ["y"])
    writer.write(kept, np.array([[1.5], [np.nan], [0], [0], [0], [0], [0]]))
    writer.close()
    found = read(file.getvalue())
    assert found["w"] == [*words[:5], None, None]
    assert found["d"] == ["2020-02-29"] * 6 + ["1850-01-01"]
    assert found["b"] == [True] * 7
    assert found["y"] == [1.5, None, 0, 0, 0, 0, 0]


def test_the_temporary_files_of_an_answer_are_in_its_folder_and_are_removed(tmp_path: Path) -> None:
    class Output(io.BytesIO):
        folder = tmp_path

    writer = EXCEL.writer(Output(), [], ["y"])
    assert len(list(tmp_path.iterdir())) == 1
    del writer
    assert not list(tmp_path.iterdir())
