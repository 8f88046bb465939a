"""Limits of a design: its number of columns, and names that must differ."""

from collections import Counter
from collections.abc import Sequence

from app.data.columns.kinds import Decided
from app.data.columns.schema import Column
from app.data.columns.text_profile import MAX_LEVEL_LENGTH, MAX_LEVELS
from app.data.names import MAX_LISTED, MAX_NAMES, listed, shown
from app.errors import FieldError, InvalidInput

_ADVICE = "Leave columns out with `drop`, or combine rare levels."


def check_levels(columns: Sequence[Decided]) -> None:
    """Raise InvalidInput if the levels of a category are too many or too long to be counted."""
    categories = [decided for decided in columns if decided.column.kind == "category"]
    full = [decided for decided in categories if decided.profile.texts.is_full]
    if not full:
        return
    if long := [decided.column.name for decided in full if decided.profile.texts.is_long]:
        raise InvalidInput(
            f"Levels of a category may have {MAX_LEVEL_LENGTH} characters, and these columns have longer texts: "
            f"{listed(long)}. Leave them out with `drop`, or shorten their texts.",
            [
                FieldError(f"A text has more than {MAX_LEVEL_LENGTH} characters.", column=name)
                for name in long[:MAX_LISTED]
            ],
        )
    raise _too_wide(
        f"The design would have more than {MAX_NAMES:,} columns.",
        {
            decided.column.name: MAX_LEVELS + 1 if decided.profile.texts.is_full else len(decided.profile.texts.levels)
            for decided in categories
        },
    )


def check_design(features: Sequence[Column]) -> None:
    """Raise InvalidInput if the design has too many columns or none, or two of the same name."""
    names = [name for column in features for name in column.encoded_names]
    if len(names) > MAX_NAMES:
        raise _too_wide(
            f"The design would have {len(names):,} columns; at most {MAX_NAMES:,} are possible.",
            {column.name: len(column.levels) for column in features if column.kind == "category"},
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        # The message of the error is logged, and may not hold levels.
        message = "Two columns of the design would have the same name. Rename a column or a level."
        raise InvalidInput(message, [FieldError(f"Several columns are called {listed(twice)}.")])
    if not names:
        raise InvalidInput(_no_columns(features))


def _no_columns(features: Sequence[Column]) -> str:
    if not features:
        return "No column is left as a feature. Name the columns to use in `features` or `categories`."
    single = listed([column.name for column in features])
    return f"The design has no column: all categories have a single level: {single}. Add other columns."


def _too_wide(message: str, levels: dict[str, int]) -> InvalidInput:
    """Return the error for a design that is too wide, with the categories and their numbers of levels."""
    ordered = sorted(levels.items(), key=lambda item: -item[1])[:MAX_LISTED]
    counts = ", ".join(f"{shown(name)} {_count(count)}" for name, count in ordered)
    details = [FieldError(f"The column has {_count(count)} levels.", column=name) for name, count in ordered]
    if not counts:
        return InvalidInput(f"{message} Leave columns out with `drop`.")
    return InvalidInput(f"{message} Numbers of levels: {counts}. {_ADVICE}", details)


def _count(levels: int) -> str:
    return f"more than {MAX_LEVELS:,}" if levels > MAX_LEVELS else f"{levels:,}"
