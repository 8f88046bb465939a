"""Run exported models as their users do: databases, PyTorch, plain Python and a workbook.

Each function takes the file, the version and rows as JSON has them. It returns the predictions, (n, k), NaN for null.
"""

import json
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import numpy as np
import psycopg
import pyarrow as pa
import pytest
import sqlglot
from numpy.typing import NDArray
from psycopg import sql as postgres_sql

from app.data.columns.dates import date_of
from app.data.columns.schema import Column
from app.registry.version_file import Version
from app.regression.terms import expand, parse_terms

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = Sequence[Mapping[str, Any]]

_ARROW = {"number": pa.float64(), "boolean": pa.bool_(), "date": pa.timestamp("us"), "category": pa.string()}
_POSTGRES = {"number": "double precision", "boolean": "boolean", "date": "timestamp", "category": "text"}
_SQLITE = {"number": "REAL", "boolean": "INTEGER", "date": "TEXT", "category": "TEXT"}

# Read a file's function, and write a prediction for each row of JSON on the standard input.
_PROGRAM = """
import json, runpy, sys
predict = runpy.run_path(sys.argv[1])["predict"]
json.dump([list(predict(row).values()) for row in json.load(sys.stdin)], sys.stdout)
"""


def as_array(rows: Iterable[Sequence[float | None]], targets: int) -> Array:
    return np.array([[np.nan if value is None else value for value in row] for row in rows]).reshape(-1, targets)


def moment(value: Any, column: Column) -> datetime | None:
    """Return a date of JSON as a moment in UTC without a zone."""
    days = date_of(value, column)
    if days is None or np.isnan(days):
        return None
    return datetime(1970, 1, 1) + timedelta(microseconds=round(days * 86_400_000_000))  # noqa: DTZ001 - UTC


def typed(column: Column, rows: Rows) -> list[Any]:
    """Return the values of a feature as a database has them."""
    values = [row[column.name] for row in rows]
    return [moment(value, column) for value in values] if column.kind == "date" else values


def predictions_of_duckdb(content: bytes, version: Version, rows: Rows) -> Array:
    columns = version.table.features
    table = pa.table(
        [pa.array(typed(column, rows), _ARROW[column.kind]) for column in columns],
        names=[column.name for column in columns],
    )
    with duckdb.connect() as connection:
        connection.register("rows", table)
        found = connection.execute(content.decode()).fetchall()
    return as_array(found, len(version.card.targets))


def predictions_of_sqlite(content: bytes, version: Version, rows: Rows) -> Array:
    columns = version.table.features
    names = ", ".join(f"{_quoted(column.name)} {_SQLITE[column.kind]}" for column in columns)
    values = [
        [value if value is None else value.isoformat() for value in typed(column, rows)]
        if column.kind == "date"
        else typed(column, rows)
        for column in columns
    ]
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(f"CREATE TABLE rows ({names})")
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO rows VALUES ({marks})", list(zip(*values, strict=True)))  # noqa: S608
        found = connection.execute(content.decode()).fetchall()
    finally:
        connection.close()
    return as_array(found, len(version.card.targets))


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def predictions_of_postgres(content: bytes, version: Version, rows: Rows, url: str) -> Array:
    """Create the table `rows` in an empty database, and run the statement there."""
    columns = version.table.features
    definitions = postgres_sql.SQL(", ").join(
        postgres_sql.SQL("{} {}").format(
            postgres_sql.Identifier(column.name),
            postgres_sql.SQL(_POSTGRES[column.kind]),
        )
        for column in columns
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(postgres_sql.SQL("CREATE TABLE rows ({})").format(definitions))
        with connection.cursor().copy("COPY rows FROM STDIN") as copy:
            for row in zip(*(typed(column, rows) for column in columns), strict=True):
                copy.write_row(row)
        found = connection.execute(content).fetchall()
        connection.execute("DROP TABLE rows")
    return as_array(found, len(version.card.targets))


def predictions_transpiled(content: bytes, version: Version, rows: Rows, dialect: str) -> Array:
    """Read a statement as sqlglot reads a dialect of a database that does not run here, and run it in DuckDB."""
    (statement,) = sqlglot.transpile(content.decode(), read=dialect, write="duckdb")
    return predictions_of_duckdb(statement.encode(), version, rows)


def predictions_of_python(content: bytes, version: Version, rows: Rows, folder: Path) -> Array:
    """Run the function in an isolated Python, which has nothing but the standard library on its path."""
    program = folder / "predict.py"
    program.write_bytes(content)
    columns = {column.name: typed(column, rows) for column in version.table.features}
    values = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _PROGRAM, str(program)],
        input=json.dumps(values, default=datetime.isoformat),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return as_array(json.loads(run.stdout), len(version.card.targets))


def predictions_of_torch(content: bytes, version: Version, rows: Rows) -> Array:
    """Load the state_dict into nn.Linear, and give it the encoded columns."""
    import torch
    from safetensors.torch import load

    state = load(content)
    targets, columns = state["weight"].shape
    layer = torch.nn.Linear(columns, targets, dtype=torch.float64)
    layer.load_state_dict(state)
    x = encoded(version, rows)
    with torch.no_grad():
        return np.asarray(layer(torch.from_numpy(x)).numpy())


def encoded(version: Version, rows: Rows) -> Array:
    """Return the columns of the model for rows, NaN in rows that have no prediction."""
    columns = version.encoder.columns
    parts = []
    missing = np.zeros(len(rows), dtype=bool)
    for column in columns:
        codes = column.codes([row[column.column.name] for row in rows])
        assert codes is not None
        column.completed(codes, "null")
        missing |= np.isnan(codes)
        part = np.empty((len(rows), column.width))
        column.write(codes, part)
        parts.append(part)
    x = np.hstack(parts)
    if version.card.terms:
        x = expand(x, parse_terms(version.card.encoded_terms, version.card.encoded_features))
    x[missing] = np.nan
    return x


def predictions_of_workbook(content: bytes, version: Version, rows: Rows, folder: Path) -> Array:
    """Compute the workbook's formulas with each row in the cells of the input."""
    formulas = pytest.importorskip("formulas")
    pytest.importorskip("openpyxl")
    path = folder / "model.xlsx"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the evaluator's own dependencies
        book = formulas.ExcelModel().loads(str(path)).finish()
        inputs = [f"'[model.xlsx]PREDICT'!B{row}" for row, _ in enumerate(version.table.features, 5)]
        outputs = [f"'[model.xlsx]PREDICT'!F{row}" for row, _ in enumerate(version.card.targets, 5)]
        predict = book.compile(inputs=inputs, outputs=outputs)
        found = []
        for row in zip(*(_cells(column, rows) for column in version.table.features), strict=True):
            solution = predict(*row)
            values = [cell.value[0, 0] for cell in (solution if len(outputs) > 1 else [solution])]
            found.append([None if value == "" else float(value) for value in values])
    return as_array(found, len(version.card.targets))


def _cells(column: Column, rows: Rows) -> list[Any]:
    """Return the values of a feature as cells have them: an empty text for a gap, and a serial number for a date."""
    values = [row[column.name] for row in rows]
    if column.kind == "date":
        days = [date_of(value, column) for value in values]
        return ["" if day is None or np.isnan(day) else day + 25_569 for day in days]
    return ["" if value is None else value for value in values]
