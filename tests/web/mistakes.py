"""Mistakes of new users, each with sentences that the response has to contain.

A mistake in a file or in a body is made for both /predict and /train.
"""

import gzip
import io
import json
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

JSON = {"content-type": "application/json"}
CSV = {"content-type": "text/csv"}
NDJSON = {"content-type": "application/x-ndjson"}
STREAM = {"content-type": "application/vnd.apache.arrow.stream"}
PARQUET = {"content-type": "application/vnd.apache.parquet"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}
WORKBOOK = {"content-type": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}

FEATURES, TARGETS = ["temp", "rainfall", "humidity"], ["apples", "oranges"]
X: list[list[Any]] = [[73, 67, 43], [91, 88, 64], [87, 134, 58], [102, 43, 37], [69, 96, 70]]
Y: list[list[Any]] = [[56, 70], [81, 101], [119, 133], [22, 37], [103, 119]]
MARK = "4711.25"  # a value in a cell, which no answer may repeat
TO_TRAIN = "targets=apples,oranges&model=mistakes"
XLS = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504)

ProblemDetail: TypeAlias = dict[str, object]


@dataclass(frozen=True)
class Mistake:
    """A request, and parts of the response's sentences: what was received, what was expected, and what to do."""

    name: str
    content: bytes | str | None
    says: tuple[str, ...]
    place: ProblemDetail | None = None  # of one of the errors
    headers: dict[str, str] | None = None
    path: str = "/predict"
    method: str = "POST"
    status: int = 422
    places: int | None = None  # how many errors there are


def table(
    columns: list[str],
    *,
    names: dict[str, str] | None = None,
    cells: dict[tuple[int, int], str] | None = None,
    header: bool = True,
    separator: str = ",",
    end: str = "",
) -> str:
    """Return the rows as CSV, with some names or cells (row and column from 0) replaced."""
    rows = [[str(value) for value in (x + y)[: len(columns)]] for x, y in zip(X, Y, strict=True)]
    for (row, column), cell in (cells or {}).items():
        rows[row][column] = cell
    lines = [[(names or {}).get(name, name) for name in columns]] * header + rows
    return "".join(separator.join(line) + end + "\n" for line in lines)


def objects(columns: list[str]) -> list[dict[str, Any]]:
    return [dict(zip(columns, x + y, strict=False)) for x, y in zip(X, Y, strict=True)]


def arrow(columns: list[str]) -> pa.Table:
    return pa.Table.from_pylist(objects(columns))


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


def ipc(columns: list[str], new: Callable[..., Any]) -> bytes:
    def write(sink: io.BytesIO) -> None:
        with new(sink, arrow(columns).schema) as writer:
            writer.write_table(arrow(columns))

    return written(write)


def workbook(_: list[str]) -> bytes:
    def write(sink: io.BytesIO) -> None:
        with zipfile.ZipFile(sink, "w") as archive:
            for name in ("[Content_Types].xml", "_rels/.rels", "xl/workbook.xml"):
                archive.writestr(name, "<x/>")

    return written(write)


def part(columns: list[str]) -> str:
    head = 'Content-Disposition: form-data; name="file"; filename="rows.csv"\r\nContent-Type: text/csv\r\n\r\n'
    return f"--x\r\n{head}{table(columns)}\r\n--x--\r\n"


def body(columns: list[str], **changes: Any) -> str:
    """Return the rows as JSON arrays, with the targets for a training."""
    given: dict[str, Any] = {"instances": X}
    if len(columns) > len(FEATURES):
        given |= {"targets": Y}
    return json.dumps(given | changes)


def of_objects(columns: list[str], change: Callable[[dict[str, Any]], object]) -> str:
    rows = objects(FEATURES)
    for row in rows:
        change(row)
    # Without names the columns of the objects would be compared with the current version's.
    return body(columns, instances=rows, **({"feature_names": FEATURES} if len(columns) > len(FEATURES) else {}))


def lines(columns: list[str], rows: list[dict[str, Any]]) -> str:
    del columns
    return "".join(json.dumps(row) + "\n" for row in rows)


def both(
    name: str, make: Callable[[list[str]], bytes | str], headers: dict[str, str], *says: str, **more: Any
) -> Iterator[Mistake]:
    """Yield the mistake for /predict, with the query `predict_query`, and for /train, whose rows have targets.

    If a training answers it in another way, `train` has the sentences and `train_places` the number of errors.
    """
    options, predict_query = more.pop("options", ""), more.pop("predict_query", "")
    train, train_places = more.pop("train", says), more.pop("train_places", more.get("places"))
    for path, columns in (("/predict", FEATURES), ("/train", [*FEATURES, *TARGETS])):
        query = TO_TRAIN + options if path == "/train" and headers is not JSON else predict_query * (path == "/predict")
        target = f"{path}?{query}" if query else path
        found, places = (train, train_places) if path == "/train" else (says, more.get("places"))
        yield Mistake(f"{name} {path}", make(columns), found, headers=headers, path=target, **more | {"places": places})


def file(name: str, make: Callable[[list[str]], bytes | str], *says: str, **more: Any) -> Iterator[Mistake]:
    yield from both(name, make, CSV, *says, **more)


def wrong_type(name: str, make: Callable[[list[str]], bytes | str], headers: dict[str, str], *says: str) -> Any:
    yield from both(name, make, headers, *says, place={"parameter": "Content-Type"}, status=415)


def json_body(name: str, make: Callable[[list[str]], bytes | str], *says: str, **more: Any) -> Iterator[Mistake]:
    yield from both(name, make, JSON, *says, **more)


def one(name: str, path: str, content: bytes | str | None, *says: str, **more: Any) -> Iterator[Mistake]:
    more.setdefault("headers", JSON)
    yield Mistake(name, content, says, path=path, **more)


NFD = unicodedata.normalize("NFD", "größe")
ROW_1 = {"row": 1}
BODY_TYPE = {"parameter": "Content-Type"}
LINE = "curl --data-binary @FILE -H 'Content-Type: "

MISTAKES: list[Mistake] = [
    # How it is sent
    *wrong_type("curl -d @file.csv", lambda c: table(c).replace("\n", ""), FORM, "as `curl -d` sends it", "Content-Type has to be application/json or text/csv", f"{LINE}text/csv' "),
    *wrong_type("curl -d with JSON", body, FORM, "as `curl -d` sends it", "has to be application/json", f"{LINE}application/json' "),
    *wrong_type("curl -F file=@file.png", lambda c: part(c).replace("text/csv", "image/png").replace(".csv", ".png"), MULTIPART, "nor the file name of the part", "Expected the type application/json or text/csv", "Give it: `curl -F 'file=@FILE;type=text/csv'`"),
    *both("curl -F rows=@file.csv", lambda c: part(c).replace('name="file"', 'name="rows"'), MULTIPART, "a part of another name", "Send the rows in a part `file`", "curl -F"),
    *wrong_type("no content type", table, {}, "There is no Content-Type header", "has to be application/json or text/csv", f"{LINE}text/csv' "),
    *both("an old Excel file that is damaged", lambda _: XLS, WORKBOOK, "not readable", "as an Excel workbook or an OpenDocument spreadsheet", "Save it again as .xlsx"),
    *both("a workbook that is cut off", lambda c: workbook(c)[:200], WORKBOOK, "cut off", "its ZIP archive has no directory", "Send the whole file"),
    *file("gzip without Content-Encoding", lambda c: gzip.compress(table(c).encode()), "compressed with gzip", "CSV was expected", "Add the header Content-Encoding: gzip", place={"parameter": "Content-Encoding"}),
    *json_body("gzipped JSON without Content-Encoding", lambda c: gzip.compress(body(c).encode()), "compressed with gzip", "JSON was expected", "Add the header Content-Encoding: gzip", place={"parameter": "Content-Encoding"}, status=400),
    *both("Content-Encoding that is not so", table, {**CSV, "content-encoding": "gzip"}, "The body is not gzip", "which Content-Encoding says it is", "Compress it, or leave the header out", place={"parameter": "Content-Encoding"}, status=400),
    *both("Brotli", table, {**CSV, "content-encoding": "br"}, "has another value", "has to be gzip, deflate or zstd", "Compress the body with one of these", place={"parameter": "Content-Encoding"}, status=415),
    *one("Accept that cannot be given", "/predict", table(FEATURES), "names none of them", "Accept has to name application/json or", "Without it, the answer is text/csv", headers={**CSV, "accept": "application/vnd.ms-excel"}, place={"parameter": "Accept"}, status=406),
    # One format as another
    *both("CSV as Parquet", table, PARQUET, "The body is CSV", "Parquet was expected", "Send it with Content-Type: text/csv", place=BODY_TYPE),
    *both("CSV as an Arrow stream", table, STREAM, "The body is CSV", "an Arrow IPC stream was expected", "Send it with Content-Type: text/csv", place=BODY_TYPE),
    *both("CSV as Excel", table, WORKBOOK, "The body is CSV", "Excel (.xlsx, .xls, .ods) was expected", "Send it with Content-Type: text/csv", place=BODY_TYPE),
    *file("Stata as CSV", lambda _: b"<stata_dta><header>", "a Stata file", "CSV was expected", "Save it as CSV", place=BODY_TYPE),
    *file("JSON as CSV", body, "The body is JSON", "CSV was expected", "Send it with Content-Type: application/json", place=BODY_TYPE),
    *both("JSON as NDJSON", body, NDJSON, "The body is JSON", "a JSON object in each line", "Send it with Content-Type: application/json", place=BODY_TYPE),
    *both("a JSON array as NDJSON", lambda c: json.dumps(objects(c)), NDJSON, "The body is a JSON array", "a JSON object in each line", "Send an array of records with Content-Type: application/json", place=BODY_TYPE),
    *json_body("CSV as JSON", table, "The body is CSV", "JSON was expected", "Send it with Content-Type: text/csv", place=BODY_TYPE, status=400),
    *json_body("NDJSON as JSON", lambda c: lines(c, objects(c)), "The body is NDJSON", "JSON was expected", "Send it with Content-Type: application/x-ndjson", place=BODY_TYPE, status=400),
    # Text
    *file("UTF-16 without a mark", lambda c: table(c).encode("utf-16-le"), "The body is UTF-16LE text", "CSV was expected", "Save it as UTF-8", place=BODY_TYPE),
    *file("Windows-1252 in the header", lambda c: table(c, names={"temp": "température"}).encode("cp1252"), "row 1 has a byte that is not UTF-8", "The file is not UTF-8 text", "Save it as UTF-8", place=ROW_1),
    *file("Windows-1252 in a cell", lambda c: table(c, cells={(2, 0): "1é"}).encode("cp1252"), "row 4 has a byte that is not UTF-8", "The file is not UTF-8 text", "iconv -f WINDOWS-1252", place={"row": 4}),
    *json_body("UTF-16 as JSON", lambda c: body(c).encode("utf-16"), "The body is UTF-16 text", "JSON was expected", "Save it as UTF-8", place=BODY_TYPE, status=400),
    *json_body("Windows-1252 as JSON", lambda c: body(c, note="N").replace("N", "é").encode("cp1252"), "has a byte that is not UTF-8 (line 1 column ", "The body is not JSON", "Save it as UTF-8", status=400),
    # CSV
    *file("a quote in the header without an end", lambda c: '"' + table(c), "has a line break", "Expected ", "Close the quote", place=ROW_1),
    *one("pandas' index as a column", "/predict", ",temp,rainfall,humidity\n0,1,2,3\n", "1 column that is not a feature", "Expected ", "to_csv(index=False)", headers=CSV, place=ROW_1),
    *one("a missing column and others", "/predict", "temp,Rainfall,humidity,x\n1,2,3,4\n", "has 4 columns", '"rainfall" expected', "Rename the columns", headers=CSV, place=ROW_1, places=3),
    *one("a feature to keep", "/predict?keep=temp", table(FEATURES), "cannot be kept", "features are read as numbers", "Leave them out of `keep`", headers=CSV, place={"parameter": "keep"}),
    *file("a title before the header", lambda c: "Yields\n" + table(c), "Row 1 has 1 value(s)", "the rows after it have", "as in `skip=1`", place=ROW_1),
    *file("no header row", lambda c: table(c, header=False), "Row 1 holds only numbers", "the names of the columns were expected", "Add a first row with the names", place=ROW_1),
    *file("no header row, with a word", lambda c: table(c, header=False, cells={(0, 1): "wet"}), "numbers among its", "the names of the columns were expected", "Add a first row with the names", place=ROW_1),
    *file("an empty file", lambda _: "", "The file is empty", "Expected a header row", "with the names of the columns, and rows"),
    *file("a name twice", lambda c: table(c, names={"rainfall": "temp"}), "Columns 1, 2 have the same name", "Each column needs a name of its own", "Rename all but one", place={"row": 1, "column": "temp"}),
    *file("a decimal comma in quotes", lambda c: table(c, cells={(1, 0): '"4711,25"'}), "found a number with a comma", "Expected a number", "Write decimals with a point", place={"row": 3, "column": "temp"}, train=("numbers with signs or separators", "that are not expected", "`decimal=,` reads them as numbers")),
    *one("thousands in quotes", "/predict", table(FEATURES, cells={(1, 0): '"4,711.25"'}), "found a number with a comma", "Expected a number", "no separators between thousands", headers=CSV, place={"row": 3, "column": "temp"}),
    *file("a decimal comma without quotes", lambda c: table(c, cells={(1, 0): "4711,25"}), "found", "values", "write decimals with a point", place={"row": 3}),
    *file("a percent sign", lambda c: table(c, cells={(1, 2): f"{MARK}%"}), "found a number with a unit", "Expected a number", "Write the number alone", place={"row": 3, "column": "humidity"}, train=("numbers with signs or separators", "that are not expected", "`strip=%` reads them as numbers")),
    *file("a date", lambda c: table(c, cells={(1, 2): "2026-11-28"}), "found a date or a time", "Expected a number", "Convert it to a number", place={"row": 3, "column": "humidity"}, train=("1 of 5 values cannot be read", "as finite numbers", "name them with `na`")),
    *file("text in three columns", lambda c: table(c, cells={(1, 0): "x", (3, 1): "y", (2, 2): "z"}), "3 columns have values at fault", "Expected a number, found text", "row 3, column", place={"row": 5, "column": "rainfall"}, places=3, train=("3 columns have values at fault", "cannot be read as finite numbers", "name them with `na`")),
    *file("text and a gap", lambda c: table(c, cells={(1, 0): "", (3, 1): "y"}), "The value is missing", "a number was expected", "Fill it in", place={"row": 5, "column": "rainfall"}, places=2, predict_query="missing=refuse", train=("1 of 5 values cannot be read", "as finite numbers", "name them with `na`"), train_places=1),
    # Names
    *file("a misspelt column", lambda c: table(c, names={"rainfall": "rainfal", "apples": "aples"}), "Columns are missing", "expected, but the file has", "is similar. Rename it", place=ROW_1, options="&features=temp,rainfall,humidity"),
    *file("a column in capitals", lambda c: table(c, names={"rainfall": "Rainfall", "apples": "Apples"}), "differs in capitals", "expected, but the file has", "Use the same spelling", place=ROW_1, options="&features=temp,rainfall,humidity"),
    *file("a no-break space in a name", lambda c: table(c, names={"rainfall": "rainfall\u00a0"}), "U+00A0 (no-break space) at position 9", "expected", "Remove it", place=ROW_1),
    *file("a zero-width space in a name", lambda c: table(c, names={"rainfall": "rain\u200bfall"}), '"rain\\u200bfall"', "expected", "Remove it", place=ROW_1),
    *file("two byte order marks", lambda c: "\ufeff\ufeff" + table(c), "U+FEFF (zero width no-break space) at position 1", "expected", "Remove it", place=ROW_1),
    *one("twins of Unicode", "/train?targets=gr%C3%B6%C3%9Fe&model=mistakes", f"x,{NFD}\n1,2\n2,3\n", '"gro\\u0308\\u00dfe"', "expected, but the file has 2 columns", "Write both names in NFC", headers=CSV, place=ROW_1),
    *one("columns that are not features", "/predict", table(FEATURES).replace("\n", ",1,2\n").replace("1,2", "place,id", 1), '2 columns that are not features: "place", "id"', 'Expected "temp", "rainfall", "humidity"', "Remove them. To pass columns through to the results, name them in `keep`", headers=CSV, place={"column": "id"}, places=2),
    *one("a column to keep that is not there", "/predict?keep=plce", table(FEATURES), "the file has 3 columns", '"plce" expected', "Rename the columns", headers=CSV, place=ROW_1),
    *one("targets that are not there", "/train?targets=aples,orange&model=mistakes", table([*FEATURES, *TARGETS]), 'Column 4, named "apples"', '"aples", "orange" expected', "Rename it if it is meant", headers=CSV, place=ROW_1, places=2),
    *one("targets that are not given", "/train?model=mistakes-without-targets", table([*FEATURES, *TARGETS]), "No `targets` were given", "Name the columns to predict", "?targets=", headers=CSV, place={"parameter": "targets"}),
    # JSON
    *json_body("a comma too many", lambda c: body(c)[:-1] + ",}", "found a comma before a closing bracket (line 1 column ", "The body is not JSON", "Remove it", status=400),
    *json_body("single quotes", lambda c: body(c).replace('"', "'"), "found a name without double quotes (line 1 column 2)", "The body is not JSON", "Write names and strings in double quotes", status=400),
    *json_body("JSON cut short", lambda c: body(c)[:-3], "found the end of the body", "The body is not JSON", "Send all of it", status=400),
    *json_body("an empty body", lambda _: "", "The body is empty", "Expected a JSON object", "--data-binary", status=400),
    *json_body("an array as the body", lambda _: json.dumps(X), "found an array", "Expected an object", "{", status=422),
    *json_body("a row as the body", lambda _: json.dumps(objects(FEATURES)[0]), '"instances" is required, but missing', "Expected", "Send a list of rows", place={"pointer": "/instances"}),
    *json_body("instances misspelt", lambda c: body(c).replace("instances", "instance"), '"instances" is required, but missing', "Send a list of rows", '"instance" is similar', place={"pointer": "/instances"}),
    *json_body("another name for instances", lambda c: body(c).replace("instances", "inputs"), '"instances" is required, but missing', "Send a list of rows", 'Rename "inputs"', place={"pointer": "/instances"}),
    *json_body("columns for rows", lambda c: body(c, instances={name: [1, 2] for name in FEATURES}), "found an object", "Expected a list", "not of columns", place={"pointer": "/instances"}),
    *json_body("no rows", lambda c: body(c, instances=[]), "found 0", "Expected at least 1 item", "Send a list of rows", place={"pointer": "/instances"}),
    *json_body("a flat list", lambda c: body(c, instances=[1, 2, 3, 4]), "Found a flat list of 4 numbers", "expected a list of rows, each with 3 values (temp, rainfall, humidity)", "such as [[1, 2, ...]", place={"pointer": "/instances"}),
    *json_body("rows that are too short", lambda c: body(c, instances=[x[:2] for x in X]), "found 2", "Expected 3 values (temp, rainfall, humidity)", "Send as many in each row", place={"pointer": "/instances/0"}, places=1),
    *one("numbers as strings /predict", "/predict", body(FEATURES, instances=[[MARK, MARK, 1]] * 5), "found a string", "Expected a number", "Send it without quotes", place={"pointer": "/instances/0/1"}, places=2),
    *one("numbers as strings /train", "/train", body([*FEATURES, *TARGETS], instances=[[MARK, MARK, 1]] * 5, model="mistakes-new", feature_names=FEATURES, target_names=TARGETS), "Numbers sent as strings", "all values of the column", "Send them without quotes", place={"row": 1, "column": "rainfall"}, places=2),
    *one("numbers as strings for a version with numbers", "/train", body([*FEATURES, *TARGETS], instances=[[1, MARK, 1]] * 5), "found a string", "Expected a number", "Send it without quotes", place={"pointer": "/instances/0/1"}, places=1),
    *one("numbers as strings in NDJSON for a version with numbers", "/train?targets=apples,oranges", lines([], [row | {"temp": MARK} for row in objects([*FEATURES, *TARGETS])]), "found a string", "Expected numbers", "Send them without quotes", headers=NDJSON, place={"row": 1, "column": "temp"}, places=1),
    *json_body("null", lambda c: body(c, instances=[*X[:4], [1, None, 2]], missing="refuse"), "found null", "Expected a number", "or leave the row out", place={"pointer": "/instances/4/1"}),
    *json_body("NaN", lambda c: body(c, instances=[*X[:4], [1, float("nan"), 2]], missing="refuse"), "not finite", "Expected a finite number", "/instances/4/1", place={"pointer": "/instances/4/1"}),
    *both("null in NDJSON", lambda c: lines(c, [*objects(c)[:4], objects(c)[4] | {"temp": None, "humidity": "x"}]), NDJSON, "2 columns have values at fault", "Expected a number, found null", "or leave the row out", place={"row": 5, "column": "humidity"}, places=2, predict_query="missing=refuse", train=("Found a string, but row 1 has a number", "values of one kind", "or null"), train_places=1),
    *json_body("a name missing in all rows", lambda c: of_objects(c, lambda row: row.pop("temp")), '"temp" is missing', "5 fault(s) in the rows", "Add it", place={"pointer": "/instances/0"}, places=1),
    *json_body("a name misspelt in all rows", lambda c: of_objects(c, lambda row: row.update(rainfal=row.pop("rainfall"))), '"rainfall" is missing', "Expected temp, rainfall, humidity", '"rainfal" is similar. Rename it', place={"pointer": "/instances/0/rainfal"}, places=2),
    *json_body("names that are not features", lambda c: of_objects(c, lambda row: row.update(place=1, id=2)), '"id" is unknown', "Expected temp, rainfall, humidity", "(5 times)", place={"pointer": "/instances/0/id"}, places=2),
    # Options
    *one("an interval in percent", "/predict", body(FEATURES, interval=95), "found 95", "Expected a number less than 1", "For 95 %, send 0.95", place={"pointer": "/interval"}),
    *one("an option misspelt in the query", "/predict?intervall=0.9", table(FEATURES), 'no such option: "intervall"', "Known are: confidence", 'Did you mean "interval"?', headers=CSV, place={"parameter": "intervall"}),
    *one("targets misspelt in the query", "/train?target=apples", table([*FEATURES, *TARGETS]), 'no such option: "target"', "Known are: batch_size", 'Did you mean "targets"?', headers=CSV, place={"parameter": "target"}),
    *one("options beside a JSON body", "/train?targets=apples", body([*FEATURES, *TARGETS]), "found in the query", "options are expected in the body", "Move them", place={"parameter": "targets"}),
    *one("a model's name with a space", "/train", body([*FEATURES, *TARGETS], model="My Model"), "The name given breaks this rule", "A model's name has 1 to 64 of a-z", "Choose another", place={"pointer": "/model"}),
    *one("a model's name in capitals", "/train?targets=apples,oranges&model=Mine", table([*FEATURES, *TARGETS]), "The name given breaks this rule", "A model's name has 1 to 64 of a-z", "Choose another", headers=CSV, place={"parameter": "model"}),
    *one("a name that no model can have", "/models/My%20Model/predict", body(FEATURES), "There is no model", "A model's name has 1 to 64 of a-z", "GET /models lists the models", status=404),
    *one("a mode misspelt", f"/train?{TO_TRAIN}&mode=updat", table([*FEATURES, *TARGETS]), "found another value", "Expected 'replace', 'update' or 'forget'", 'Did you mean "update"?', headers=CSV, place={"parameter": "mode"}),
    *one("an option of the solver misspelt", "/train", body([*FEATURES, *TARGETS], solver={"kind": "gradient_descent", "epoch": 3}), 'no such option: "epoch"', '"epochs"', "Did you mean", place={"pointer": "/solver/epoch"}),
    *one("an option of the solver outside of it", "/train", body([*FEATURES, *TARGETS], epochs=3), 'no such option: "epochs"', "/solver", "Move it to /solver", place={"pointer": "/epochs"}),
    *one("a solver misspelt", "/train", body([*FEATURES, *TARGETS], solver={"kind": "gradient-descent"}), "as `kind` of an object", 'Expected one of "exact", "gradient_descent"', 'Did you mean "gradient_descent"?', place={"pointer": "/solver"}),
    *one("a name where a list is needed", "/train", body([*FEATURES, *TARGETS], targets="y"), "found a string", "Expected a list", "Send the targets of each row", place={"pointer": "/targets"}),
    *one("epochs as a string", "/train", body([*FEATURES, *TARGETS], solver={"kind": "gradient_descent", "epochs": "3"}), "found a string", "Expected a whole number", "Send it without quotes", place={"pointer": "/solver/epochs"}),
    # Training
    *one("fewer targets than rows", "/train", body([*FEATURES, *TARGETS], targets=Y[:-1]), "Found 4 rows of targets", "for 5 instances", "Send one for each", place={"pointer": "/targets"}),
    *one("no targets", "/train", body(FEATURES), "missing", '"targets" is required', "Send the targets of each row", place={"pointer": "/targets"}),
    *one("flat targets of two names", "/train", body([*FEATURES, *TARGETS], targets=[1, 2, 3, 4, 5]), "Found a flat list of 5 numbers", "each with 2 values (apples, oranges)", "such as [[1, 2", place={"pointer": "/targets"}),
    *one("arrays for a new model", "/train", body([*FEATURES, *TARGETS], model="mistakes-new"), "These rows are arrays", "no current version names their values", "Add `feature_names`", place={"pointer": "/feature_names"}),
    *one("a header without rows", f"/train?{TO_TRAIN}", table([*FEATURES, *TARGETS]).partition("\n")[0] + "\n", "There are no rows", "to train on", "Send at least one", headers=CSV),
    *one("one row to validate", f"/train?{TO_TRAIN}&l2=auto", "\n".join(table([*FEATURES, *TARGETS]).split("\n")[:2]), "found 1", "needs at least 2 rows", "Send more", headers=CSV),
    *one("a gap in every row", f"/train?{TO_TRAIN}&missing=drop", table([*FEATURES, *TARGETS], cells={(row, 0): "" for row in range(5)}), "In every row a value is missing", "0 complete rows for 4 coefficients", "`drop=temp` would keep 5 rows", headers=CSV),
    # Paths
    *one("GET for POST", "/predict", None, "does not support this method", "as in the Allow header: POST", "GET / lists all calls", headers={}, method="GET", status=405),
    *one("PUT for POST", "/train", body([*FEATURES, *TARGETS]), "does not support this method", "as in the Allow header: POST", "GET / lists all calls", method="PUT", status=405),
    *one("a slash at the end", "/predict/", body(FEATURES), "nothing at this path", "Did you mean /predict", "without a slash at its end", status=404),
    *one("another slash at the end", "/train/", body([*FEATURES, *TARGETS]), "nothing at this path", "Did you mean /train", "without a slash at its end", status=404),
    *one("a path in the singular", "/model/crop-yield/predict", body(FEATURES), "nothing at this path", "Did you mean /models/{model}/predict?", "GET / lists all calls", status=404),
    *one("a version before the path", "/v3/predict", body(FEATURES), "nothing at this path", "Did you mean /predict?", "GET / lists all calls", status=404),
    *one("a job's id that is none", "/jobs/12", None, "There is no such job", "The answer to POST /train has its id", "GET /jobs lists", headers={}, method="GET", status=404),
    *one("a version that is no number", "/models/crop-yield/versions/v1/predict", body(FEATURES), "found other text", "Expected a whole number", "For the current version, leave it out", place={"parameter": "version"}),
    *one("a version that is not there", "/models/crop-yield/versions/9999/predict", body(FEATURES), 'Model "crop-yield" has no version 99', "lists its versions", "GET /models/crop-yield lists its versions", status=404),
]  # fmt: skip
