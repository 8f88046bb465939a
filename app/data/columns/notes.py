"""Warnings about the columns of a table, one for each kind of warning, with the names of its columns."""

import re
from collections.abc import Mapping

from app.data.columns.kinds import Decided
from app.data.columns.schema import Column, TableSchema
from app.data.names import listed

_IDENTIFIER = (
    "Left out as identifiers of rows, because all or many of their values differ: {}. Name a column in `categories` to "
    "use it."
)
_THOUSANDS = (
    "Commas were read as separators between thousands in {}. If they are decimal signs, give the option `decimal=,`."
)
_COUNTS_ROWS = "Columns that only count the rows: {}. If they are not measurements, leave them out with `drop`."
_IDS = "Columns of integers that all differ, and appear to identify rows: {}. If they do, leave them out with `drop`."
_DAYS = (
    "Columns of integers that look like dates, as in yyyymmdd, but are used as numbers: {}. To read them as dates, "
    "give the option `dates=ymd`."
)
_LOW = "The lowest value is far below all others in {}. If it marks gaps, add it to `na`."
_HIGH = "The highest value is far above all others in {}. If it marks gaps, add it to `na`."
_PROBABILITY = (
    "Boolean targets, read as 1 and 0: {}. This is a linear probability model; its predictions may be below 0 or "
    "above 1."
)
_ONE_LEVEL = "Categories with a single level, which add no column to the design: {}."
_EMPTY_LEVELS = "Levels were left out in {}, because all rows with them have gaps and are left out."
_NEW_LEVELS = "Levels that the model did not know were added to {}."
_OTHER_REFERENCE = (
    "The reference level of the current version does not occur in these rows. The first level in code-point order is "
    "the reference instead, in {}."
)
_INDICATOR = (
    "Gaps were replaced by a constant and marked by an indicator in {}. The coefficients of other columns may be "
    "biased."
)


class Notes:
    """Collects warnings."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def texts(self) -> list[str]:
        return [text.format(listed(names)) for text, names in self._names.items()]

    def identifier(self, name: str) -> None:
        """Add a warning about a column that is left out."""
        self._add(_IDENTIFIER, name)

    def empty_levels(self, name: str) -> None:
        """Add a warning about a category with a level that is left out."""
        self._add(_EMPTY_LEVELS, name)

    def new_levels(self, name: str) -> None:
        """Add a warning about a category with levels that the model did not know."""
        self._add(_NEW_LEVELS, name)

    def other_reference(self, name: str) -> None:
        """Add a warning about a category whose reference level does not occur."""
        self._add(_OTHER_REFERENCE, name)

    def schema(self, schema: TableSchema, decided: Mapping[str, Decided]) -> None:
        """Add warnings about all columns of a schema."""
        for column in schema.numbers:
            self._column(column, decided[column.name])
        for column in schema.features:
            self._feature(column, decided[column.name])
        for column in schema.targets:
            self._target(column)

    def _target(self, column: Column) -> None:
        """Add warnings about a target."""
        if column.kind == "boolean":
            self._add(_PROBABILITY, column.name)

    def _column(self, column: Column, decided: Decided) -> None:
        """Add warnings about the values of any column."""
        if decided.found_thousands:
            self._add(_THOUSANDS, column.name)
        if column.kind == "number" and not decided.is_yyyymmdd:
            for extreme, text in ((decided.low_outlier, _LOW), (decided.high_outlier, _HIGH)):
                if extreme:
                    self._add(text, column.name)

    def _feature(self, column: Column, decided: Decided) -> None:
        """Add warnings about a feature."""
        if column.kind == "number":
            for is_noted, text in (
                (decided.counts_rows, _COUNTS_ROWS),
                (decided.is_yyyymmdd, _DAYS),
                (decided.all_differ and not decided.counts_rows and _is_id(column.name), _IDS),
            ):
                if is_noted:
                    self._add(text, column.name)
        if column.kind == "category" and len(column.levels) == 1 and column.missing != "indicator":
            self._add(_ONE_LEVEL, column.name)
        if column.missing == "indicator":
            self._add(_INDICATOR, column.name)

    def _add(self, text: str, name: str) -> None:
        self._names.setdefault(text, []).append(name)


def _is_id(name: str) -> bool:
    """Return True for a name that is or ends in `id`, as a word of its own: "id", "user_id", "PassengerId"."""
    return name.lower() == "id" or re.fullmatch(r".*(?:[^A-Za-z](?i:id)|[a-z0-9]I[dD])", name) is not None
