"""The schema of a table in responses: the kind of each column, its levels, and how its cells are read."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from app.data.columns.options import DateOrder, GapPolicy, Kind
from app.data.columns.schema import Column, Dialect, LeftOut, TableSchema
from app.web.schemas.openapi_schema import Schema

UNIT_OF_DATES = "days since 1970-01-01 UTC"


class ColumnFields(Schema):
    name: str
    kind: Kind
    unit: str | None
    """Unit of a date; null for other kinds."""
    reference: str | None
    """The level of a category with which the others are compared; null for other kinds."""
    gaps: int | None
    """Number of cells without a value in the rows of the job. Null if the version was imported."""
    missing: GapPolicy
    """What is done with a gap."""
    fill: float | str | None
    """Constant in place of a gap; null if there is none."""
    decimal: str
    thousands: str
    na: list[str]
    """Texts that mark a gap, in addition to those that always do."""
    strip: list[str]
    """Signs that are removed before or after a number."""
    dates: DateOrder | None
    """Order of day, month and year; null if the dates are in ISO 8601 or have the name of the month."""


class ColumnView(ColumnFields):
    """One column of a table, and how its cells become numbers."""

    levels: list[str]
    """Levels of a category; empty for other kinds."""


class LeftOutView(Schema):
    name: str
    reason: Literal["index", "identifier", "drop"]


class DialectView(Schema):
    """How the text of a file is divided into cells."""

    sep: str
    decimal: str
    encoding: str
    header: str | None
    skip: int
    sheet: int | str | None


class TableView(Schema):
    """The columns of the rows that a version was trained on. It is applied to every later table of the model."""

    features: list[ColumnView]
    targets: list[ColumnView]
    weight: ColumnView | None
    left_out: list[LeftOutView]
    """Columns of the training rows that are not used, and why."""
    dialect: DialectView
    rows: int | None
    """Rows sent for the version and for those that it updates. 0 if not recorded. Null if the version was imported."""
    incomplete_rows: int | None
    """Those that were left out because of a gap. Null as `rows`."""


class VersionSchema(TableView):
    """The schema of a version, by itself."""

    model: str
    version: int
    columns: list[str]
    """Columns of the design, each of which has a coefficient."""


def table_to_view(table: TableSchema, gaps: Mapping[str, int]) -> dict[str, Any]:
    """Return the table as TableView describes it. `gaps` has the number of gaps by column with any."""
    return {
        "features": [column_to_view(column, gaps) for column in table.features],
        "targets": [column_to_view(column, gaps) for column in table.targets],
        "weight": None if table.weight is None else column_to_view(table.weight, gaps),
        "left_out": [_fields(column, LeftOut) for column in table.left_out],
        "dialect": dialect_to_view(table.dialect),
        "rows": table.rows,
        "incomplete_rows": table.incomplete_rows,
    }


def column_to_view(column: Column, gaps: Mapping[str, int]) -> dict[str, Any]:
    return {
        **_fields(column, Column),
        "unit": UNIT_OF_DATES if column.kind == "date" else None,
        "reference": column.levels[0] if column.levels else None,
        "gaps": gaps.get(column.name, 0),
    }


def dialect_to_view(dialect: Dialect) -> dict[str, Any]:
    return {name: getattr(dialect, name) for name in DialectView.model_fields}


def _fields(value: Any, made: type[Any]) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(made)}
