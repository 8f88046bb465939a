import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from app.data.batch import MISSING, NOT_FINITE, Columns, RowBatch
from app.data.columns.options import Header
from app.data.columns.schema import Dialect
from app.data.columns.text_rows import MAX_ROW_BYTES
from app.data.formats import csv as csv_format
from app.data.formats.csv import CSV
from app.errors import FieldError, InvalidInput

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PRINTABLE = st.text(min_size=1, max_size=8).filter(str.isprintable)


NUMERIC = (
    "Row 1 holds only numbers, but the names of the columns were expected. Add a first row with the names; or add "
    "`header=none`, which names the columns c1, c2, ..., or `header=names` if the numbers are the names."
)
MISSING_VALUE = f"{MISSING} Fill it in, or leave such rows out with `missing=drop`."
FOUND, CHOICE = "Expected a number, found", " `features` chooses the columns to read."
WITH_POINTS = "Write decimals with a point, and no separators between thousands."
QUOTED = "Each row needs as many as row 1: put a value with a comma in quotes, and write decimals with a point."


def stored(folder: Path, content: bytes | str) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(path: Path, *columns: str) -> list[list[float]]:
    return [row for batch in CSV.batches(path, Columns(columns)) for row in batch.values.tolist()]


def refusal(path: Path, *columns: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        rows_of(path, *columns)
    return refused.value


@settings(max_examples=60)
@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=8))
def test_floats_survive_csv_to_the_last_bit(tmp_path: Path, rows: list[tuple[float, float]]) -> None:
    text = "a,b\n" + "".join(f"{first!r},{second!r}\n" for first, second in rows)
    (batch,) = CSV.batches(stored(tmp_path, text), Columns(["a", "b"]))
    assert_array_equal(batch.values, np.array(rows), strict=True)
    assert_array_equal(np.signbit(batch.values), np.signbit(np.array(rows)))


@settings(max_examples=60)
@given(st.lists(PRINTABLE, min_size=1, max_size=4, unique=True), st.data())
def test_any_printable_names_written_as_csv_are_read_back_and_chosen_in_any_order(
    tmp_path: Path, names: list[str], data: st.DataObject
) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(names)
        writer.writerow(range(len(names)))
    assert CSV.column_names(path, Dialect(header="names")) == names
    chosen = data.draw(st.permutations(names))
    batches = list(CSV.batches(path, Columns(chosen, dialect=Dialect(header="names"))))
    assert [batch.values.tolist() for batch in batches] == [[[names.index(name) for name in chosen]]]


def test_columns_come_in_the_requested_order_and_others_are_not_read(tmp_path: Path) -> None:
    path = stored(tmp_path, "a,note,b\n1,first,2\n3,second,4\n")
    assert rows_of(path, "b", "a") == [[2, 1], [4, 3]]


@pytest.mark.parametrize(
    "text",
    [
        "a,b\r\n1,2\r\n",
        "\ufeffa,b\n1,2\n",
        '"a","b"\n"1","2"\n',
        "a,b\n 1 ,2 \n",
        "a,b\n1,2",
        "a,b\n\n1,2\n\n",
        "a,b\n1.0e0,200E-2\n",
    ],
    ids=["CRLF", "byte order mark", "quotes", "blanks", "no last newline", "empty lines", "exponents"],
)
def test_the_dialects_of_spreadsheets_are_read(tmp_path: Path, text: str) -> None:
    assert rows_of(stored(tmp_path, text), "a", "b") == [[1, 2]]


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert rows_of(stored(tmp_path, "a,b\n"), "a", "b") == []


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_a_file_without_a_header_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput, match="Expected a header row"):
        CSV.column_names(stored(tmp_path, content))


@pytest.mark.parametrize("content", [b"\xff\xfea\x00", "temp\u00e9,b\n".encode("latin-1"), b'a,"' + b"x" * 200_000])
def test_a_file_that_is_not_text_with_a_header_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"not UTF-8 text: row 1|Row 1 is not readable as CSV"):
        CSV.column_names(stored(tmp_path, content))


def test_a_header_is_read_although_the_first_block_ends_inside_a_character(tmp_path: Path) -> None:
    head = "größe,b\n".encode()
    body = "ä".encode() * MAX_ROW_BYTES  # two bytes each, so that one of the two cuts is inside
    assert CSV.column_names(stored(tmp_path, head + body)) == ["größe", "b"]
    assert CSV.column_names(stored(tmp_path, head + b" " + body)) == ["größe", "b"]


def test_a_line_separator_in_a_name_does_not_end_the_header(tmp_path: Path) -> None:
    # For Python's splitlines it does, for CSV (RFC 4180) and pyarrow it does not.
    path = stored(tmp_path, "a,b\u2028c,d\n1,2,3\n")
    assert CSV.column_names(path) == ["a", "b\u2028c", "d"]
    assert rows_of(path, "a", "d") == [[1, 3]]


def test_a_name_that_appears_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        CSV.column_names(stored(tmp_path, "a,b,a\n1,2,3\n"))
    assert refused.value.details == (
        FieldError("Columns 1, 3 have the same name. Rename all but one.", row=1, column="a"),
    )


def test_missing_columns_are_named(tmp_path: Path) -> None:
    error = refusal(stored(tmp_path, "a,b\n1,2\n"), "c", "a", "d")
    assert error.details == (FieldError('There is no column "c".', row=1), FieldError('There is no column "d".', row=1))


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("", MISSING_VALUE),
        ("NA", MISSING_VALUE),
        ("nan", MISSING_VALUE),
        ("inf", NOT_FINITE),
        ("-inf", NOT_FINITE),
        ("1e999", NOT_FINITE),
        ("true", f"{FOUND} a boolean. Write 1 or 0.{CHOICE}"),
        ("0x10", f"{FOUND} text.{CHOICE}"),
        ("1_000", f"{FOUND} a number with separators between thousands. Write it without them.{CHOICE}"),
        ("'; drop", f"{FOUND} text.{CHOICE}"),
        ('"1,5"', f"{FOUND} a number with a comma. {WITH_POINTS}{CHOICE}"),
    ],
)
def test_anything_except_a_finite_number_is_refused_with_its_place(tmp_path: Path, cell: str, fault: str) -> None:
    error = refusal(stored(tmp_path, f"a,b\n1,2\n3,{cell}\n5,6\n"), "a", "b")
    assert error.details == (FieldError(fault, row=3, column="b"),)
    assert error.message == f'Row 3, column "b": {fault}'


def test_the_right_column_is_named_in_any_requested_order(tmp_path: Path) -> None:
    path = stored(tmp_path, "a,b,c\n1,x,\n")
    assert refusal(path, "c", "b", "a").details[0].column == "b"
    assert refusal(path, "c", "a").details[0].column == "c"


def test_a_fault_in_a_column_that_is_not_read_does_not_matter(tmp_path: Path) -> None:
    assert rows_of(stored(tmp_path, "a,b\n1,x\n2,\n"), "a") == [[1], [2]]


@pytest.mark.parametrize(("row", "found"), [("3", 1), ("3,4,5", 3)])
def test_a_row_with_another_number_of_values_is_refused_with_its_number(tmp_path: Path, row: str, found: int) -> None:
    error = refusal(stored(tmp_path, f"a,b\n1,2\n{row}\n"), "a", "b")
    assert error.details == (FieldError(f"Expected 2 values, found {found}. {QUOTED}", row=3),)


@pytest.mark.parametrize(
    ("last", "detail"),
    [
        ("3,x", FieldError(f"{FOUND} text.{CHOICE}", row=400_002, column="b")),
        ("3,", FieldError(MISSING_VALUE, row=400_002, column="b")),
        ("3", FieldError(f"Expected 2 values, found 1. {QUOTED}", row=400_002)),
    ],
)
def test_row_numbers_count_on_from_block_to_block(tmp_path: Path, last: str, detail: FieldError) -> None:
    path = stored(tmp_path, "a,b\n" + "1,2\n" * 400_000 + last + "\n")
    assert path.stat().st_size > MAX_ROW_BYTES
    assert refusal(path, "a", "b").details == (detail,)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_long_file_comes_in_batches_and_no_row_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    for name in ("BLOCK_BYTES", "SINGLE_BLOCK_BYTES"):
        monkeypatch.setattr(csv_format, name, 100_000)
    path = stored(tmp_path, "a,b\n" + "".join(f"{index},{-index}\n" for index in range(150_000)))
    batches = [batch.values for batch in CSV.batches(path, Columns(["b", "a"]), threads)]
    assert len(batches) > 10
    assert_array_equal(np.concatenate(batches), np.column_stack([-np.arange(150_000.0), np.arange(150_000.0)]))


CELLS = st.sampled_from(
    ["1", "-2.5", "1e3", " 4 ", "", "NA", "nan", "inf", "x", '"5"', '"6\n7"', "1,2", "\r", "é", "1e999"]
)


@settings(max_examples=200)
@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.tuples(st.integers(1, 40), st.integers(1, 2)),
)
def test_reading_in_pieces_gives_the_same_as_reading_whole(
    tmp_path: Path, rows: list[list[str]], newline: str, missing: bool, how: tuple[int, int]
) -> None:
    piece, threads = how
    columns = Columns(["a"], keep=["b"], missing=missing)
    content = newline.join(["a,b", *(",".join(row) for row in rows)]).encode()
    path = stored(tmp_path, content)

    def outcome(batches: Iterator[RowBatch]) -> object:
        try:
            found = list(batches)
        except InvalidInput:  # Of several faults, the one that is named depends on the blocks.
            return "refused"
        kept = [value for batch in found if batch.kept for value in batch.kept.column("b").to_pylist()]
        return [repr(value) for batch in found for value in batch.values[:, 0].tolist()], kept

    with pytest.MonkeyPatch.context() as small:
        for name in ("BLOCK_BYTES", "SINGLE_BLOCK_BYTES"):
            small.setattr(csv_format, name, piece)
        stored_in_pieces = outcome(CSV.batches(path, columns, threads))
        in_pieces = outcome(CSV.batches(content, columns, threads))

    assert stored_in_pieces == in_pieces == outcome(CSV.batches(content, columns))


def test_a_row_longer_than_a_block_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path, "a,b\n" + "1" * (2 * MAX_ROW_BYTES) + ",2\n")
    assert str(MAX_ROW_BYTES) in refusal(path, "a", "b").message


def test_no_message_repeats_the_input(tmp_path: Path) -> None:
    for content in ("a,b\n1,secret\n", "a,b\nsecret\n", "a,b\n1,2\nsecret,secret,secret\n"):
        error = refusal(stored(tmp_path, content), "a", "b")
        assert "secret" not in error.message
        assert not any("secret" in detail.message for detail in error.details)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_header_alone_is_a_table_of_no_rows(tmp_path: Path, end: str) -> None:
    assert rows_of(stored(tmp_path, f"a,b{end}"), "a", "b") == []


@pytest.mark.parametrize("rows", [1, 200_000])
def test_a_header_that_is_not_utf8_is_refused_however_long_the_file(tmp_path: Path, rows: int) -> None:
    path = stored(tmp_path, "Größe,b\n".encode("latin-1") + b"1,2345\n" * rows)
    with pytest.raises(InvalidInput, match="UTF-8"):
        CSV.column_names(path)


@pytest.mark.parametrize(
    "header", ["1,2", "7.59,1581.15,-3e5", " 1 ,.5,+2.", '"1","2"', "1,,2", "1,1,1", "\ufeff1,2", "1,NaN", "NA,2"]
)
def test_a_header_of_numbers_is_refused_without_the_header_option(tmp_path: Path, header: str) -> None:
    path = stored(tmp_path, f"{header}\n{header}\n")
    with pytest.raises(InvalidInput) as refused:
        CSV.column_names(path)
    assert (refused.value.message, refused.value.details) == (NUMERIC, (FieldError(NUMERIC, row=1),))
    assert refusal(path, "zebra").message == NUMERIC
    assert CSV.column_names(path, Dialect(header="none")) == ["c1", "c2", "c3"][: header.count(",") + 1]


@pytest.mark.parametrize("header", ["a,1", "1,2,x", "1_000,2", "0x1", "nan", "٣,1", "1 2", "2020-01-01"])
def test_a_header_with_a_name_in_it_is_one(tmp_path: Path, header: str) -> None:
    assert CSV.column_names(stored(tmp_path, f"{header}\n")) == header.split(",")


def test_numbers_are_names_with_the_header_option(tmp_path: Path) -> None:
    (batch,) = CSV.batches(stored(tmp_path, "2019,2020\n1,2\n"), Columns(["2020"], dialect=Dialect(header="names")))
    assert batch.values.tolist() == [[2]]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=8),
    st.sampled_from(["{!r},{!r}\n", "{!r},{!r}\r\n", '"{!r}",{!r}\n']),
    st.sampled_from(["", "\ufeff", "\n", "\r\n"]),
    st.sampled_from([1 << 21, 8]),
)
def test_without_a_header_every_row_is_read(
    tmp_path: Path, rows: list[tuple[float, float]], form: str, before: str, piece: int
) -> None:
    path = stored(tmp_path, before + "".join(form.format(*row) for row in rows))
    columns = Columns(["c2", "c1"], dialect=Dialect(header="none"))
    with pytest.MonkeyPatch.context() as small:
        small.setattr(csv_format, "BLOCK_BYTES", piece)
        for threads in (1, 2):
            values = [row for batch in CSV.batches(path, columns, threads) for row in batch.values.tolist()]
            assert values == [[second, first] for first, second in rows]


@pytest.mark.parametrize("quote", ["", '"'])
def test_without_a_header_rows_count_from_1(tmp_path: Path, quote: str) -> None:
    columns = Columns(["c1", "c2"], dialect=Dialect(header="none"))
    for content, detail in (
        (f"1,{quote}{quote}\n", FieldError(MISSING_VALUE, row=1, column="c2")),
        (f"{quote}1{quote},2\n3\n", FieldError(f"Expected 2 values, found 1. {QUOTED}", row=2)),
        (
            f"{quote}1{quote},2\n3,x\n",
            FieldError(f"{FOUND} text.{CHOICE}", row=2, column="c2"),
        ),
    ):
        with pytest.raises(InvalidInput) as refused:
            list(CSV.batches(stored(tmp_path, content), columns))
        assert refused.value.details == (detail,)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf"])
def test_an_empty_file_without_a_header_is_empty(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^The file is empty\. Expected rows\.$"):
        CSV.column_names(stored(tmp_path, content), Dialect(header="none"))


@pytest.mark.parametrize("columns", [10_000, 10_001])
def test_a_row_of_very_many_numbers_has_that_many_columns_at_most(tmp_path: Path, columns: int) -> None:
    path = stored(tmp_path, ",".join(map(str, range(columns))))
    with pytest.raises(InvalidInput, match="only numbers"):
        CSV.column_names(path)
    if columns == 10_000:
        assert len(CSV.column_names(path, Dialect(header="none"))) == columns
        assert rows_of_none(path, "c10000") == [[9999]]
    else:
        with pytest.raises(InvalidInput, match="more than 10000 columns"):
            CSV.column_names(path, Dialect(header="none"))


def rows_of_none(path: Path, *columns: str) -> list[list[float]]:
    return [
        row
        for batch in CSV.batches(path, Columns(columns, dialect=Dialect(header="none")))
        for row in batch.values.tolist()
    ]


BAD = st.sampled_from([b"\xe9", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])


@settings(max_examples=100)
@given(
    rows=st.lists(st.sampled_from(["1,x\n", "2,größe\n", '3,"a\nb"\n', '"4",€\n', "\n", "5,x\r\n"]), max_size=30),
    at=st.integers(0, 30),
    bad=BAD,
    form=st.sampled_from(["{},x\n", "1,{}\n", '1,"x\n{}"\n', "{}"]),
    how=st.sampled_from([(1 << 21, 1), (16, 1), (16, 3)]),
    header=st.sampled_from(["names", "none"]),
)
def test_a_byte_that_is_not_utf8_is_found_in_any_column_and_named_with_its_row(
    tmp_path: Path, *, rows: list[str], at: int, bad: bytes, form: str, how: tuple[int, int], header: Header
) -> None:
    at = min(at, len(rows))
    first, last = form.split("{}")
    body = "".join([*rows[:at], first]).encode() + bad + "".join([last, *rows[at:]]).encode()
    content = b"a,b\n" + body if header == "names" else b"0,x\n" + body
    number = 2 + sum(row != "\n" for row in rows[:at])
    columns = Columns(["a" if header == "names" else "c1"], missing=True, dialect=Dialect(header=header))
    piece, threads = how
    with pytest.MonkeyPatch.context() as small:
        for name in ("BLOCK_BYTES", "SINGLE_BLOCK_BYTES"):
            small.setattr(csv_format, name, piece)
        for source in (stored(tmp_path, content), content):
            with pytest.raises(InvalidInput) as refused:
                list(CSV.batches(source, columns, threads))
            assert refused.value.message.startswith(f"The file is not UTF-8 text: row {number} ")
            assert [detail.row for detail in refused.value.details] == [number]


@pytest.mark.parametrize(
    ("rows", "quote", "threads"),
    [
        *((10, quote, threads) for quote in ("", '"') for threads in (1, 3)),
        (600_000, '"', 3),
        *(pytest.param(600_000, quote, 1, marks=pytest.mark.slow) for quote in ("", '"')),
        pytest.param(600_000, "", 3, marks=pytest.mark.slow),
    ],
)
def test_a_byte_that_is_not_utf8_is_refused_anywhere_in_the_file(
    tmp_path: Path, rows: int, quote: str, threads: int
) -> None:
    path = stored(tmp_path, b"a,unread\n" + f"1,{quote}x{quote}\n".encode() * rows + b"2,caf\xe9\n3,x\n")
    assert CSV.column_names(path) == ["a", "unread"]
    with pytest.raises(InvalidInput) as refused:
        list(CSV.batches(path, Columns(["a"]), threads))
    assert f"not UTF-8 text: row {rows + 2} " in refused.value.message


def test_a_file_with_a_fault_that_is_not_utf8_either_is_refused_for_its_encoding(tmp_path: Path) -> None:
    path = stored(tmp_path, b"a,b\nzebra,1\n1\n1,\xe9\n")
    assert "not UTF-8 text: row 4 " in refusal(path, "a").message


def test_a_character_across_blocks_is_read_as_one(tmp_path: Path) -> None:
    for filler in range(4):
        content = ('a,b\n"1",' + "x" * filler + "\U0001f600" * 300 + "\n") * 1
        path = stored(tmp_path, content + '"2",€\n' * (MAX_ROW_BYTES // 6))
        assert len(rows_of(path, "a")) == 1 + MAX_ROW_BYTES // 6


def test_a_null_in_the_only_column_is_no_empty_line(tmp_path: Path) -> None:
    """Readers of CSV skip empty lines, and would lose the row."""
    path = tmp_path / "predicted.csv"
    with path.open("wb") as file:
        writer = CSV.writer(file, [], ["y"])
        writer.write(None, np.array([[np.nan], [1.5], [np.nan], [np.nan], [2.0]]))
        writer.close()
    with path.open(newline="") as text:
        assert [row["y"] for row in csv.DictReader(text)] == ["", "1.5", "", "", "2"]
