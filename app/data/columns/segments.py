"""Segments: rows that have the same value in one column, whose values are read as the levels of a category."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.columns.categories import level_of, levels_of
from app.data.columns.schema import Column, TableSchema
from app.data.json_faults import escaped
from app.data.lazy_pyarrow import pa
from app.data.names import shown
from app.errors import InvalidInput

MAX_LABEL = 100  # Characters of a value that are shown. Values with the same beginning are one segment.


def segment_column(name: str, table: TableSchema) -> Column:
    """Return the column whose values are the segments: as the schema reads its gaps, or a new one."""
    known = next((column for column in table.features if column.name == name), Column(name))
    return replace(known, kind="category", levels=())


def segments_of_cells(cells: "pa.Array", column: Column) -> tuple[list[str | None], NDArray[np.intp]]:
    """Return the values that may occur in the cells, None for a gap, and the index of each cell's value, (n,).

    Raises InvalidInput if no value of the type is a level.
    """
    try:
        levels = levels_of(cells, column)
    except TypeError:
        raise _not_levels(column.name) from None
    labels = [None if text is None else text[:MAX_LABEL] for text in levels.dictionary.to_pylist()]
    codes = levels.indices.fill_null(len(labels)).to_numpy(zero_copy_only=False).astype(np.intp)
    return [*labels, None], codes


def segments_of_rows(
    rows: Sequence[Any], column: Column, place: int | None, pointer: str
) -> tuple[list[str | None], NDArray[np.intp]]:
    """Return the values in rows decoded from JSON, and the index of each row's value, (n,).

    `place` is that of the column in rows that are arrays, if they have it. Raises InvalidInput.
    """
    indices: dict[str | None, int] = {}
    codes = np.empty(len(rows), dtype=np.intp)
    for index, row in enumerate(rows):
        at = f"{pointer}/{index}"
        if isinstance(row, dict):
            if column.name not in row:
                raise InvalidInput.at(at, f"The row has no value {shown(column.name)}, which `by` names. Add it.")
            value, at = row[column.name], f"{at}/{escaped(column.name)}"
        elif place is not None:
            value = row[place] if isinstance(row, list) and place < len(row) else row
        else:
            message = f"Rows that are arrays have no column {shown(column.name)}. Send objects, or a feature in `by`."
            raise InvalidInput.of_parameter("by", message)
        try:
            level = level_of(value, column)
        except TypeError:
            raise InvalidInput.at(at, "Expected a string, a number, a boolean or null.") from None
        codes[index] = indices.setdefault(None if level is None else level[:MAX_LABEL], len(indices))
    return [*indices], codes


def _not_levels(name: str) -> InvalidInput:
    message = f"The values of {shown(name)} are not segments. Expected a column of words, numbers, booleans or dates."
    return InvalidInput.of_parameter("by", message)
