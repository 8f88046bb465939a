"""What happens to the gaps of a column, and the constant that takes their place."""

from dataclasses import replace

from app.data.columns.booleans import boolean_of
from app.data.columns.dates import date_of
from app.data.columns.kinds import Decided
from app.data.columns.numbers import number_of
from app.data.columns.options import ColumnOptions, ReadingOptions
from app.data.columns.schema import MISSING_LEVEL, Column
from app.data.groups import canonical
from app.data.names import listed, shown
from app.errors import FieldError, InvalidInput

_OF_VALUE = {"number": number_of, "boolean": boolean_of, "date": date_of}


def with_gap_policy(column: Column, decided: Decided, options: ReadingOptions) -> Column:
    """Return a feature with its gap policy.

    If the table's policy is to replace gaps, it applies to the columns with gaps. Columns without gaps get `drop`.
    Raises InvalidInput if the constant is missing or not of the column's kind.
    """
    own, given = options.columns.get(column.name, ColumnOptions()), options.of(column.name)
    if given.missing in ("indicator", "fill") and not decided.gaps and own.missing is None and own.fill is None:
        return column
    if given.missing == "indicator":
        return _with_indicator(column, decided, given)
    if given.missing == "fill":
        if given.fill is None:
            raise InvalidInput.of_parameter(
                "fill",
                f"The column {shown(column.name)} has {decided.gaps} gaps and no constant to fill them. Give one, as "
                "in `fill=NAME:0`, or choose another `missing`.",
            )
        constant = _constant(given.fill, column)
        if column.kind == "category" and not decided.gaps and str(constant) not in decided.profile.texts.levels:
            # The message of the error is logged, and may not hold levels.
            message = f"The column {shown(column.name)} has no gaps, so no row would have the level that `fill` gives."
            known = listed(sorted(decided.profile.texts.levels))
            detail = f"{message} Received {shown(str(constant))}. Give one of its levels: {known}."
            raise InvalidInput(message, [FieldError(detail, parameter="fill")])
        return replace(column, missing="fill", fill=constant)
    return replace(column, missing=given.missing or "drop")


def of_target(column: Column, options: ReadingOptions) -> Column:
    """Return a target or weight with its gap policy. Its gaps are never filled."""
    own = options.columns.get(column.name, ColumnOptions())
    if own.fill is not None or own.missing in ("indicator", "fill"):
        raise InvalidInput.of_parameter(
            "missing",
            f"Gaps of {shown(column.name)}, a target or weight, cannot be filled. Give `missing` and `fill` "
            "for features only.",
        )
    return replace(column, missing="refuse" if options.of(column.name).missing == "refuse" else "drop")


def _with_indicator(column: Column, decided: Decided, given: ColumnOptions) -> Column:
    if column.kind == "category":
        if MISSING_LEVEL in column.levels:
            raise InvalidInput.of_parameter(
                "missing",
                f'The column {shown(column.name)} has a level "{MISSING_LEVEL}", which is also the name of the level '
                f"of gaps. Give `na={MISSING_LEVEL}` to count it as a gap, or rename it.",
            )
        return replace(column, missing="indicator")
    fill = decided.mean if given.fill is None else _constant(given.fill, column)
    return replace(column, missing="indicator", fill=fill)


def _constant(value: float | str, column: Column) -> float | str:
    """Return a constant as the column's kind has it. Raises InvalidInput if it is of another kind."""
    if column.kind == "category":
        return value if isinstance(value, str) else canonical(float(value)) or ""
    if column.kind == "date" and not isinstance(value, str):
        return value
    number = _OF_VALUE[column.kind](value, column)
    if number is None or number != number:  # noqa: PLR0124 - NaN
        raise InvalidInput.of_parameter(
            "fill", f"The constant for the gaps of {shown(column.name)} is not a {column.kind}. Give a {column.kind}."
        )
    return number
