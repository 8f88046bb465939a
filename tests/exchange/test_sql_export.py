"""Statements of SQL: every kind of column, hostile names, wide models, and what a database cannot run."""

import re
import sqlite3
from collections.abc import Callable, Mapping
from functools import partial

import duckdb
import numpy as np
import pytest
import sqlglot
from export_runs import (
    Array,
    Rows,
    predictions_of_duckdb,
    predictions_of_postgres,
    predictions_of_sqlite,
    predictions_transpiled,
)
from exported import TABLES, assert_as_served, rows_with_gaps, served, version_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import version_of_table
from postgres import Postgres
from sqlglot import exp

from app.data.columns.schema import Column, TableSchema
from app.errors import InvalidInput, NotExportable
from app.exchange import EXPORTS
from app.exchange.imported import ImportedModel
from app.exchange.portable import PortableModel
from app.exchange.publishing import to_version
from app.exchange.sql.writer import MAX_WEIGHTS, SqlExport
from app.registry.origin import Imported
from app.registry.version_file import Version

RUNS: Mapping[str, Callable[[bytes, Version, Rows], Array]] = {
    "duckdb": predictions_of_duckdb,
    "sqlite": predictions_of_sqlite,
    "bigquery": partial(predictions_transpiled, dialect="bigquery"),
    "snowflake": partial(predictions_transpiled, dialect="snowflake"),
}
DIALECTS = SqlExport().options["dialect"]


def sql(version: Version, dialect: str = "duckdb", table: str = "") -> bytes:
    return SqlExport().write(version, {"dialect": dialect, "table": table})


def of_coefficients(table: TableSchema, coef: np.ndarray, intercept: np.ndarray) -> Version:
    """Return a version without statistics."""
    return to_version(ImportedModel(PortableModel(table, coef, intercept)), "model", Imported("json", "coefficients"))


def wide(columns: int, targets: int = 1, prefix: str = "x") -> Version:
    rng = np.random.default_rng(0)
    table = TableSchema.of_numbers([f"{prefix}{i}" for i in range(columns)], [f"y{i}" for i in range(targets)])
    return of_coefficients(table, rng.normal(size=(targets, columns)), rng.normal(size=targets))


@pytest.mark.parametrize("dialect", RUNS)
@pytest.mark.parametrize("name", TABLES)
def test_every_kind_of_column_is_treated_as_the_service_treats_it(name: str, dialect: str) -> None:
    version = version_of(name)
    rows = rows_with_gaps(version)
    assert_as_served(RUNS[dialect](sql(version, dialect), version, rows), version, rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_postgres_treats_every_kind_of_column_as_the_service_does(name: str, postgres: Postgres) -> None:
    version = version_of(name)
    rows = rows_with_gaps(version)
    found = predictions_of_postgres(sql(version, "postgres"), version, rows, postgres.new_database())
    assert_as_served(found, version, rows)


@pytest.mark.parametrize("dialect", ["duckdb", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_a_statement_of_2000_columns_is_not_too_deep(dialect: str) -> None:
    version = wide(2000)
    rows = [dict(zip(version.card.features, row, strict=True)) for row in np.eye(2000)[:3].tolist()]
    found = RUNS[dialect](sql(version, dialect), version, rows)
    assert np.abs(found - served(version, rows)).max() <= 1e-12


@pytest.mark.slow
def test_postgres_runs_a_statement_of_900_columns(postgres: Postgres) -> None:
    version = wide(900)
    rows = [dict(zip(version.card.features, row, strict=True)) for row in np.eye(900)[:3].tolist()]
    found = predictions_of_postgres(sql(version, "postgres"), version, rows, postgres.new_database())
    assert np.abs(found - served(version, rows)).max() <= 1e-12


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
PRINTABLE = TEXT.filter(str.isprintable)


@given(
    st.lists(PRINTABLE, min_size=4, max_size=4, unique_by=str.lower).filter(lambda names: "intercept" not in names),
    st.lists(TEXT.filter(str.strip), min_size=2, max_size=4, unique=True),
)
def test_names_and_levels_cannot_leave_their_quotes(names: list[str], levels: list[str]) -> None:
    number, category, target, table = names[0], names[1], f"{names[2]}_", names[3]  # not a name that cards reserve
    schema = TableSchema((Column(number), Column(category, "category", tuple(levels))), (Column(target),))
    version = of_coefficients(schema, np.arange(1.0, len(levels) + 1)[np.newaxis], np.zeros(1))
    rows = [{number: 2.0, category: level} for level in levels]
    assert_close = partial(np.testing.assert_array_equal, desired=served(version, rows))
    assert_close(predictions_of_duckdb(sql(version), version, rows))
    assert_close(predictions_of_sqlite(sql(version, "sqlite"), version, rows))
    for dialect in DIALECTS:
        try:
            content = sql(version, dialect, table.replace(".", "_")).decode()
        except NotExportable:
            assert dialect == "bigquery"
            continue
        (statement,) = sqlglot.parse(content, read=dialect)
        assert isinstance(statement, exp.Select)
        assert {column.name for column in statement.find_all(exp.Column)} == {number, category}
        assert [column.alias for column in statement.expressions] == [target]
        assert {literal.this for literal in statement.find_all(exp.Literal) if literal.is_string} >= {*levels}


@settings(max_examples=15)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_numbers_keep_all_their_digits(numbers: list[float]) -> None:
    names = [f"x{index}" for index in range(len(numbers))]
    version = of_coefficients(TableSchema.of_numbers(names, ["y"]), np.array([numbers]), np.zeros(1))
    rows = [{name: float(name == one) for name in names} for one in names]
    assert predictions_of_duckdb(sql(version), version, rows)[:, 0].tolist() == numbers


def test_a_prediction_of_whole_numbers_is_not_an_integer_division() -> None:
    version = version_of_table(TableSchema((Column("a"), Column("b")), (Column("y"),)))
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE rows (a INTEGER, b INTEGER)")
    connection.execute("INSERT INTO rows VALUES (3, 7)")
    ((found,),) = connection.execute(sql(version, "sqlite").decode()).fetchall()
    connection.close()
    with duckdb.connect() as database:
        database.execute("CREATE TABLE rows AS SELECT 3::TINYINT AS a, 7::DECIMAL(4, 1) AS b")
        ((other,),) = database.execute(sql(version).decode()).fetchall()
    assert found == other == served(version, [{"a": 3, "b": 7}])[0, 0]


def test_text_in_a_column_of_numbers_is_null_in_sqlite() -> None:
    version = version_of("numbers")
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE rows (a, b)")
    connection.execute("INSERT INTO rows VALUES ('12 apples', 1.0)")
    assert connection.execute(sql(version, "sqlite").decode()).fetchall() == [(None, None)]
    connection.close()


def test_a_column_that_does_not_exist_is_an_error_in_sqlite() -> None:
    """SQLite takes an unknown name in quotes for a text, unless the name of the table is before it."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE rows (a)")
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        connection.execute(sql(version_of("numbers"), "sqlite").decode())
    connection.close()


def test_the_table_may_be_in_a_schema() -> None:
    content = sql(version_of("numbers"), "postgres", 'my "schema".Rows').decode()
    assert content.rstrip().endswith('FROM "my ""schema"""."Rows" AS r;')
    for name in ("a..b", ".", "a.b.c.d", "a\nb"):
        with pytest.raises(InvalidInput, match="name of a table"):
            sql(version_of("numbers"), "duckdb", name)


def test_the_comment_says_what_is_not_carried() -> None:
    version, export = version_of("every kind"), SqlExport()
    head = re.findall("^-- (.*)$", sql(version).decode(), re.MULTILINE)
    assert set(export.not_carried(version)) < set(head)
    assert "Columns of dates are DATE or TIMESTAMP, in UTC." in head
    assert all(sentence.isascii() for one in EXPORTS for sentence in one.not_carried(version))


@pytest.mark.parametrize(
    ("dialect", "features", "target", "message"),
    [
        ("duckdb", ("a", "A"), "y", 'DuckDB does not distinguish some names, such as "a" and "A"'),
        ("sqlite", ("Ab", "aB"), "y", "SQLite does not distinguish"),
        ("postgres", ("x" * 63 + "1", "x" * 63 + "2"), "y", "PostgreSQL does not distinguish"),
        (
            "bigquery",
            ("Body Mass (g)",),
            "y",
            r'BigQuery has no columns with the character \(, as in "Body Mass \(g\)"',
        ),
        ("bigquery", ("x",), "a.b", "BigQuery has no columns with the character"),
    ],
)
def test_names_that_a_database_cannot_have_are_refused(
    dialect: str, features: tuple[str, ...], target: str, message: str
) -> None:
    table = TableSchema.of_numbers(features, [target])
    version = of_coefficients(table, np.ones((1, len(features))), np.zeros(1))
    with pytest.raises(NotExportable, match=message):
        sql(version, dialect)
    assert sql(version, "snowflake")


def test_a_level_with_a_nul_is_refused() -> None:
    schema = TableSchema((Column("c", "category", ("a", "b\0")),), (Column("y"),))
    with pytest.raises(NotExportable, match="NUL"):
        sql(of_coefficients(schema, np.ones((1, 1)), np.zeros(1)))


@pytest.mark.parametrize(
    ("version", "dialect", "message"),
    [
        (wide(2000, 11), "duckdb", rf"A statement has at most {MAX_WEIGHTS:,} weights, and this model needs 22,000"),
        (wide(1601), "postgres", "A table in PostgreSQL has at most 1,600 columns"),
        (wide(1, 1700), "postgres", "A SELECT in PostgreSQL has at most 1,664 columns"),
        pytest.param(
            wide(900, 3, "x" * 120),
            "sqlite",
            "A statement for SQLite has at most 1,000,000 bytes",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_model_that_is_too_large_for_a_database_is_refused(version: Version, dialect: str, message: str) -> None:
    with pytest.raises(NotExportable, match=message):
        sql(version, dialect)
