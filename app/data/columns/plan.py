"""The first pass over a table: find the kind of each column, or apply the schema of a version.

The trainer reads the rows twice: here, and to fit. This pass ends after SAMPLE_BYTES if all columns are numbers.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from app.data.batch import CellBatch, Columns
from app.data.columns.complete_levels import NO_ROWS, leaves_out, levels_without_rows, rare_levels, without_levels
from app.data.columns.infer import Applied, infer_schema, open_columns
from app.data.columns.kinds import KindFault, decide
from app.data.columns.limits import check_design
from app.data.columns.options import ReadingOptions
from app.data.columns.profile import ColumnProfile, TableProfile, profile_table
from app.data.columns.roles import Roles
from app.data.columns.schema import PLAIN, Dialect, TableSchema
from app.data.columns.schema_changes import Mode, apply_schema, known_columns
from app.data.names import shown
from app.errors import InvalidInput

__all__ = ["Inferred", "Mode", "Roles", "contradicts", "plan_schema"]

# Fills in profiles of columns, of which some are read as numbers. None if the rows have to be read in their order.
ProfileParts: TypeAlias = Callable[[Mapping[str, ColumnProfile], Sequence[str]], TableProfile | None]

SAMPLE_BYTES = 1 << 20  # Bytes of cells from which the columns of numbers are guessed.


@dataclass(frozen=True)
class Inferred:
    """The schema with which a table is read, and the warnings about its columns."""

    schema: TableSchema
    warnings: tuple[str, ...]
    profile: TableProfile  # of the rows that were read
    is_guess: bool = False  # True if only the first rows were read: all columns appear to be plain numbers


def plan_schema(
    read_cells: Callable[[Columns], Iterator[CellBatch]],
    roles: Roles,
    options: ReadingOptions,
    *,
    dialect: Dialect = PLAIN,
    first_row: int = 1,
    untyped: bool = False,
    current: TableSchema | None = None,
    mode: Mode = "replace",
    certain: bool = False,
    step: Callable[[], None] = lambda: None,
    profile_parts: ProfileParts | None = None,
) -> Inferred:
    """Return the schema of a table: `current` applied in this `mode`, or the inferred one if there is no current one.

    `first_row` is the number of the first row of data. `untyped` is the format's `has_untyped_text`. With `certain`,
    all rows are read even if all columns appear to be numbers. `step` is called regularly. `profile_parts` reads all
    rows in parts at the same time.

    Raises InvalidInput if a kind cannot be decided, or if the table does not fit `current`.
    """
    reader = _Reader(read_cells, dialect, first_row, step, profile_parts)

    def empty() -> dict[str, ColumnProfile]:
        if current is not None:
            columns = known_columns(current, roles, options, dialect, mode)
        else:
            columns = open_columns(roles.used, options, dialect)
        for column in columns.values():
            column.refuses_strings = not (untyped or column.is_open) and column.column.refuses_strings
        return columns

    profile, is_guess = reader.profile(empty, certain=certain, untyped=untyped)
    if current is not None:
        applied = apply_schema(profile, current, roles, options, dialect, mode=mode)
    else:
        applied = infer_schema(profile, roles, options, dialect, untyped=untyped)
    schema = reader.without_empty_levels(applied, options) if mode == "replace" else applied.schema
    return Inferred(schema, tuple(applied.notes.texts()), profile, is_guess)


def contradicts(error: InvalidInput, inferred: Inferred) -> bool:
    """Return True if a fault of the rows shows that a guess was wrong. Then plan again, with `certain`."""
    return inferred.is_guess and _is_in_cells(error)


def _is_in_cells(error: InvalidInput) -> bool:
    """Return True if an error is about the values of columns."""
    return bool(error.details) and all(detail.row and detail.column is not None for detail in error.details)


def _is_plain(column: ColumnProfile, dialect: Dialect, *, untyped: bool) -> bool:
    """Return True if the cells appear to be numbers that the format itself can read."""
    try:
        decided = decide(column, untyped=untyped)
    except KindFault:
        return False
    is_read = decided.column.is_plain and not column.column.na and decided.column.decimal == dialect.decimal
    return is_read and decided.count > 0 and not decided.profile.texts.weak


@dataclass(frozen=True)
class _Reader:
    read_cells: Callable[[Columns], Iterator[CellBatch]]
    dialect: Dialect
    first_row: int
    step: Callable[[], None]
    profile_parts: ProfileParts | None

    def profile(
        self, empty: Callable[[], Mapping[str, ColumnProfile]], *, certain: bool, untyped: bool
    ) -> tuple[TableProfile, bool]:
        """Return the profile of a table, and True if only its first rows were read, as all columns appear plain."""
        found = self._sample_of_numbers(empty()) if untyped else None
        profile, is_whole = found or self.sample(empty())
        if is_whole:
            return profile, False
        numbers = [name for name, column in profile.columns.items() if _is_plain(column, self.dialect, untyped=untyped)]
        if len(numbers) == len(profile.columns) and not certain:
            return profile, True
        return self.whole(empty, numbers), False

    def _sample_of_numbers(self, columns: Mapping[str, ColumnProfile]) -> tuple[TableProfile, bool] | None:
        """Return `sample` if all columns can be read as plain numbers, which is much faster for many columns."""
        if not all(
            column.is_open and column.column.is_plain and not column.column.dates for column in columns.values()
        ):
            return None
        try:
            return self.sample(columns, numbers=[*columns])
        except InvalidInput as error:
            if not _is_in_cells(error):
                raise
        return None

    def sample(self, columns: Mapping[str, ColumnProfile], numbers: Sequence[str] = ()) -> tuple[TableProfile, bool]:
        """Return the profile of the first SAMPLE_BYTES, and True if these are all rows."""
        is_whole = False

        def beginning() -> Generator[CellBatch]:
            nonlocal is_whole
            size = 0
            for batch in self._cells(columns, numbers):
                if size >= SAMPLE_BYTES:
                    return
                size += batch.cells.nbytes
                yield batch
            is_whole = True

        return self._profile(beginning(), columns), is_whole

    def whole(self, empty: Callable[[], Mapping[str, ColumnProfile]], numbers: list[str]) -> TableProfile:
        """Return the profile of all rows. If one contradicts that these columns are `numbers`, read them again."""
        try:
            return self._profile_all(empty, numbers)
        except InvalidInput as error:
            at_fault = {detail.column for detail in error.details}
            if not (_is_in_cells(error) and at_fault <= {*numbers}):
                raise
        return self._profile_all(empty, ())

    def _profile_all(self, empty: Callable[[], Mapping[str, ColumnProfile]], numbers: Sequence[str]) -> TableProfile:
        if self.profile_parts is not None and (found := self.profile_parts(empty(), numbers)) is not None:
            return found
        columns = empty()
        return self._profile(self._cells(columns, numbers), columns)

    def without_empty_levels(self, applied: Applied, options: ReadingOptions) -> TableSchema:
        """Return the schema without levels that occur only in rows that are left out because of gaps."""
        schema = applied.schema
        rare = rare_levels(schema, applied.decided)
        if not rare:
            return schema
        empty = levels_without_rows(self._cells(applied.decided, ()), schema, rare)
        if any({*column.levels} == empty.get(column.name) and leaves_out(column) for column in schema.features):
            return schema  # No row is complete, so the training fails.
        for name, levels in empty.items():
            if options.of(name).reference in levels:
                raise InvalidInput.of_parameter("reference", NO_ROWS.format(shown(name)))
            applied.notes.empty_levels(name)
        features = tuple(without_levels(column, empty.get(column.name, ())) for column in schema.features)
        check_design(features)
        return replace(schema, features=features)

    def _cells(self, names: Iterable[str], numbers: Sequence[str]) -> Iterator[CellBatch]:
        others = {*numbers}
        keep = [name for name in names if name not in others]
        return self.read_cells(Columns(numbers, keep, missing=True, dialect=self.dialect))

    def _profile(self, cells: Iterator[CellBatch], columns: Mapping[str, ColumnProfile]) -> TableProfile:
        return profile_table(cells, columns, first_row=self.first_row, step=self.step)
