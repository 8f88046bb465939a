"""One pass over the cells of a table: the values, gaps and levels of each column."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from app.data.batch import CellBatch
from app.data.columns.booleans import booleans_of
from app.data.columns.dates import dates_of
from app.data.columns.gaps import Parsed
from app.data.columns.numbers import first_value, holds_text, is_text, numbers_of
from app.data.columns.options import DateOrder, Kind
from app.data.columns.schema import Column
from app.data.columns.tally import Indices, Tally, TallyRecord
from app.data.columns.text_profile import BLOCK_ROWS, TextProfile
from app.data.lazy_pyarrow import pa

JOINED_ROWS = 1 << 15  # Rows that are counted at a time.

_OF_CELLS: "dict[Kind, Callable[[pa.Array, Column], Parsed]]" = {
    "number": numbers_of,
    "boolean": booleans_of,
    "date": dates_of,
}


@dataclass(frozen=True)
class ProfileRecord:
    """The content of a ColumnProfile before the distinct texts are read."""

    rows: int
    is_dictionary: bool
    first_string: int | None
    unusable: str | None
    unusable_row: int
    texts: int
    levels: dict[str, int]
    first_rows: dict[str, int]  # of the levels
    tallies: tuple[TallyRecord, ...]


@dataclass
class ColumnProfile:
    """The cells of one column."""

    column: Column  # its options, and its kind unless `is_open`
    is_open: bool = True  # True if the kind follows from the cells
    refuses_strings: bool = False  # True if strings are not numbers, although the kind is known
    orders: Sequence[DateOrder | None] = ()  # for a column of dates: the possible orders, one of which the cells decide
    rows: int = 0
    is_dictionary: bool = False  # True if the cells are the codes of an Arrow dictionary
    first_string: int | None = None  # first row, from 0, with a string that is refused
    unusable: str | None = None  # the name of an Arrow type that no column of this kind may have
    unusable_row: int = 0  # first row of that type, from 0
    texts: TextProfile = field(init=False)
    typed: Mapping[Kind, Tally] = field(init=False)  # cells that are not text, by their kind, or cells of a known kind
    days: Tally = field(init=False)  # integers as dates, if the order of dates is year, month, day
    dates: Mapping[DateOrder | None, Tally] = field(init=False)  # cells in each of `orders`

    def __post_init__(self) -> None:
        self.texts = TextProfile(self.column, self.is_open)
        self.days = Tally(replace(self.column, kind="date"), dates_of)
        self.dates = {order: Tally(replace(self.column, dates=order), dates_of) for order in self.orders}
        kinds = {kind: parse for kind, parse in _OF_CELLS.items() if self.is_open or kind == self.column.kind}
        self.typed = {kind: Tally(replace(self.column, kind=kind), parse) for kind, parse in kinds.items()}

    def add(self, cells: "pa.Array", start: int) -> None:
        """Count the cells of rows from `start`, from 0."""
        self.rows += len(cells)
        if pa.types.is_null(cells.type):
            return
        kind = self._kind_of(cells.type) if self.is_open else self.column.kind
        try:
            if kind is None:
                raise TypeError
            if kind == "category":
                self.texts.add(cells, start)
            else:
                if self.refuses_strings and self.first_string is None and holds_text(cells.type):
                    index = first_value(cells)
                    self.first_string = None if index is None else start + index
                rows = np.arange(start, start + len(cells))
                if self.dates:
                    self._add_dates(cells, rows)
                    return
                self.typed[kind].add(cells, rows)
                if self.is_open and self.column.dates == "ymd" and pa.types.is_integer(cells.type):
                    self.days.add(cells, rows)
        except TypeError:
            if self.unusable is None:
                self.unusable, self.unusable_row = str(cells.type).partition("<")[0].partition("[")[0], start

    @property
    def record(self) -> ProfileRecord | None:
        """The content, or None if there are too many texts to merge it with that of other rows."""
        if self.texts.is_full:
            return None
        return ProfileRecord(
            self.rows,
            self.is_dictionary,
            self.first_string,
            self.unusable,
            self.unusable_row,
            self.texts.count,
            self.texts.levels,
            dict(self.texts.first_rows),
            tuple(tally.record for tally in self._tallies),
        )

    def merge(self, other: ProfileRecord) -> None:
        """Count the cells of later rows."""
        self.rows += other.rows
        if other.is_dictionary:
            self.is_dictionary, self.texts.is_open = True, False
        if self.first_string is None:
            self.first_string = other.first_string
        if self.unusable is None:
            self.unusable, self.unusable_row = other.unusable, other.unusable_row
        self.texts.merge(other.texts, other.levels, other.first_rows)
        for tally, record in zip(self._tallies, other.tallies, strict=True):
            tally.merge(record)

    @property
    def _tallies(self) -> tuple[Tally, ...]:
        return (*self.typed.values(), self.days, *self.dates.values())

    def _add_dates(self, cells: "pa.Array", rows: Indices) -> None:
        """Count dates in each order. Integers are dates in one only. Raises TypeError if the cells are in none."""
        is_date = False
        for tally in self.dates.values():
            try:
                tally.add(cells, rows)
                is_date = True
            except TypeError:
                tally.is_tried = False
        if not is_date:
            raise TypeError

    def _kind_of(self, type_: "pa.DataType") -> Kind | None:
        """Return the kind of cells of this type, or None. Text is counted as a category."""
        if pa.types.is_dictionary(type_):
            self.is_dictionary, self.texts.is_open = True, False
        if pa.types.is_dictionary(type_) or is_text(type_):
            return "category"
        if pa.types.is_boolean(type_):
            return "boolean"
        is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
        if is_number:
            return "number"
        return "date" if pa.types.is_date(type_) or pa.types.is_timestamp(type_) else None


@dataclass
class TableProfile:
    """The cells of all columns."""

    columns: dict[str, ColumnProfile]
    first_row: int = 1  # number of the first row of data
    rows: int = 0

    def finish(self) -> None:
        """Read the distinct texts, after the last row."""
        for column in self.columns.values():
            column.texts.finish()


def profile_table(
    batches: Iterable[CellBatch],
    columns: Mapping[str, ColumnProfile],
    *,
    first_row: int = 1,
    step: Callable[[], None] = lambda: None,
    before: int = 0,
    is_part: bool = False,
) -> TableProfile:
    """Return the profile of a table, with `columns` filled in. `step` is called for each batch.

    With `is_part`, these are the rows of a table that follow `before` other rows, and the result is not finished.

    Raises InvalidInput as reading the batches does.
    """
    profile = TableProfile(dict(columns), first_row, before)
    for joined in _joined(batches, step):
        for cells in _pieces(joined, profile.rows):
            for name, column in profile.columns.items():
                column.add(cells.column(name), profile.rows)
            profile.rows += cells.num_rows
            if profile.rows % BLOCK_ROWS == 0:
                for column in profile.columns.values():
                    column.texts.settle(profile.rows)
    if not is_part:
        profile.finish()
    return profile


def _joined(batches: Iterable[CellBatch], step: Callable[[], None]) -> "Iterator[pa.RecordBatch]":
    """Join batches of the same types until they have about JOINED_ROWS, because each batch has a fixed cost."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        step()
        if waiting and waiting[0].schema != batch.cells.schema:
            yield pa.concat_batches(waiting)
            waiting = []
        waiting.append(batch.cells)
        if sum(cells.num_rows for cells in waiting) >= JOINED_ROWS:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)


def _pieces(cells: "pa.RecordBatch", start: int) -> "Iterator[pa.RecordBatch]":
    """Yield the rows in pieces that do not cross a multiple of BLOCK_ROWS."""
    first = 0
    while first < cells.num_rows:
        size = BLOCK_ROWS - (start + first) % BLOCK_ROWS
        yield cells.slice(first, size)
        first += size
