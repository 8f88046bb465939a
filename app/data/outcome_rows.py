"""Read rows of outcomes: the id of a prediction, and the targets that are known."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from app.data.batch import Array, Columns, Source
from app.data.columns.dialect import with_thousands
from app.data.columns.encoder import Notes
from app.data.columns.options import ReadingOptions
from app.data.columns.schema import Column, Dialect
from app.data.content import explained
from app.data.encoded_table import ColumnsToEncode, as_sent, encoded_batches
from app.data.formats.base import TableFormat
from app.data.json_encoder import JsonEncoder
from app.data.json_faults import MAX_DETAILS, escaped, kind_of
from app.data.names import MAX_LISTED, did_you_mean, listed, shown
from app.data.prediction_ids import PREDICTION_ID, PredictionIds, ids_of_column
from app.errors import FieldError, InvalidInput


class OutcomeColumns(NamedTuple):
    """The columns that rows of outcomes may have."""

    targets: Sequence[Column]
    others: frozenset[str] = frozenset()  # Features, and other columns that are not read.
    ids: str = PREDICTION_ID

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.targets]


class OutcomeBatch(NamedTuple):
    """Some rows."""

    ids: list[str]
    targets: list[str]
    values: Array  # (n, k); NaN for a value that is not known yet.


def outcomes_of_json(rows: Sequence[Any], columns: OutcomeColumns, pointer: str) -> OutcomeBatch:
    """Return decoded rows, objects with an id and any of the targets. Raises InvalidInput with the places of faults."""
    _check_objects(rows, columns, pointer)
    ids = PredictionIds(
        lambda index, text: FieldError(text, pointer=f"{pointer}/{index}/{columns.ids}"), distinct=False
    )
    ids.add(row[columns.ids] for row in rows)
    present = [column for column in columns.targets if any(column.name in row for row in rows)]
    if not present:
        return OutcomeBatch(ids.ids, [], np.empty((len(rows), 0)))
    names = [column.name for column in present]
    encoder = JsonEncoder([_as_outcome(column) for column in present])
    complete = [{name: row.get(name) for name in names} for row in rows]
    codes, _ = encoder.read(complete, pointer, missing=True, unknown="null")
    return OutcomeBatch(ids.ids, names, codes)


def outcomes_of_file(
    content: Source, table_format: TableFormat, columns: OutcomeColumns, reading: ReadingOptions, known: Dialect
) -> Iterator[OutcomeBatch]:
    """Yield the rows of a file. Raises InvalidInput with the places of faults."""
    with explained(content, table_format):
        dialect = table_format.dialect(content, with_thousands(reading, columns.targets), known)
    with explained(content, table_format, dialect):
        lines = table_format.first_lines(content)
        present = [*lines] or table_format.column_names(content, dialect)
    _check_columns(present, columns)
    decimals = {known.decimal: dialect.decimal} if table_format.has_untyped_text else {}
    targets = [
        as_sent(_as_outcome(column), reading, decimals.get(column.decimal, column.decimal))
        for column in columns.targets
        if column.name in present
    ]
    names = [column.name for column in targets]
    read = Columns(
        names,
        [columns.ids],
        missing=True,
        dialect=dialect,
        training=False,
        late={name: line for name, line in lines.items() if line > 1},
    )
    first_row = table_format.first_row(dialect)
    ids = PredictionIds(lambda index, text: FieldError(text, row=first_row + index, column=columns.ids), distinct=False)
    encode = ColumnsToEncode(targets, [columns.ids])
    for batch in encoded_batches(content, table_format, read, encode, Notes()):
        assert batch.kept is not None
        ids.add(ids_of_column(batch.kept.column(columns.ids), columns.ids))
        yield OutcomeBatch(ids.ids, names, batch.values)
        first_row += len(ids.ids)
        ids.ids = []


def _as_outcome(column: Column) -> Column:
    """Return a target as a column whose gaps are values that are not known yet."""
    return replace(column, missing="drop", fill=None)


def _check_objects(rows: Sequence[Any], columns: OutcomeColumns, pointer: str) -> None:
    """Raise InvalidInput with the places of rows that are not objects, lack an id, or have an unknown name."""
    known = {columns.ids, *columns.names, *columns.others}
    expected = f"Expected `{columns.ids}` and targets: {listed(columns.names)}"
    details = []
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            details.append(FieldError(f"{expected}, in an object; found {kind_of(row)}.", pointer=f"{pointer}/{index}"))
        elif columns.ids not in row:
            details.append(FieldError(f"`{columns.ids}` is missing. Add it.", pointer=f"{pointer}/{index}"))
        elif unknown := next((name for name in row if name not in known), None):
            message = f"{shown(unknown)} is not a target.{did_you_mean(unknown, columns.names)} {expected}."
            place = f"/{escaped(unknown)}" if unknown.isprintable() and len(unknown) < MAX_LISTED * 10 else ""
            details.append(FieldError(message, pointer=f"{pointer}/{index}{place}"))
        if len(details) == MAX_DETAILS:
            break
    if details:
        raise InvalidInput(f"Not all rows are outcomes. {details[0].pointer}: {details[0].message}", details)


def _check_columns(present: Sequence[str], columns: OutcomeColumns) -> None:
    """Raise InvalidInput if a file has no ids, no target, or a column that is neither."""
    expected = f"Expected {shown(columns.ids)} and targets: {listed(columns.names)}."
    if columns.ids not in present:
        message = f"The column {shown(columns.ids)} with the ids is missing. {expected}"
        raise InvalidInput(message, [FieldError(message, column=columns.ids)])
    known = {columns.ids, *columns.names, *columns.others}
    if unknown := [name for name in present if name not in known]:
        details = [
            FieldError(f"{shown(name)} is not a target.{did_you_mean(name, columns.names)}", column=name)
            for name in unknown[:MAX_LISTED]
        ]
        raise InvalidInput(f"{details[0].message} {expected}", details)
    if not set(columns.names).intersection(present):
        raise InvalidInput(f"The file has no column of a target. {expected}")
