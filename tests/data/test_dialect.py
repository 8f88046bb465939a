"""How the text of a table is divided: guessed from its first rows, or by options."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.data.batch import Columns
from app.data.columns.dialect import SEPARATORS, with_thousands
from app.data.columns.options import ColumnOptions, ReadingOptions
from app.data.columns.schema import PLAIN, Column, Dialect
from app.data.formats import csv as csv_format
from app.data.formats.csv import CSV
from app.errors import InvalidInput

OPEN = ReadingOptions()


def guessed(text: str | bytes, options: ReadingOptions = OPEN, known: Dialect | None = None) -> Dialect:
    return CSV.dialect(text.encode() if isinstance(text, str) else text, options, known)


def table_of(
    content: bytes, options: ReadingOptions = OPEN, *, numbers: tuple[str, ...] = (), **how: Any
) -> dict[str, list[Any]]:
    """Return all columns as read with the guessed dialect: `numbers`, and the others as text."""
    dialect = CSV.dialect(content, options)
    names = CSV.column_names(content, dialect)
    columns = Columns(numbers, [name for name in names if name not in numbers], missing=True, dialect=dialect)
    batches = [batch.cells.to_pydict() for batch in CSV.cells(content, columns, **how)]
    return {name: [value for batch in batches for value in batch[name]] for name in names}


def refusal(text: str, options: ReadingOptions = OPEN) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        table_of(text.encode(), options)
    return refused.value


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_the_separator_that_gives_all_rows_the_same_number_of_values_is_taken(sep: str) -> None:
    assert guessed(f'a{sep}b\n1{sep}"x,;|\t\ny"\n2{sep}z\n').sep == sep


@pytest.mark.parametrize(
    ("text", "sep"),
    [
        ("a b\n1  2\n 3 4 \n", " "),
        ("full name,age\nJane Doe,3\nJohn Smith,4\n", ","),
        ("a\n1\n2\n", ","),
        ("a;b\n1,5;2,5\n3,5;4,5\n", ";"),
        ("a,b;c\n1,2;3\n", ";"),
        ("", ","),
        ("a;b\n", ";"),
    ],
)
def test_runs_of_spaces_separate_only_if_nothing_else_does(text: str, sep: str) -> None:
    assert guessed(text).sep == sep


def test_if_no_separator_fits_all_rows_the_first_row_with_another_count_is_the_error() -> None:
    assert refusal("a,b\n1,2\n3,4,5\n6,7\n").details[0].row == 3
    assert refusal("a;b\n1;2\n3;4;5\n6;7\n").details[0].row == 3
    assert guessed("a,b\n1,2\n3,4,5\n6,7\n", known=Dialect(sep=";")).sep == ","


@pytest.mark.parametrize(("line", "sep"), [("sep=;", ";"), ('"sep=,"', ","), ("SEP=\t", "\t"), ("sep=|", "|")])
def test_a_line_names_the_separator(line: str, sep: str) -> None:
    text = f"\ufeff{line}\r\na{sep}b\r\n1{sep}2\r\n"
    assert guessed(text) == Dialect(sep=sep, skip=1)  # type: ignore[arg-type]
    assert table_of(text.encode(), numbers=("b",)) == {"a": ["1"], "b": [2.0]}
    assert CSV.first_row(guessed(text)) == 3


def test_a_separator_that_was_given_and_does_not_occur_is_refused() -> None:
    message = refusal("a,b\n1,2\n3,4\n", ReadingOptions(sep=";")).message
    assert "Row 1 has no semicolon, which the option `sep` gives" in message
    assert guessed("a\n1\n", ReadingOptions(sep=";")).sep == ";"


def test_skipped_lines_after_which_no_row_follows_are_named() -> None:
    assert "No row follows the 9 skipped line(s)" in refusal("a,b\n1,2\n", ReadingOptions(skip=9)).message


def test_utf16_that_was_given_for_other_text_is_refused() -> None:
    message = refusal("a,b\n1,2\n", ReadingOptions(encoding="utf-16")).message
    assert "The request says that the file is UTF-16 text, but it is not." in message


def test_a_line_that_names_another_separator_is_refused() -> None:
    assert "unknown separator" in refusal("sep=:\na:b\n1:2\n").message


@pytest.mark.parametrize(
    ("text", "decimal"),
    [
        ("a;b\n1,5;2\n", ","),
        ("a\tb\n1,5\t2,123\n", ","),
        ("a b\n1,5 2\n", ","),
        ("a;b\n1.234,5;2\n", ","),
        ("a;b\n0,123;2\n", ","),
        ("a;b\n1234,567;2\n", ","),
        ("a;b\n1.5;2\n", "."),
        ("a;b\n1,5;2.5\n", "."),
        ("a;b\n1,x;Smith, 12\n", "."),
        ("a;b\n1;2\n", "."),
        ('a,b\n"1,5",2\n', "."),
    ],
)
def test_a_decimal_comma_is_found(text: str, decimal: str) -> None:
    assert guessed(text).decimal == decimal


def test_commas_that_can_be_read_in_two_ways_are_refused_with_the_options() -> None:
    text = "a;b\n1;2\n1,234;5\n12,345;6\n"
    error = refusal(text)
    assert "`decimal=,`" in error.message
    assert "`thousands=,`" in error.message
    assert (error.details[0].row, error.details[0].column) == (3, "a")
    assert guessed(text, ReadingOptions(decimal=",")).decimal == ","
    assert guessed(text, ReadingOptions(thousands=",")).decimal == "."
    assert guessed(text, ReadingOptions(columns={"a": ColumnOptions(thousands=",")})).decimal == "."
    assert guessed(text, known=Dialect(sep=";", decimal=",")).decimal == ","
    assert guessed("a;b\n1.234,5;2\n1.234;2\n", ReadingOptions(thousands=".")).decimal == ","


@pytest.mark.parametrize(
    ("text", "decimal"),
    [
        ("a;b\n1.500;2\n", ","),
        ("a;b\n1.500;2,5\n", ","),
        ("a;b\n1.500;2.5\n", "."),
        ("a;b\n1.5;2\n", "."),
        ("a;b\n1500;2\n", ","),
    ],
)
def test_points_between_thousands_of_a_model_are_no_decimal_points(text: str, decimal: str) -> None:
    known = Dialect(sep=";", decimal=",")
    options = with_thousands(ReadingOptions(), [Column("a", decimal=",", thousands="."), Column("b", decimal=",")])
    assert guessed(text, options, known).decimal == decimal


def test_options_for_the_signs_of_numbers_replace_those_of_the_model() -> None:
    columns = [Column("a", decimal=",", thousands=".")]
    for options in (
        ReadingOptions(decimal="."),
        ReadingOptions(thousands=" "),
        ReadingOptions(columns={"a": ColumnOptions(decimal=".")}),
    ):
        assert with_thousands(options, columns) == options
        assert guessed("a;b\n1.500;2\n", options, Dialect(sep=";", decimal=",")).decimal == "."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "windows-1252", "iso-8859-1"])
def test_every_encoding_is_read(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for piece in (1 << 20, 5):
        monkeypatch.setattr(csv_format, "SINGLE_BLOCK_BYTES", piece)
        given = {"utf-8-sig": None, "utf-16-le": "utf-16"}.get(encoding, encoding)
        content = "größe;wort\r\n1,5;straße\r\n2;\u00e9t\u00e9".encode(encoding)
        found = table_of(content, ReadingOptions(encoding=given), numbers=("größe",))  # type: ignore[arg-type]
        assert found == {"größe": [1.5, 2.0], "wort": ["straße", "\u00e9t\u00e9"]}


def test_utf16_is_recognised_by_its_mark_and_windows_1252_only_if_asked_for() -> None:
    assert guessed("a,b\n1,é\n".encode("utf-16")).encoding == "utf-16"
    content = "a,b\n1,é\n".encode("windows-1252")
    assert guessed(content).encoding == "utf-8"
    assert guessed(content, known=Dialect(encoding="windows-1252")).encoding == "windows-1252"
    assert guessed("a,b\n1,é\n", known=Dialect(encoding="windows-1252")).encoding == "utf-8"
    with pytest.raises(InvalidInput, match="`encoding=windows-1252`"):
        table_of(content)


def test_bytes_that_an_encoding_does_not_allow_are_refused() -> None:
    for encoding, byte in (("windows-1252", b"\x81"), ("utf-16", b"\xff\xfea")):
        with pytest.raises(InvalidInput, match=f"not {encoding} text"):
            table_of(byte + b"a,b\n1,2\n", ReadingOptions(encoding=encoding))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("x,y,\n1,2,\n3,4,\n", ["x", "y"]),
        ("x,y\n1,2,\n3,4,\n", ["x", "y"]),
        ("x,y,\n1,2,\n3,4,5\n", ["x", "y", ""]),
        ("x,y,z\n1,2,\n3,4,\n", ["x", "y", "z"]),
    ],
)
def test_separators_at_the_end_of_all_rows_make_no_column(text: str, names: list[str]) -> None:
    assert list(table_of(text.encode())) == names


def test_a_value_after_the_last_separator_is_refused_if_other_rows_have_none() -> None:
    content = b"x,y\n" + b"1,2,\n" * 300_000 + b"3,4,5\n"
    with pytest.raises(InvalidInput, match="after the last separator") as refused:
        table_of(content)
    assert refused.value.details[0].row == 300_002


@pytest.mark.parametrize(
    "text",
    ['x y\n"1" 5 7\n"2" 6 8\n', "x,y\n1,5,7\n2,6,8\n", "x\ty\nanna\t5\t7\nbert\t6\t8\n", 'x y\n"a b" 5 7\n'],
)
def test_a_header_without_the_name_of_the_row_names_has_an_unnamed_first_column(text: str) -> None:
    dialect = guessed(text)
    assert dialect.row_names
    assert CSV.column_names(text.encode(), dialect) == ["", "x", "y"]
    found = table_of(text.encode(), numbers=("x", "y"))
    assert (found["x"][0], found["y"][0]) == (5, 7)


def test_a_missing_name_is_not_taken_for_row_names() -> None:
    """A decimal comma in a file with commas would shift all values."""
    error = refusal("x,y\n1,5,7\n4,25,8\n3,5,9\n")
    assert "Row 1 has 2 value(s), but the rows after it have 3" in error.message
    assert refusal("x,y\n1,5,7\n").details[0].row == 2


@pytest.mark.parametrize("title", ["# exported 2020-01-01\n", "Yield report\n\nof 2020\n", "A, B\nx\n"])
def test_titles_before_the_header_are_refused_with_the_number_of_lines(title: str) -> None:
    text = title + "a,b,c\n" + "1,2,3\n" * 5
    lines = title.count("\n")
    assert f"`skip={lines}`" in refusal(text).message
    assert table_of(text.encode(), ReadingOptions(skip=lines), numbers=("b",))["b"] == [2.0] * 5
    with pytest.raises(InvalidInput) as refused:
        table_of(f"{text}1,x,3\n".encode(), ReadingOptions(skip=lines), numbers=("b",))
    assert refused.value.details[0].row == lines + 7


def test_a_comment_between_the_rows_is_named() -> None:
    assert "remove the comments" in refusal("a,b\n1,2\n# so far\n3,4\n").message


def test_a_row_of_separators_only_is_a_row_of_gaps() -> None:
    assert table_of(b"a,b\n1,2\n,\n3,4\n", numbers=("a",)) == {"a": [1.0, None, 3.0], "b": ["2", None, "4"]}


def test_gaps_of_numbers_are_null_and_only_an_unquoted_na_is_a_gap_of_words() -> None:
    texts = ["NA", '"NA"', "None", '"None"', "", '""', "N/A", "#DIV/0!", r"\N", "?", "miss", "x"]
    numbers = [*texts[:-1], "1.5"]
    content = "n,w\n" + "".join(f"{number},{word}\n" for number, word in zip(numbers, texts, strict=True))
    dialect = guessed(content)
    columns = Columns(["n"], ["w"], dialect=dialect, na=("miss",))
    (batch,) = CSV.cells(content.encode(), columns)
    assert batch.cells.column("n").to_pylist() == [None] * 11 + [1.5]
    words = [None, "NA", "None", "None", None, None, "N/A", "#DIV/0!", r"\N", "?", "miss", "x"]
    assert batch.cells.column("w").to_pylist() == words
    (unquoted,) = CSV.cells(content.replace('"', "").encode(), columns)
    assert unquoted.cells.column("w").to_pylist() == [None, None, *words[2:]]


def test_a_number_that_was_rounded_is_reported_with_its_row() -> None:
    content = b"n,w\n1,x\n9007199254740993,y\n"
    (batch,) = CSV.cells(content, Columns(["n"], ["w"]))
    assert batch.rounded == {"n": 1}


@pytest.mark.parametrize("cell", ["word", "1,5", "inf", "1.5.2"])
def test_a_fault_in_a_column_of_numbers_is_named_with_its_row(cell: str) -> None:
    content = f'w,n\nx,1\n"y",2\nz,"{cell}"\n'.encode()
    with pytest.raises(InvalidInput) as refused:
        list(CSV.cells(content, Columns(["n"], ["w"])))
    assert [(detail.row, detail.column) for detail in refused.value.details] == [(4, "n")]


def test_the_dialect_of_the_current_version_is_used_unless_the_rows_contradict_it() -> None:
    known = Dialect(sep=";", decimal=",", skip=1, header=None)
    assert guessed("x;y\n1;2\n", known=known) == Dialect(sep=";", decimal=",")
    assert guessed("title\nx;y\n1;2\n", known=known) == known
    assert guessed("x,y\n1.5,2\n", known=known) == PLAIN
    assert guessed("x;y\n1.5;2\n", known=known) == Dialect(sep=";")
    assert guessed("x\n1,5\n2,5\n", known=known) == Dialect(sep=";", decimal=",")
    assert guessed("1;2\n", known=Dialect(sep=";", header="none")).header == "none"


WORDS = st.text(alphabet="abNA\"é,;|\t\n '#", max_size=5).filter(lambda word: word == word.strip())
NUMBERS = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**6), 10**6))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[Any]]]:
    """A table whose columns are words and numbers in turn, with at least two rows and two columns."""
    columns = draw(st.integers(2, 4))
    cells = [WORDS if index % 2 else NUMBERS for index in range(columns)]
    rows = draw(st.lists(st.tuples(*cells).map(list), min_size=2, max_size=8))
    return [f"n{index}" if index % 2 == 0 else f"w {index}" for index in range(columns)], rows


def written(names: list[str], rows: list[list[Any]], dialect: Dialect, newline: str) -> str:
    """Return a table with all words and names in quotes, and a gap in place of None."""

    def cell(value: Any) -> str:
        if isinstance(value, str):
            return '"' + value.replace('"', '""') + '"'
        return "NA" if value is None else repr(value).replace(".", dialect.decimal)

    def line(cells: list[Any]) -> str:
        gap = dialect.sep + "  " * (dialect.spaces or dialect.sep == " ")
        return gap.join(map(cell, cells)) + dialect.sep * dialect.empty_end + newline

    text = f"title{newline}" * dialect.skip
    if dialect.header != "none":
        text += line(names)
    for number, row in enumerate(rows):
        text += line([f"row {number}", *row] if dialect.row_names else row)
    return text


@st.composite
def dialects(draw: st.DrawFn) -> Dialect:
    sep = draw(st.sampled_from(SEPARATORS))
    form = draw(st.sampled_from(["plain", "row_names", "empty_end"]))
    return Dialect(
        sep=sep,
        decimal=draw(st.sampled_from([".", ","])) if sep != "," else ".",
        encoding=draw(st.sampled_from(["utf-8", "utf-16", "windows-1252"])),
        header=draw(st.sampled_from([None, "none"])) if form == "plain" else None,
        skip=draw(st.integers(0, 2)),
        spaces=sep != " " and draw(st.booleans()),
        row_names=form == "row_names",
        empty_end=form == "empty_end" and sep != " ",
    )


@settings(max_examples=60)
@given(
    table=tables(),
    dialect=dialects(),
    newline=st.sampled_from(["\n", "\r\n"]),
    piece=st.sampled_from([1, 7, 64, 1 << 20]),
    threads=st.sampled_from([1, 2]),
)
def test_a_table_written_in_any_dialect_is_read_back(
    *, table: tuple[list[str], list[list[Any]]], dialect: Dialect, newline: str, piece: int, threads: int
) -> None:
    names, rows = table
    content = written(names, rows, dialect, newline).encode(dialect.encoding)
    options = ReadingOptions(
        header=dialect.header, skip=dialect.skip, decimal=dialect.decimal, encoding=dialect.encoding
    )
    if dialect.header == "none":  # Words alone do not tell what separates them.
        options = replace(options, sep=dialect.sep)
        names = [f"c{number + 1}" for number in range(len(names))]
    with pytest.MonkeyPatch.context() as small:
        for name in ("BLOCK_BYTES", "SINGLE_BLOCK_BYTES"):
            small.setattr(csv_format, name, piece)
        found = table_of(content, options, numbers=tuple(names[::2]), threads=threads)
    found.pop("", None)
    assert found == {
        name: [row[index] if row[index] != "" else None for row in rows] for index, name in enumerate(names)
    }
