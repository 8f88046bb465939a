"""The tasks on one fragment, which run in another process or on another machine."""

from typing import Any, Self, TypeAlias

import msgspec

from app.data.batch import Columns
from app.data.columns.number_profile import MAX_IDS
from app.data.columns.options import DateOrder
from app.data.columns.profile import ColumnProfile, ProfileRecord, profile_table
from app.data.columns.schema import Column, Dialect, TableSchema
from app.data.content import begins_with, better_in_file, explained
from app.data.formats import BY_NAME
from app.data.formats.base import Span
from app.data.formats.file_set import described_columns
from app.data.groups import Groups
from app.data.training_rows import RowCounts, TrainingRows
from app.errors import InvalidInput, LinserveError, MemoryExceeded
from app.regression.errors import FitError
from app.regression.sufficient_statistics import SufficientStatistics, WeightKind
from app.regression.summary_plan import SummaryPlan, summarise_batches
from app.training.fragments.wire import Fault, FileRecord, pack, statistics_of, statistics_record, unpack


class RowsRecord(msgspec.Struct, frozen=True):
    """How the rows of all fragments are read."""

    format: str
    schema: TableSchema
    weight_kind: WeightKind
    groups: Groups | None

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        names = [column.name for column in self.schema.numbers]
        return names if self.groups is None else [*names, self.groups.column]

    def rows(self, file: FileRecord, span: Span | None, threads: int = 1) -> TrainingRows:
        return TrainingRows(
            file.file.source(),
            self.format,
            self.schema,
            weight_kind=self.weight_kind,
            groups=self.groups,
            threads=threads,
            span=span,
            is_part=True,
        )


class Split(msgspec.Struct, frozen=True, tag=True):
    """Find the spans of a file."""

    file: FileRecord
    format: str
    dialect: Dialect
    size: int

    def run(self) -> "Spans":
        source, table_format = self.file.file.source(), BY_NAME[self.format]
        with explained(source, table_format, self.dialect):
            columns = described_columns(table_format, source, self.dialect)
            return Spans(table_format.spans(source, self.dialect, self.size), columns)


class Spans(msgspec.Struct, frozen=True, tag=True):
    spans: list[Span]
    columns: dict[str, str]  # with their types


class ColumnRecord(msgspec.Struct, frozen=True):
    """The arguments of an empty ColumnProfile."""

    column: Column
    is_open: bool
    refuses_strings: bool
    orders: tuple[DateOrder | None, ...]

    @classmethod
    def of(cls, profile: ColumnProfile) -> Self:
        return cls(profile.column, profile.is_open, profile.refuses_strings, tuple(profile.orders))

    @property
    def empty(self) -> ColumnProfile:
        return ColumnProfile(self.column, self.is_open, self.refuses_strings, self.orders)


class Profile(msgspec.Struct, frozen=True, tag=True):
    """Profile the columns of a fragment, whose rows follow `before` other rows."""

    file: FileRecord
    span: Span | None
    format: str
    dialect: Dialect
    columns: list[ColumnRecord]
    numbers: list[str]
    before: int

    def run(self) -> "Profiled":
        source, table_format = self.file.file.source(), BY_NAME[self.format]
        if self.span is not None:
            table_format = table_format.within(self.span)
        profiles = {record.column.name: record.empty for record in self.columns}
        others = [name for name in profiles if name not in {*self.numbers}]
        columns = Columns(self.numbers, others, missing=True, dialect=self.dialect)
        with explained(source, table_format, self.dialect):
            table_format.check_memory(source, columns.names)
            cells = table_format.cells(source, columns)
            profile = profile_table(cells, profiles, before=self.before, is_part=True)
        records = {name: self._record(column) for name, column in profile.columns.items()}
        found = {name: record for name, record in records.items() if record is not None}
        return Profiled(found if len(found) == len(records) else None, profile.rows - self.before)

    def _record(self, column: ColumnProfile) -> ProfileRecord | None:
        record = column.record
        if record is not None and self.before >= MAX_IDS:
            for tally in record.tallies:
                tally.numbers.ids.clear()  # only the first values are compared
        return record


class Profiled(msgspec.Struct, frozen=True, tag=True):
    records: dict[str, ProfileRecord] | None  # None if a column has too many texts
    rows: int


class Summarise(msgspec.Struct, frozen=True, tag=True):
    """Summarise the rows of a fragment. `plan.first` is the number of its first row."""

    file: FileRecord
    span: Span | None
    rows: RowsRecord
    plan: SummaryPlan

    def run(self) -> "Summary":
        table_format = BY_NAME[self.rows.format]
        if self.span is not None:
            table_format = table_format.within(self.span)
        source = self.file.file.source()
        with explained(source, table_format, self.rows.schema.dialect):
            table_format.check_memory(source, self.rows.names)
        rows = self.rows.rows(self.file, self.span)
        statistics = summarise_batches(self.plan, rows.batches())
        records = {fold: statistics_record(part) for fold, part in statistics.items()}
        return Summary(records, rows.counts)


class Summary(msgspec.Struct, frozen=True, tag=True):
    """The summary of a fragment."""

    records: dict[int, dict[str, Any]]  # statistics by fold
    counts: RowCounts

    @property
    def statistics(self) -> dict[int, SufficientStatistics]:
        return {fold: statistics_of(record) for fold, record in self.records.items()}


Task: TypeAlias = Split | Profile | Summarise
Result: TypeAlias = Spans | Profiled | Summary | Fault


def _run(task: Task) -> Result:
    """Return the result of a task. Errors about a file of a source do not advise about a body or its headers."""
    try:
        return task.run()
    except InvalidInput as error:
        if task.file.source is None or "Content-Type" not in error.message:
            raise
        format_name, dialect = (
            (task.rows.format, task.rows.schema.dialect) if isinstance(task, Summarise) else (task.format, task.dialect)
        )
        raise better_in_file(error, begins_with(task.file.file.source()), BY_NAME[format_name], dialect) from None


def answer(content: bytes) -> bytes:
    """Return the result of a task, both as bytes. The errors of a fragment are results."""
    task: Task = unpack(content, Task)
    try:
        result: Result = _run(task)
    except (LinserveError, FitError) as error:
        result = Fault.of(error)
    except MemoryError:
        result = Fault.of(MemoryExceeded("A fragment of the rows needs more memory than its process may have."))
    except OSError as error:
        result = Fault.of(InvalidInput(f"The file cannot be read: {error.strerror or type(error).__name__}."))
    return pack(result)
