"""Training rows of columns of numbers, as tests of formats and groups need them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.data.columns.schema import PLAIN, Column, Dialect, TableSchema
from app.data.training_rows import TrainingRows


def number_rows(
    path: Path,
    format_name: str,
    features: Sequence[str],
    targets: Sequence[str],
    weight: str | None = None,
    *,
    drop_missing: bool = False,
    dialect: Dialect = PLAIN,
    **options: Any,
) -> TrainingRows:
    """Return the rows of a file. A gap leaves its row out with `drop_missing`, and is otherwise refused."""

    def column(given: Column) -> Column:
        return given if drop_missing else replace(given, missing="refuse")

    schema = TableSchema.of_numbers(features, targets, weight)
    schema = replace(
        schema,
        features=tuple(map(column, schema.features)),
        targets=tuple(map(column, schema.targets)),
        weight=schema.weight and column(schema.weight),
        dialect=dialect,
    )
    return TrainingRows(path, format_name, schema, **options)
