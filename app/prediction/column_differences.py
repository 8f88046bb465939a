"""The columns because of which one version rejects or misreads rows that another version accepts.

A client does not know which version of a split answers, so its rows have to suit all of them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from app.data.columns.numbers import number_of
from app.data.columns.schema import Column, Dialect
from app.data.json_columns import UNSEEN, JsonColumn
from app.data.names import listed, shown
from app.registry.model_card import ModelCard


class ColumnDifference(NamedTuple):
    """A column, and why one version rejects or misreads it. The message may name levels, so it must not be logged."""

    column: str
    message: str


def column_differences(card: ModelCard, current: ModelCard) -> list[ColumnDifference]:
    """Return the columns because of which version `card` rejects or misreads rows that version `current` accepts.

    Such rows are objects, arrays or tables. They may have the columns that `current` ignores.
    """
    return list(_differences(card, current))


def _differences(card: ModelCard, current: ModelCard) -> Iterator[ColumnDifference]:
    own, other = f"Version {card.version}", f"version {current.version}"
    table, known = card.schema_of_rows, current.schema_of_rows
    columns = {column.name: column for column in table.features}
    knowns = {column.name: column for column in known.features}
    for name in columns:
        if name not in knowns:
            how = "ignores it" if name in current.ignored else "does not have it"
            yield ColumnDifference(name, f"{own} needs this column. The current {other} {how}.")
    for name in knowns:
        if name not in columns:
            how = "ignores it, so its arrays have no value for it" if name in card.ignored else "rejects it"
            yield ColumnDifference(name, f"The current {other} needs this column. {own} {how}.")
    for name in sorted(current.ignored - card.ignored - columns.keys()):
        yield ColumnDifference(name, f"The current {other} ignores this column. {own} rejects it.")
    has_same_names = columns.keys() == knowns.keys()
    places = {name: place for place, name in enumerate(knowns, 1)}
    for place, (name, column) in enumerate(columns.items(), 1):
        if name not in knowns:
            continue
        reasons = [*_reasons((column, table.dialect), (knowns[name], known.dialect), own, other)]
        if has_same_names and places[name] != place:
            reasons.append(f"In arrays, it is value {place} for {own.lower()}, and value {places[name]} for {other}.")
        if reasons:
            yield ColumnDifference(name, " ".join(reasons))


def _reasons(new: tuple[Column, Dialect], known: tuple[Column, Dialect], own: str, other: str) -> Iterator[str]:
    """Yield why version `own` rejects or misreads values of a column that version `other` accepts."""
    column, before = new[0], known[0]
    if column.kind != before.kind:
        yield f"It is a {column.kind} for {own.lower()}, and a {before.kind} for {other}."
        return
    levels = frozenset(column.levels)
    if unknown := [level for level in before.levels if level not in levels]:
        yield f"{own} does not know {'this level' if len(unknown) == 1 else 'these levels'}: {listed(unknown)}."
    fills_gaps = JsonColumn(column).fills_gaps
    if JsonColumn(before).fills_gaps and not fills_gaps:
        yield f"{own} rejects a missing value, and {other} replaces it."
    if not fills_gaps and (marks := [mark for mark in column.na if mark not in before.na and _is_value(mark, before)]):
        yield f"{own} reads {listed(marks)} as a missing value, and rejects it."
    if marks := [mark for mark in before.na if mark not in column.na]:
        yield f"{own} does not read {listed(marks)} as a missing value, as {other} does."
    if column.kind in ("number", "date"):
        yield from _reasons_in_text(new, known, own, other)


def _reasons_in_text(new: tuple[Column, Dialect], known: tuple[Column, Dialect], own: str, other: str) -> Iterator[str]:
    """Yield why version `own` rejects or misreads text of numbers or dates that version `other` accepts."""
    column, before = new[0], known[0]
    if column.refuses_strings and not before.refuses_strings:
        yield f"{own} rejects numbers that are strings."
    if _decimal(*new) != _decimal(*known) and column.decimal != before.decimal:
        yield f"The decimal sign is {shown(column.decimal)} for {own.lower()}, and {shown(before.decimal)} for {other}."
    if before.thousands not in ("", column.thousands):
        yield f"{own} rejects {shown(before.thousands)} between thousands."
    if signs := [sign for sign in before.strip if sign not in column.strip]:
        yield f"{own} rejects numbers with {listed(signs)}."
    if before.dates is not None and before.dates != column.dates:
        yield f"{own} does not read dates in the order {shown(before.dates)}, as {other} does."


def _is_value(mark: str, column: Column) -> bool:
    """Return True if a column without this mark of a missing value reads it as a value."""
    if column.kind == "number":  # The mark -999 is also the number -999, which a column that refuses strings has too.
        number = number_of(mark, column)
        return number is not None and not np.isnan(number)
    codes = JsonColumn(column).codes([mark])
    return codes is not None and not np.isnan(codes).any() and UNSEEN not in codes


def _decimal(column: Column, dialect: Dialect) -> str | None:
    """Return the decimal sign that a column has in every file, or None if it is the sign of the file."""
    return None if column.refuses_strings and column.decimal == dialect.decimal else column.decimal
