"""The inferred schema of a table that no version describes: the columns that are used, their kinds, and warnings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from app.data.batch import in_columns
from app.data.columns.gap_policy import of_target, with_gap_policy
from app.data.columns.kinds import Decided, KindFault, decide
from app.data.columns.limits import check_design, check_levels
from app.data.columns.notes import Notes
from app.data.columns.options import ReadingOptions
from app.data.columns.profile import ColumnProfile, TableProfile
from app.data.columns.roles import Roles
from app.data.columns.schema import Column, Dialect, LeftOut, TableSchema
from app.data.columns.text_profile import DATE_ORDERS
from app.data.names import listed, shown
from app.errors import FieldError, InvalidInput

_FEW_LEVELS = 20  # Levels that never identify rows, unless all values differ.
_IDENTIFIER_SHARE = 0.3  # Levels per row above which a column identifies rows.


class Applied(NamedTuple):
    """The schema with which a table is read, the columns from which it was made, and warnings."""

    schema: TableSchema
    decided: Mapping[str, Decided]
    notes: Notes


def open_columns(names: Iterable[str], options: ReadingOptions, dialect: Dialect) -> dict[str, ColumnProfile]:
    """Return empty profiles of columns. A kind is open unless an option gives it."""
    return {name: open_column(name, options, dialect) for name in names}


def open_column(name: str, options: ReadingOptions, dialect: Dialect) -> ColumnProfile:
    """Return the empty profile of a column. Its kind is open unless an option gives it."""
    given = options.of(name)
    kind = given.kind or (None if given.reference is None else "category")
    column = Column(
        name,
        kind or "number",
        decimal=given.decimal_or(dialect.decimal),
        thousands=given.thousands or "",
        na=given.na or (),
        strip=given.strip or (),
        dates=given.dates if kind in (None, "date") else None,
        strings=kind == "number" and given.strings,
    )
    return ColumnProfile(column, is_open=kind is None, orders=DATE_ORDERS if kind == "date" and not given.dates else ())


def infer_schema(
    profile: TableProfile, roles: Roles, options: ReadingOptions, dialect: Dialect, *, untyped: bool
) -> Applied:
    """Return the schema that the cells of a table suggest, and warnings.

    Raises InvalidInput if the kind of a column cannot be decided, if a target holds words, or if the design has too
    many columns or none.
    """
    decided = decide_all(profile, untyped=untyped, commas=untyped and dialect.sep == ",")
    check_targets([decided[name] for name in roles.others], profile.first_row)
    chosen = roles.chosen(options)
    identifiers = {name for name, column in decided.items() if name not in chosen and _is_identifier(column)}
    left_out = tuple(LeftOut(name, "identifier") for name in decided if name in identifiers)
    names = [name for name in decided if name not in identifiers and name not in roles.others]
    check_levels([decided[name] for name in names])
    features = [_feature(decided[name], options) for name in names]
    check_design(features)
    others = {name: of_target(decided[name].column, options) for name in roles.others}
    targets = tuple(others[name] for name in roles.targets)
    weight = None if roles.weight is None else others[roles.weight]
    schema = TableSchema(tuple(features), targets, weight, dialect, left_out, profile.rows)
    notes = Notes()
    for column in left_out:
        notes.identifier(column.name)
    notes.schema(schema, decided)
    return Applied(schema, decided, notes)


def decide_all(profile: TableProfile, *, untyped: bool, commas: bool = False, advice: str = "") -> dict[str, Decided]:
    """Return the columns with their kinds.

    Raises InvalidInput with a detail for each that cannot be decided, which ends with `advice`.
    """
    decided, details = {}, []
    for name, column in profile.columns.items():
        try:
            decided[name] = decide(column, untyped=untyped, commas=commas)
        except KindFault as fault:
            details.append(FieldError(fault.message + advice, row=profile.first_row + fault.row, column=name))
    if details:
        raise in_columns(details)
    return decided


def check_targets(columns: Sequence[Decided], first_row: int) -> None:
    """Raise InvalidInput if a target or the weight is neither a number nor a boolean."""
    details = [
        FieldError(
            f"The column holds {'words' if decided.column.kind == 'category' else 'dates'}, but a target or a weight "
            "must be a number or a boolean. Choose another column, or code it as numbers.",
            row=first_row + (decided.profile.texts.first or 0),
            column=decided.column.name,
        )
        for decided in columns
        if decided.column.kind in ("category", "date")
    ]
    if details:
        raise in_columns(details)


def _is_identifier(decided: Decided) -> bool:
    """Return True for words that identify rows rather than group them."""
    profile = decided.profile
    if decided.column.kind != "category" or profile.is_dictionary or not profile.is_open:
        return False
    texts = profile.texts
    if texts.is_full:
        return 2 * texts.distinct > texts.compared
    levels = len(texts.levels)
    return levels == texts.count > 0 or (levels > _FEW_LEVELS and levels > _IDENTIFIER_SHARE * profile.rows)


def _feature(decided: Decided, options: ReadingOptions) -> Column:
    column = decided.column
    given = options.of(column.name)
    if column.kind == "category":
        found = {*decided.profile.texts.levels}
        if given.missing == "fill" and isinstance(given.fill, str):
            found.add(given.fill)
        column = replace(column, levels=ordered_levels(found, given.reference, column.name))
    return with_gap_policy(column, decided, options)


def ordered_levels(found: Iterable[str], reference: str | None, name: str) -> tuple[str, ...]:
    """Return levels in code-point order, after the reference. Raises InvalidInput if the reference is not a level."""
    levels = sorted(found)
    if reference is not None and reference not in levels:
        # The message of the error is logged, and may not hold levels.
        message = f"The column {shown(name)} has no level that is called like the given reference."
        detail = f"{message} Received {shown(reference)}. Its levels: {listed(levels)}."
        raise InvalidInput(message, [FieldError(detail, parameter="reference")])
    return tuple(sorted(levels, key=lambda level: level != reference))
