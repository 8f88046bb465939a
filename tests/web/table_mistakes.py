"""Mistakes in tables, in their options, in levels and in later tables, each with words that the message has to contain.

The requests without a query are sent to the model `kinds`, which was trained on `KINDS`.
"""

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import Any, TypeAlias
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet
import xlsxwriter

CSV = "text/csv"
JSON = "application/json"
NDJSON = "application/x-ndjson"
STREAM = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"

HEADER = "species,ok,when,age,y"
ROWS = [
    f"{('Adelie', 'Chinstrap', 'Gentoo')[n % 3]},{('yes', 'no')[n % 5 % 2]},2026-0{1 + n % 4}-1{n % 7},{n * n % 11},{n}"
    for n in range(24)
]
KINDS = "\n".join([HEADER, *ROWS, ""])
PATH = "/models/kinds/predict"
BOMB_BYTES = 300 << 20  # Size of an entry of a workbook, when it is unpacked.
Content: TypeAlias = bytes | str | Callable[[], bytes]


@dataclass(frozen=True)
class TableMistake:
    """A request, and words of the response or of the failed job."""

    name: str
    content: Content
    says: tuple[str, ...]
    media_type: str = CSV
    path: str = "/train"
    status: int = 422


def csv(*rows: str) -> str:
    return "".join(f"{row}\n" for row in rows)


def repeated(header: str, row: Callable[[int], str], rows: int = 24) -> str:
    return csv(header, *(row(n) for n in range(rows)))


def kinds(change: Callable[[int, list[str]], Iterable[str]], header: str = HEADER) -> str:
    """Return the rows of the model, changed."""
    return csv(header, *(",".join(change(n, row.split(","))) for n, row in enumerate(ROWS)))


def with_cell(column: int, text: str, rows: Iterable[int] = range(24)) -> str:
    """Return the rows of the model with another text in one column."""
    return kinds(lambda n, row: [*row[:column], text if n in rows else row[column], *row[column + 1 :]])


def train(name: str, content: Content, *says: str, **more: Any) -> TableMistake:
    """Return a training of a model that does not exist before and after, unless the query names one.

    `more` has the media type, the status and the query.
    """
    media_type, status = more.pop("media_type", CSV), more.pop("status", 422)
    path = f"/train?{urlencode({'model': 'mistaken-table', 'targets': 'y', **more})}"
    return TableMistake(name, content, says, media_type, path, status)


def option(name: str, value: str, *says: str, **query: str) -> TableMistake:
    return train(f"{name}={value}", KINDS, *says, **{name: value, **query})


def later(name: str, content: Content, *says: str, **query: str) -> TableMistake:
    return train(name, content, *says, **{"model": "kinds", **query})


def predict(name: str, row: dict[str, Any] | str, *says: str, **options: str) -> TableMistake:
    """Return a prediction for one row, an object or CSV."""
    if isinstance(row, str):
        path = f"{PATH}?{urlencode(options)}" if options else PATH
        return TableMistake(name, csv("species,ok,when,age", row), says, CSV, path)
    return TableMistake(name, json.dumps({"instances": [row], **options}), says, JSON, PATH)


def arrow(array: pa.Array) -> bytes:
    rows = len(array)
    table = pa.table({"z": array, "x": [float(n) for n in range(rows)], "y": [float(n % 4) for n in range(rows)]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def parquet(array: pa.Array) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.ipc.open_stream(arrow(array)).read_all(), sink)
    return sink.getvalue()


def workbook(*rows: Iterable[Any], sheet: str = "Sales") -> bytes:
    sink = io.BytesIO()
    book = xlsxwriter.Workbook(sink, {"in_memory": True})
    page = book.add_worksheet(sheet)
    for number, row in enumerate(rows):
        page.write_row(number, 0, list(row))
    book.close()
    return sink.getvalue()


def edited(book: bytes, name: str, content: bytes | str) -> bytes:
    """Return the workbook with another content of one of its files."""
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, content if entry == name else old.read(entry))
        if name not in old.namelist():
            new.writestr(name, content)
    return sink.getvalue()


@cache
def bomb(name: str) -> bytes:
    """Return a workbook in which a file is much larger when it is unpacked."""
    sink = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(BOOK)) as old,
        zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for other in old.namelist():
            if other != name:
                new.writestr(other, old.read(other))
        entry = new.open(name, "w")
        for _ in range(BOMB_BYTES >> 20):
            entry.write(bytes(1 << 20))
        entry.close()
    return sink.getvalue()


def part(name: str, content: str, media_type: str, file: str = "") -> str:
    filename = f'; filename="{file}"' if file else ""
    head = f'Content-Disposition: form-data; name="{name}"{filename}\r\nContent-Type: {media_type}\r\n\r\n'
    return f"--x\r\n{head}{content}\r\n"


def form(*parts: str) -> str:
    return "".join(parts) + "--x--\r\n"


ROW = {"species": "Gentoo", "ok": True, "when": "2026-02-11", "age": 3}
BOOK = workbook(["x", "y"], *([n, n * n % 7] for n in range(12)))
SHEET = "xl/worksheets/sheet1.xml"
SHEET_HEAD = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
LAUGHS = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
)  # fmt: skip
FILE = part("file", KINDS, CSV, "rows.csv")

MISTAKES: list[TableMistake] = [
    # Kinds
    train("a few words among numbers", with_cell(3, "unknown", [4, 9]), "age", "2 of 24", "row 6", "na="),
    train("words as a target", KINDS, "species", "number", targets="species"),
    train("dates as a target", KINDS, "when", "number", targets="when"),
    train("words as weights", KINDS, "species", "number", weight="species"),
    train("a negative weight", repeated("w,x,y", lambda n: f"{3 - n},{n % 5},{n}"), "weight", weight="w"),
    train("dates that can be read in two ways", repeated("d,x,y", lambda n: f"0{1 + n % 9}/0{1 + n % 8}/2020,{n},{n % 7}"), '"d"', "dates=dmy", "dates=mdy"),
    train("dates that fit neither order", repeated("d,x,y", lambda n: f"{1 + n % 28}/{1 + n % 12}/2020,{n},{n % 7}"), '"d"', "mdy", dates="mdy"),
    train("words where dates are expected", KINDS, "species", "date", columns='{"species": {"kind": "date"}}'),
    train("words where numbers are expected", KINDS, "species", "row 2", "number", numbers="species"),
    train("words where booleans are expected", KINDS, "species", "row 2", "true or false", booleans="species"),
    train("commas with three digits each", repeated("x;y", lambda n: f"{n + 1},{100 + n};{n % 7}"), "decimal=,", "thousands=,"),
    train("numbers sent as strings", "".join(f'{{"x":"{n}","y":{n % 5}}}\n' for n in range(9)), "numbers sent as strings", '"x"', "numbers=", media_type=NDJSON),
    train("numbers and strings in a column", "".join(f'{{"x":{n if n % 2 else chr(34) + "a" + chr(34)},"y":{n % 5}}}\n' for n in range(9)), '"x"', "number", "string", media_type=NDJSON),
    train("an object in a cell", '{"x":{"a":1},"y":1}\n' * 4, '"x"', "object", media_type=NDJSON),
    train("a list in a cell", '{"x":[1],"y":1}\n' * 4, '"x"', "array", media_type=NDJSON),
    train("durations", arrow(pa.array([timedelta(days=n) for n in range(9)])), '"z"', "duration", media_type=STREAM),
    train("lists in Arrow", arrow(pa.array([[n] for n in range(9)])), '"z"', "list", media_type=STREAM),
    train("structs in Parquet", parquet(pa.array([{"a": n} for n in range(9)])), '"z"', "struct", media_type=PARQUET),
    train("bytes in Arrow", arrow(pa.array([b"a", b"b"] * 4)), '"z"', "binary", media_type=STREAM),
    train("strings of numbers in Parquet", parquet(pa.array([str(n) for n in range(9)])), "numbers sent as strings", '"z"', "categories=", media_type=PARQUET),
    train("more levels than are counted", repeated("c,x,y", lambda n: f"c{n % 2500},{n},{n % 7}", 6000), '"c"', "more than 2,000", categories="c"),
    train("two columns with too many levels", repeated("c,d,y", lambda n: f"c{n % 1200},d{n % 1100},{n % 7}", 6000), '"c"', "1,200", '"d"', "1,100", "2,000"),
    train("nothing but identifiers", repeated("name,y", lambda n: f"n{n}x,{n}"), "name", "feature"),
    train("a power of a category", KINDS, "species", "category", terms="species^2,age"),
    train("a product with a category", KINDS, "species", "category", terms="species:age"),
    # Gaps
    train("a column without values", with_cell(3, ""), "complete rows", '"age"', "24", "drop="),
    train("fewer complete rows than coefficients", with_cell(3, "", range(5, 24)), "5 complete rows for", "gaps by column", "drop="),
    train("a gap that is refused", with_cell(3, "", [7]), "row 9", '"age"', missing="refuse"),
    train("a gap in words that is refused", with_cell(0, "", [7]), "row 9", '"species"', missing="refuse"),
    train("a target without values", with_cell(4, "NA"), "complete rows", '"y"'),
    # Text
    train("a byte that is zero", with_cell(3, "1\x00", [2]), "row 4", '"age"'),
    train("Windows-1252", with_cell(0, "Ad\u00e9lie", [2]).encode("cp1252"), "UTF-8", "row 4", "encoding=windows-1252"),
    train("UTF-8 as UTF-16", KINDS, "UTF-16", encoding="utf-16"),
    train("all lines skipped", KINDS, "skip", skip="500"),
    train("another separator than in the file", KINDS, "sep", sep=";"),
    train("rows of several lengths", csv("a;b;y", "1;2;3", "1;2", "1;2;3;4"), "row"),
    train("a name twice after spaces are removed", csv("x, x, y", "1, 2, 3", "2, 3, 4"), '"x"', "same name"),
    train("a title above the header", csv("Yields of 2026,,", ",,", "x,z,y", "1,2,3", "2,3,5"), "skip="),
    train("no header and words", csv("Adelie,3,1", "Gentoo,4,2", "Adelie,5,2"), "names of the columns", "header=none", targets="c3"),
    # Options
    option("sep", "x", "sep", "';'", "'|'"),
    option("decimal", ";", "decimal", ".", ","),
    option("thousands", "abc", "thousands", "'_'"),
    option("encoding", "ebcdic", "encoding", "windows-1252"),
    option("dates", "ydm", "dates", "dmy", "mdy", "ymd"),
    option("header", "maybe", "header", "names", "none"),
    option("skip", "-1", "skip", "0"),
    option("skip", "many", "skip", "whole number"),
    option("missing", "ignore", "missing", "drop", "refuse", "indicator", "fill"),
    option("missing", "fill", "fill", "constant"),
    option("fill", "age", "fill", "NAME:VALUE"),
    option("fill", "age:old", "age", "number"),
    option("fill", "age:inf", "age", "number"),
    option("fill", "species:Emperor", "species", "level"),
    option("reference", "species", "reference", "NAME:VALUE"),
    option("reference", "species:Emperor", "species", "Emperor", "Adelie"),
    option("reference", "age:1", "age", "categor", numbers="age"),
    option("categories", "nothing", "nothing", "age"),
    option("numbers", "nothing", "nothing", "age"),
    option("booleans", "nothing", "nothing", "age"),
    option("booleans", "age", "age", "true or false"),
    option("drop", "nothing", "nothing", "age"),
    option("drop", "y", "y", "target"),
    option("drop", "age", "age", "features", features="age,species"),
    option("drop", "species,ok,when,age", "feature"),
    option("numbers", "age", "age", "kind", categories="age"),
    option("columns", "{", "columns", "JSON object"),
    option("columns", "[]", "columns", "object"),
    option("columns", '{"age": {"kind": "ordinal"}}', "columns", "number", "category"),
    option("columns", '{"age": {"colour": 1}}', "columns", "colour"),
    option("columns", '{"nothing": {"kind": "number"}}', "nothing", "age"),
    option("schema", "maybe", "schema", "infer"),
    option("sheet", "2", "sheet", "Excel"),
    option("decimal", ",", "decimal", "thousands", thousands=","),
    option("strip", "1", "strip", "digit"),
    option("na", "x" * 2000, "na", "1000"),
    option("sepp", ";", "sepp", "sep"),
    train("a separator for Parquet", parquet(pa.array([1, 2, 3])), "sep", "CSV", media_type=PARQUET, sep=";"),
    train("an encoding for NDJSON", '{"x":1,"y":1}\n', "encoding", "CSV", media_type=NDJSON, encoding="utf-16"),
    # Levels and values in predictions
    predict("an unseen level", {**ROW, "species": "Emperor"}, "species", "Emperor", "Adelie", "Chinstrap", "Gentoo"),
    predict("an unseen level in CSV", "Emperor,yes,2026-01-01,1", "row 2", "species", "Emperor", "Adelie", unknown="refuse"),
    predict("a long unseen level", {**ROW, "species": "\u202e" + "x" * 5000}, "\\u202e", "x" * 90 + "...", "Gentoo"),
    predict("a gap in words", {**ROW, "species": None}, "species", "null"),
    predict("a number for a word", {**ROW, "species": 4}, "species", "4", "Adelie"),
    predict("a list for a word", {**ROW, "species": ["Gentoo"]}, "species", "array"),
    predict("a word for a number", {**ROW, "age": "old"}, "age", "number"),
    predict("a word for a boolean", {**ROW, "ok": "perhaps"}, "ok", "true"),
    predict("a number for a boolean", {**ROW, "ok": 2}, "ok", "true"),
    predict("a day that does not exist", {**ROW, "when": "2026-02-30"}, "when", "date"),
    predict("a word for a date", {**ROW, "when": "soon"}, "when", "date"),
    predict("a word for a date in CSV", "Gentoo,yes,soon,1", "row 2", "when", "date"),
    predict("a gap that is refused in CSV", "Gentoo,yes,,1", "row 2", "when", missing="refuse"),
    predict("a name that is missing", {"species": "Gentoo", "ok": True, "age": 3}, "when", "missing"),
    predict("a name that is not known", {**ROW, "colour": 1}, "colour", "species"),
    predict("unknown=maybe", ROW, "unknown", "null", "refuse", "reference", unknown="maybe"),
    predict("unknown=maybe in CSV", "Gentoo,yes,2026-01-01,1", "unknown", "null", "refuse", "reference", unknown="maybe"),
    # Later tables of a model
    later("an update with a new column", kinds(lambda _, row: [*row, "1"], HEADER + ",colour"), "colour", mode="update"),
    later("an update without a column", kinds(lambda _, row: row[1:], "ok,when,age,y"), "species", mode="update"),
    later("an update with words for numbers", with_cell(3, "old"), "age", "number", mode="update"),
    later("an update with numbers for dates", with_cell(2, "44197.5"), "when", "date", mode="update"),
    later("an update with another kind", KINDS, "species", "kind", "schema=infer", mode="update", numbers="species"),
    later("an update with another reference level", KINDS, "species", "reference", mode="update", reference="species:Gentoo"),
    later("an update with a new gap policy", KINDS, "missing", mode="update", missing="indicator"),
    later("a table without a column", kinds(lambda _, row: row[1:], "ok,when,age,y"), "species", "schema=infer"),
    later("a table with words for numbers", with_cell(3, "old"), "age", "number", "schema=infer"),
    later("a table with words for dates", with_cell(2, "soon"), "when", "date", "schema=infer"),
    later("a table with words for booleans", with_cell(1, "perhaps"), "ok", "schema=infer"),
    later("a table with many more gaps", with_cell(3, "", range(12)), '"age"', "12", "missing=drop"),
    later("a forget of a level that the model does not have", kinds(lambda _, row: ["Emperor", *row[1:]]), "species", "Emperor", mode="forget"),
    # JSON
    train("an empty list of records", "[]", "record", media_type=JSON),
    train("numbers in place of records", "[1, 2]", "object", media_type=JSON),
    train("lists in place of records", "[[1, 2], [3, 4]]", "record", media_type=JSON),
    train("records without the target", json.dumps([{"x": 1}, {"x": 2}]), '"y"', media_type=JSON),
    train("records without targets in the query", json.dumps([{"x": 1, "y": 2}]), "targets", media_type=JSON, targets=""),
    train("split rows of another length", json.dumps({"columns": ["x", "y"], "data": [[1, 2], [3]]}), "2", media_type=JSON),
    train("split with a name twice", json.dumps({"columns": ["y", "y"], "data": [[1, 2]]}), "same name", media_type=JSON),
    # Workbooks
    train("a workbook with a part of 300 MiB", partial(bomb, "xl/worksheets/sheet2.xml"), "256 MiB", media_type=XLSX, status=413),
    train("a workbook with many strings", partial(bomb, "xl/sharedStrings.xml"), "256 MiB", media_type=XLSX, status=413),
    train("a workbook that names a far cell", edited(BOOK, SHEET, f'{SHEET_HEAD}<row r="1"><c r="A1"><v>1</v></c></row><row r="1048577"><c r="XFD1048577"><v>1</v></c></row></sheetData></worksheet>'), "workbook", media_type=XLSX),
    train("a workbook with a wide far cell", edited(BOOK, SHEET, f'{SHEET_HEAD}<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData></worksheet>'), "far from the table", media_type=XLSX),
    train("entities in a workbook", edited(BOOK, SHEET, f"{LAUGHS}]>{SHEET_HEAD}<row><c t='str'><v>&j;</v></c></row></sheetData></worksheet>"), "workbook", media_type=XLSX),
    train("a workbook cut short", BOOK[: len(BOOK) // 2], "workbook", media_type=XLSX),
    train("a workbook without its parts", edited(b"PK\x05\x06" + bytes(18), "x.txt", "x"), "ZIP archive", media_type=XLSX),
    train("a sheet that is not there", BOOK, "Costs", "Sales", media_type=XLSX, sheet="Costs"),
    train("a sheet number that is too large", BOOK, "no sheet 7", media_type=XLSX, sheet="7"),
    train("an empty sheet", workbook(), "empty", media_type=XLSX),
    train("a separator for a workbook", BOOK, "sep", "CSV", media_type=XLSX, sep=";"),
    train("words in numbers of a workbook", workbook(["x", "y"], *([n if n % 6 else "late", n % 4] for n in range(24))), '"x"', "na=", media_type=XLSX),
    TableMistake("a workbook with a part of 300 MiB to predict for", partial(bomb, "xl/worksheets/sheet2.xml"), ("256 MiB",), XLSX, PATH, 413),
    # Bodies of another format
    train("a zip file", edited(b"PK\x05\x06" + bytes(18), "rows.csv", KINDS), "zip"),
    train("gzip", gzip.compress(KINDS.encode()), "gzip", "Content-Encoding"),
    train("a web page", "<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", "HTML"),
    train("Stata", b"<stata_dta><header><release>118</release>" + bytes(99), "Stata", "CSV"),
    train("SPSS", b"$FL2@(#) SPSS DATA FILE" + bytes(200), "SPSS", "CSV"),
    train("Parquet cut short", b"PAR1" + bytes(40), "Parquet"),
    train("an old workbook without content", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504), "workbook"),
    train("a form", KINDS.replace("\n", ""), "--data-binary", media_type=FORM, status=415),
    # Forms of several parts
    TableMistake("a form without a file", form(part("options", "{}", JSON)), ("file",), MULTIPART),
    TableMistake("a form with two files", form(FILE, FILE), ("file",), MULTIPART),
    TableMistake("a form with another part", form(FILE, part("rows", "1", CSV)), ("rows", "options"), MULTIPART),
    TableMistake("a form with options that are not JSON", form(part("options", "{", JSON), FILE), ("options", "JSON"), MULTIPART),
    TableMistake("a form with an option that is not known", form(part("options", '{"targets": ["y"], "colour": 1}', JSON), FILE), ("colour",), MULTIPART),
    TableMistake("a form with an option at the end that is not known", form(FILE, part("options", '{"colour": 1}', JSON)), ("colour",), MULTIPART),
    TableMistake("a form without an end", FILE, ("boundary",), MULTIPART, status=400),
    # Inspection
    TableMistake("an inspection without content", "", ("empty",), CSV, "/inspect?targets=y"),
    TableMistake("an inspection with a bad option", KINDS, ("dates", "dmy"), CSV, "/inspect?targets=y&dates=x"),
    TableMistake("an inspection for a model that is not there", KINDS, ("no model",), CSV, "/inspect?model=nowhere", 404),
    TableMistake("an inspection of a bomb", partial(bomb, "xl/worksheets/sheet2.xml"), ("256 MiB",), XLSX, "/inspect?targets=y", 413),
]  # fmt: skip
