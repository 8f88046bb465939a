"""Applies the schema of a version to another table, and names the differences."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

from app.data.batch import in_columns
from app.data.columns.gap_policy import of_target, with_gap_policy
from app.data.columns.infer import Applied, check_targets, decide_all, open_column, ordered_levels
from app.data.columns.kinds import Decided
from app.data.columns.limits import check_design, check_levels
from app.data.columns.notes import Notes
from app.data.columns.options import ColumnOptions, ReadingOptions
from app.data.columns.profile import ColumnProfile, TableProfile
from app.data.columns.roles import Roles
from app.data.columns.schema import Column, Dialect, TableSchema
from app.data.names import MAX_LISTED, UNKNOWN_LEVEL, did_you_mean, listed, shown
from app.errors import FieldError, InvalidInput

Mode: TypeAlias = Literal["replace", "update", "forget"]

_WAY_OUT = {
    "replace": "Correct the rows, or add `schema=infer` to find the columns anew.",
    "update": "Correct the rows, or train anew on all rows, with mode `replace` and `schema=infer`.",
    "forget": "Send the columns as in the training.",
}


def known_columns(
    current: TableSchema, roles: Roles, options: ReadingOptions, dialect: Dialect, mode: Mode
) -> dict[str, ColumnProfile]:
    """Return empty profiles of the columns, of which `current` gives the kinds.

    Raises InvalidInput if a column is missing, or if an option contradicts `current`.
    """
    if missing := [column.name for column in current.features if column.name not in roles.used]:
        near = did_you_mean(missing[0], roles.names)
        message = f"The rows lack columns of the current version: {listed(missing)}.{near} {_WAY_OUT[mode]}"
        details = [FieldError("The current version has this column.", column=name) for name in missing[:MAX_LISTED]]
        raise InvalidInput(message, details)
    if mode != "replace":
        _check_gap_policy(current, options, mode)
    columns = {}
    for name in roles.used:
        known = current.column(name)
        if known is None:
            columns[name] = open_column(name, options, dialect)
        else:
            _check_options(known, options, mode)
            columns[name] = ColumnProfile(_as_written(known, current, options, dialect), is_open=False)
    return columns


def _as_written(column: Column, current: TableSchema, options: ReadingOptions, dialect: Dialect) -> Column:
    """Return a column whose cells are written as the options and the dialect of these rows say."""
    given = options.of(column.name)
    is_of_file = column.decimal == current.dialect.decimal
    return replace(
        column,
        decimal=given.decimal_or(dialect.decimal if is_of_file else column.decimal),
        thousands=column.thousands if given.thousands is None else given.thousands,
        na=tuple(dict.fromkeys([*column.na, *(given.na or ())])),
        strip=given.strip or column.strip,
        dates=(given.dates or column.dates) if column.kind == "date" else column.dates,
        strings=column.strings or (given.kind == "number" and given.strings),
    )


def _check_options(column: Column, options: ReadingOptions, mode: Mode) -> None:
    """Raise InvalidInput if an option is not possible with a column of the current version."""
    own, given = options.columns.get(column.name, ColumnOptions()), options.of(column.name)
    differences: list[tuple[str, object, object]] = [("kind", own.kind, column.kind)]
    if mode != "replace":
        reference = column.levels[0] if column.levels else None
        differences += [("reference", own.reference, reference), ("missing", own.missing, column.missing)]
        differences += [("fill", own.fill, column.fill)]
        if given.dates is not None and column.kind == "date" and column.dates is not None:
            differences += [("dates", given.dates, column.dates)]
    for option, value, known in differences:
        if value is not None and value != known:
            message = f"The option `{option}` of column {shown(column.name)} differs from that of the current version."
            raise InvalidInput.of_parameter(option, f"{message} Leave it out. {_WAY_OUT[mode]}")


def _check_gap_policy(current: TableSchema, options: ReadingOptions, mode: Mode) -> None:
    """Raise InvalidInput if the option `missing` of the table is not possible with the columns of the version."""
    given, known = options.missing, {column.missing: column.name for column in current.features}
    filled = [policy for policy in ("indicator", "fill") if policy in known]
    message = ""
    if given in ("drop", "refuse") and filled:
        message = f"The current version has `missing={filled[0]}` for column {shown(known[filled[0]])}."
    elif given in ("indicator", "fill") and given not in known:
        message = f"The current version has no column with `missing={given}`; it has `missing={', '.join(known)}`."
    if message:
        raise InvalidInput.of_parameter("missing", f"{message} Leave the option out. {_WAY_OUT[mode]}")


def apply_schema(
    profile: TableProfile, current: TableSchema, roles: Roles, options: ReadingOptions, dialect: Dialect, *, mode: Mode
) -> Applied:
    """Return the schema with the levels of these rows, and warnings. `profile` is one of `known_columns`.

    Kinds, constants and reference levels stay. `replace` takes the levels of these rows, `update` appends those that
    are new, and `forget` refuses them.

    Raises InvalidInput if a column does not fit its kind.
    """
    decided = decide_all(profile, untyped=True, advice=f" {_WAY_OUT[mode]}")
    check_targets([decided[name] for name in roles.others], profile.first_row)
    names = [name for name in decided if name not in roles.others]
    check_levels([decided[name] for name in names])
    notes = Notes()
    features = [_feature(decided[name], current, options, notes, mode) for name in names]
    if mode == "forget":
        _refuse_unseen(features, decided, profile.first_row)
    check_design(features)
    others = {name: _other(decided[name], options, mode) for name in roles.others}
    schema = replace(
        current,
        features=tuple(features),
        targets=tuple(others[name] for name in roles.targets),
        weight=None if roles.weight is None else others[roles.weight],
        dialect=dialect,
        rows=profile.rows,
        incomplete_rows=0,
    )
    if mode == "replace":
        notes.schema(schema, decided)
    return Applied(schema, decided, notes)


def _other(decided: Decided, options: ReadingOptions, mode: Mode) -> Column:
    column = decided.column
    is_known = not decided.profile.is_open
    return column if is_known and mode != "replace" and options.missing is None else of_target(column, options)


def _feature(decided: Decided, current: TableSchema, options: ReadingOptions, notes: Notes, mode: Mode) -> Column:
    column = decided.column
    known = current.column(column.name)
    if column.kind == "category":
        column = replace(column, levels=_levels(decided, known, options, notes, mode))
    given = options.of(column.name)
    if known is not None and (mode != "replace" or given.missing is None):
        missing = options.missing if mode != "replace" and options.missing in ("drop", "refuse") else known.missing
        return replace(column, missing=missing, fill=known.fill)
    return with_gap_policy(column, decided, options)


def _levels(
    decided: Decided, known: Column | None, options: ReadingOptions, notes: Notes, mode: Mode
) -> tuple[str, ...]:
    """Return the levels of a category: the known ones and then the new ones, or in `replace` those of these rows."""
    name, found = decided.column.name, {*decided.profile.texts.levels}
    old = known.levels if known is not None else ()
    new = sorted(found.difference(old))
    if mode != "replace":
        if new and mode == "update":
            notes.new_levels(name)
        return (*old, *new)
    if known is not None and known.missing == "fill" and isinstance(known.fill, str):
        found.add(known.fill)
    reference = options.of(name).reference
    if reference is None and old:
        if old[0] in found:
            reference = old[0]
        else:
            notes.other_reference(name)
    return ordered_levels(found, reference, name)


def _refuse_unseen(features: list[Column], decided: Mapping[str, Decided], first_row: int) -> None:
    """Raise InvalidInput if a category has levels that the model does not know."""
    details = []
    for column in features:
        known = decided[column.name].column.levels
        texts = decided[column.name].profile.texts
        if column.kind == "category" and len(column.levels) > len(known):
            level = column.levels[len(known)]
            message = f"{UNKNOWN_LEVEL} Received {shown(level)}. Known levels: {listed(known)}. {_WAY_OUT['forget']}"
            details.append(FieldError(message, row=first_row + texts.first_row_of(level), column=column.name))
    if details:
        raise in_columns(details)
