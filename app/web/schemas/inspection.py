"""The response of POST /inspect: what a training would find in a file."""

from itertools import islice
from typing import Any, Literal

from pydantic import Field

from app.data.columns.kinds import Decided
from app.data.columns.schema import Column
from app.data.formats import BY_NAME
from app.training.inspection import Inspection
from app.web.query import Rows
from app.web.schemas.openapi_schema import Schema
from app.web.schemas.tables import ColumnFields, DialectView, LeftOutView, column_to_view, dialect_to_view
from app.web.schemas.train import TrainRequest

MAX_SHOWN_LEVELS = 20


class InspectRequest(TrainRequest):
    """Rows, and their targets if there are any, as POST /train takes them."""

    targets: Rows = Field(default_factory=list)


class InspectedColumn(ColumnFields):
    """A column of the file, and the kind and the values of its cells."""

    role: Literal["feature", "target", "weight"]
    levels: dict[str, int]
    """Number of rows with each of the first levels of a category, at most 20, the reference level first."""
    level_count: int | None
    """Number of levels of a category."""
    minimum: float | None
    """Lowest value; null for a category, and if there is none."""
    maximum: float | None
    design_columns: int
    """Number of columns of the design that are made from this one. 0 for a target and a weight."""


class InspectView(Schema):
    """The columns of a file, as a training would read them. Nothing is stored."""

    format: str
    rows: int
    dialect: DialectView
    columns: list[InspectedColumn]
    left_out: list[LeftOutView]
    """Columns that would not be used, and why."""
    design_columns: int
    """Number of coefficients of each target, without the intercept."""
    model: str | None
    """The model whose current version the file was compared with; null if there was none."""
    version: int | None
    differences: list[str]
    """Differences between the file and that version."""
    warnings: list[str]


def inspection_to_view(inspection: Inspection, model: str | None, version: int | None) -> dict[str, Any]:
    """Return the inspection as InspectView describes it."""
    schema = inspection.schema
    columns = [
        *(_column(column, inspection.columns[column.name], "feature") for column in schema.features),
        *(_column(column, inspection.columns[column.name], "target") for column in schema.targets),
    ]
    if schema.weight is not None:
        columns.append(_column(schema.weight, inspection.columns[schema.weight.name], "weight"))
    return {
        "format": BY_NAME[inspection.request.format].label,
        "rows": inspection.rows,
        "dialect": dialect_to_view(schema.dialect),
        "columns": columns,
        "left_out": [{"name": column.name, "reason": column.reason} for column in schema.left_out],
        "design_columns": inspection.design_columns,
        "model": model,
        "version": version,
        "differences": inspection.differences,
        "warnings": inspection.warnings,
    }


def _column(column: Column, found: Decided, role: str) -> dict[str, Any]:
    counts = found.profile.texts.levels
    is_category = column.kind == "category"
    minimum, maximum = (None, None) if is_category or found.range is None else found.range
    return {
        **column_to_view(column, {column.name: found.gaps}),
        "role": role,
        "levels": {level: counts.get(level, 0) for level in islice(column.levels, MAX_SHOWN_LEVELS)},
        "level_count": len(column.levels) if is_category else None,
        "minimum": minimum,
        "maximum": maximum,
        "design_columns": len(column.encoded_names) if role == "feature" else 0,
    }
