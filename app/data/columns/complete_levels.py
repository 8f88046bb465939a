"""Find the levels that occur only in incomplete rows, because their indicators would be columns of zeros."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from app.data.batch import CellBatch
from app.data.columns.booleans import booleans_of
from app.data.columns.categories import GAP, codes_of, levels_of
from app.data.columns.dates import dates_of
from app.data.columns.kinds import Decided
from app.data.columns.numbers import numbers_of
from app.data.columns.schema import Column, TableSchema
from app.data.lazy_pyarrow import pa

NO_ROWS = (
    "The level that `reference` gives for column {} occurs only in rows that are left out because of gaps. Choose "
    "another."
)

_OF_CELLS = {"number": numbers_of, "boolean": booleans_of, "date": dates_of}


def rare_levels(schema: TableSchema, decided: Mapping[str, Decided]) -> dict[str, set[str]]:
    """Return the levels of each category that have no more rows than there are gaps, and so may have no complete row.

    Levels without rows, such as the constant for gaps, are not included.
    """
    gaps = sum(decided[column.name].gaps for column in schema.numbers if leaves_out(column))
    rare = {}
    for column in schema.features:
        if column.kind == "category":
            counts = decided[column.name].profile.texts.levels
            rare[column.name] = {level for level in column.levels if 0 < counts.get(level, 0) <= gaps}
    return {name: levels for name, levels in rare.items() if levels}


def levels_without_rows(
    batches: Iterable[CellBatch], schema: TableSchema, levels: Mapping[str, set[str]]
) -> dict[str, set[str]]:
    """Return those `levels` that occur in no complete row. Ends when all are found."""
    left = {name: {*levels[name]} for name in levels}
    columns = [column for column in schema.numbers if column.name in left or leaves_out(column)]
    for batch in batches:
        complete = np.ones(batch.cells.num_rows, dtype=bool)
        codes = {}
        for column in columns:
            cells = batch.cells.column(column.name)
            if column.kind == "category":
                codes[column.name] = codes_of(levels_of(cells, column), column.levels)
            if leaves_out(column):
                complete &= ~_gaps(cells, column) if column.kind != "category" else codes[column.name] != GAP
        for name, rest in left.items():
            column = schema.column(name) or Column(name)
            present = np.unique(codes[name][complete]).tolist()
            rest.difference_update(column.levels[code] for code in present if code >= 0)
        left = {name: rest for name, rest in left.items() if rest}
        if not left:
            break
    return left


def leaves_out(column: Column) -> bool:
    """Return True if a gap in the column leaves its row out."""
    return column.missing not in ("indicator", "fill")


def _gaps(cells: "pa.Array", column: Column) -> NDArray[np.bool_]:
    return np.isnan(_OF_CELLS[column.kind](cells, column).values)


def without_levels(column: Column, levels: Iterable[str]) -> Column:
    """Return a category without some levels. If the reference is among them, the first of the others replaces it."""
    without = {*levels}
    return replace(column, levels=tuple(level for level in column.levels if level not in without))
