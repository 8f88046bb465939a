"""Differences between the dialects of SQL: limits, numbers, booleans, gaps and dates.

Importing this loads sqlglot.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlglot import exp

DAY_SECONDS = 86_400
DAY_MICROSECONDS = 86_400_000_000


@dataclass(frozen=True)
class Dialect:
    """A database. Its name is sqlglot's."""

    name: str
    title: str
    dates: str  # the types of a column of dates
    day: Callable[[exp.Expression], exp.Expression]  # days since 1970-01-01 UTC, a double
    max_columns: int = 10_000  # columns of a table
    max_targets: int = 10_000  # columns of a SELECT
    max_bytes: int = 16 << 20  # bytes of a statement
    name_bytes: int | None = None  # bytes of a name that the database distinguishes; None: all
    folds_case: bool = True  # True if the names of two columns may not differ only in case
    refused: str = ""  # characters that a column's name may not contain

    def number(self, value: float) -> exp.Expression:
        """Return the literal of a double, with the digits that make the same double again."""
        if self.name == "snowflake":  # Its literals are decimals.
            return as_double(exp.Literal.string(repr(value)))
        text = repr(abs(value))
        literal = exp.Literal.number(text if "e" in text else f"{text}e0")
        return exp.Neg(this=literal) if value < 0 else literal

    def numeric(self, column: exp.Expression) -> exp.Expression:
        """Return a column as doubles."""
        if self.name != "sqlite":
            return as_double(column)
        # SQLite's cast turns any text into a number.
        is_number = exp.In(
            this=exp.func("TYPEOF", column.copy()),
            expressions=[exp.Literal.string("integer"), exp.Literal.string("real")],
        )
        return exp.Case().when(is_number, as_double(column))

    def boolean(self, column: exp.Expression) -> exp.Expression:
        """Return 1 and 0, and null for everything that is neither."""
        value = column if self.name == "sqlite" else exp.cast(column, "int")
        one, zero = exp.Literal.number("1"), exp.Literal.number("0")
        return exp.Case(this=value).when(one, self.number(1.0)).when(zero, self.number(0.0))

    def without_nan(self, value: exp.Expression) -> exp.Expression:
        """Return null in place of NaN."""
        if self.name == "sqlite":  # It has no NaN.
            return value
        if self.name == "bigquery":  # NaN does not equal itself there.
            return exp.Case().when(exp.Not(this=exp.IsNan(this=value.copy())), value)
        return exp.Nullif(this=value, expression=as_double(exp.Literal.string("NaN")))

    def without_marks(self, value: exp.Expression, na: tuple[float, ...]) -> exp.Expression:
        """Return null in place of the numbers that mark a gap."""
        for mark in na:
            value = exp.Nullif(this=value, expression=self.number(mark))
        return value


def as_double(value: exp.Expression) -> exp.Expression:
    return exp.Cast(this=value, to=exp.DataType(this=exp.DataType.Type.DOUBLE))


def _epoch_day(value: exp.Expression) -> exp.Expression:
    seconds = as_double(exp.Extract(this=exp.var("EPOCH"), expression=value))
    return exp.Div(this=seconds, expression=exp.Literal.number(f"{DAY_SECONDS}e0"), typed=True)


def _sqlite_day(value: exp.Expression) -> exp.Expression:
    """Return the whole seconds and the milliseconds of a text, because SQLite's julianday has fewer digits."""

    def part(form: str) -> exp.Expression:
        return as_double(exp.Anonymous(this="STRFTIME", expressions=[exp.Literal.string(form), value.copy()]))

    fraction = exp.Paren(this=exp.Sub(this=part("%f"), expression=part("%S")))
    seconds = exp.Paren(this=exp.Add(this=part("%s"), expression=fraction))
    return exp.Div(this=seconds, expression=exp.Literal.number(f"{DAY_SECONDS}e0"), typed=True)


def _bigquery_day(value: exp.Expression) -> exp.Expression:
    moment = exp.cast(value, "timestamptz")  # TIMESTAMP there
    micros = as_double(exp.UnixMicros(this=moment))
    return exp.Div(this=micros, expression=exp.Literal.number(f"{DAY_MICROSECONDS}e0"), typed=True)


def _snowflake_day(value: exp.Expression) -> exp.Expression:
    moment = exp.cast(value, "timestampntz")
    micros = exp.Anonymous(this="DATE_PART", expressions=[exp.var("EPOCH_MICROSECOND"), moment])
    divisor = as_double(exp.Literal.string(repr(float(DAY_MICROSECONDS))))
    return exp.Div(this=as_double(micros), expression=divisor, typed=True)


_TYPED_DATES = "DATE or TIMESTAMP, in UTC"

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("duckdb", "DuckDB", _TYPED_DATES, _epoch_day),
        Dialect(
            "sqlite", "SQLite", "text in ISO 8601, to the millisecond", _sqlite_day, 2_000, 2_000, max_bytes=1_000_000
        ),
        Dialect("postgres", "PostgreSQL", _TYPED_DATES, _epoch_day, 1_600, 1_664, name_bytes=63, folds_case=False),
        Dialect(
            "bigquery",
            "BigQuery",
            "DATE, DATETIME or TIMESTAMP",
            _bigquery_day,
            max_bytes=1_000_000,
            refused='!"$()*,./;?@[\\]^`{}~',
        ),
        Dialect(
            "snowflake",
            "Snowflake",
            "DATE or TIMESTAMP_NTZ, in UTC",
            _snowflake_day,
            max_bytes=1_000_000,
            folds_case=False,
        ),
    )
}
