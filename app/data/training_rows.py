"""The stored rows of a training, read in batches."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.data.batch import (
    MAX_COLUMNS,
    MISSING,
    Array,
    Columns,
    FileSet,
    RowBatch,
    Source,
    batch_rows,
    check,
    in_columns,
    row_error,
)
from app.data.columns.encoder import Encoder, Notes
from app.data.columns.gap_patterns import GapPatterns, GapRecord, explain_too_few
from app.data.columns.schema import TableSchema
from app.data.content import explained
from app.data.formats.base import Span
from app.data.formats.file_set import format_of, in_files, with_files
from app.data.groups import MISSING as NO_FOLD
from app.data.groups import Groups
from app.data.names import MAX_LISTED, MAX_NAME_LENGTH
from app.data.reading import read_file
from app.data.rounding import MAX_WARNINGS, rounding_warnings
from app.errors import FieldError, InvalidInput
from app.regression.sufficient_statistics import WeightKind
from app.regression.training_batch import TrainingBatch

MATRIX = "matrix"  # Name of the format that `write_matrix` writes. Clients cannot send it.
NEGATIVE = "A weight cannot be negative."
NOT_WHOLE = (
    "A frequency weight is a whole number: how many times the row was observed. Other weights need the weight kind "
    "`precision`."
)
REFUSED = f"{MISSING} Fill it in, or leave such rows out with `missing=drop`."


def first_weight_fault(weights: Array, kind: WeightKind) -> tuple[int, str] | None:
    """Return the index of the first weight that its kind does not allow, and the reason; None if there is none.

    A missing weight, NaN, is not a fault here.
    """
    negative = weights < 0
    faults = negative if kind == "precision" else negative | (weights % 1 > 0)
    if not faults.any():
        return None
    index = int(np.argmax(faults))
    return index, NEGATIVE if negative[index] else NOT_WHOLE


def write_matrix(file: BinaryIO, *columns: Array) -> None:
    """Store columns of numbers as one float64 matrix: features, targets, weights if any, and folds if any.

    NaN is a missing value.
    """
    np.save(file, np.hstack(columns), allow_pickle=False)


class _Rows(NamedTuple):
    """Some consecutive rows, and what is known about them."""

    values: Array  # (n, d): encoded features, targets, weight
    gaps: NDArray[np.bool_] | None  # (n, columns), or None if there are none
    fold: NDArray[np.intp] | None
    others: frozenset[str] = frozenset()


class NumberedBatch(NamedTuple):
    """Rows of a pass, and which rows of the file they are."""

    batch: TrainingBatch
    first_row: int
    unused: NDArray[np.bool_] | None  # (m,), which of m consecutive rows are left out; None if none is

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The numbers of the rows, (n,), as messages count them. Those of several files are counted as one file's."""
        if self.unused is None:
            return np.arange(self.first_row, self.first_row + len(self.batch.x))
        return np.flatnonzero(~self.unused) + self.first_row


@dataclass(frozen=True)
class RowCounts:
    """What a pass over some rows found."""

    read: int
    complete: int
    dropped: int
    zero_weight_rows: int
    gaps: GapRecord
    filled: dict[str, int]  # column to its gaps, those that were filled included
    rounded: dict[str, int]  # column to the first row in which an integer was rounded


class TrainingRows:
    """Features, targets and weights in a stored file, encoded by a schema, for any number of passes."""

    def __init__(
        self,
        source: Source,
        format_name: str,
        schema: TableSchema,
        *,
        weight_kind: WeightKind = "precision",
        late: Mapping[str, int] = MappingProxyType({}),
        groups: Groups | None = None,
        threads: int = 1,
        span: Span | None = None,
        is_part: bool = False,
    ) -> None:
        """Describe the rows of the file at `path`, or only those of `span`.

        With `is_part`, there are other rows elsewhere, so that all of these may be left out.
        """
        self.schema = schema
        self.read = 0  # Rows that the last pass has read so far.
        self.complete = 0  # Rows that the last pass yielded.
        self.dropped = 0  # Rows that the last pass left out because a value was missing.
        self.zero_weight_rows = 0  # Rows that the last pass left out because their weight is 0.
        self._names = [column.name for column in schema.numbers]
        self.gaps = GapPatterns(self._names)  # of the rows that the last pass left out
        self._notes = Notes()  # about the cells that the last pass encoded
        self._rounded: dict[str, int] = {}  # Column to the first row in which an integer was rounded.
        self._others: dict[str, None] = {}  # Names in rows that are not read.
        self._source = source
        self._format = None if format_name == MATRIX else format_of(format_name, source)
        if span is not None and self._format is not None:
            self._format = self._format.within(span)
        self._is_part = is_part
        self._features, self._targets = len(schema.encoded_features), len(schema.targets)
        self._weight_kind = weight_kind
        self._refused = [place for place, column in enumerate(schema.numbers) if column.missing == "refuse"]
        self._drops = len(self._refused) < len(self._names)
        self._groups = groups
        self._late = late
        self._first_row = 1 if self._format is None else self._format.first_row(schema.dialect)
        self._threads = threads

    @property
    def gaps_by_column(self) -> dict[str, int]:
        """The columns with gaps and their numbers, the largest first, those that were filled included."""
        filled = {column.name for column in self.schema.numbers if column.missing in ("indicator", "fill")}
        gaps = self.gaps.by_column | {name: count for name, count in self._notes.gaps.items() if name in filled}
        return dict(sorted(gaps.items(), key=lambda item: -item[1]))

    @property
    def warnings(self) -> list[str]:
        """Warnings of the last pass."""
        rounded = rounding_warnings({name: self._rounded[name] for name in self._names if name in self._rounded})
        warnings = [with_files(warning, self._source, self._first_row) for warning in rounded]
        late = list(self._late.items())[:MAX_WARNINGS] if self.dropped else ()
        return warnings + [
            f'The name "{name}" first appears in line {line}: no row before it has a value.' for name, line in late
        ]

    @property
    def unused(self) -> list[str]:
        """The columns that are neither features nor targets; if each row has names, those that the last pass found."""
        used = {column.name for column in (*self.schema.features, *self.schema.targets)}
        others = () if self._groups is None else (self._groups.column,)
        if self._format is None:  # Weights have no column in the rows that were sent.
            names: Iterable[str] = others
        elif self._format.names_in_rows:
            names = (*self._names, *others, *self._others)
        else:
            names = self._format.column_names(self._source, self.schema.dialect)
        return [name for name in dict.fromkeys(names) if name not in used]

    @property
    def counts(self) -> RowCounts:
        """What the last pass found, to be added to that of other rows."""
        return RowCounts(
            self.read,
            self.complete,
            self.dropped,
            self.zero_weight_rows,
            self.gaps.record,
            dict(self._notes.gaps),
            dict(self._rounded),
        )

    def add_counts(self, counts: RowCounts) -> None:
        """Add what a pass over other rows of the same columns found. Rounded integers are noted once a column."""
        self.read += counts.read
        self.complete += counts.complete
        self.dropped += counts.dropped
        self.zero_weight_rows += counts.zero_weight_rows
        self.gaps.merge(counts.gaps)
        self._notes.gaps.update(counts.filled)
        for name, row in counts.rounded.items():
            self._rounded[name] = min(row, self._rounded.get(name, row))

    def begin_pass(self) -> None:
        """Forget what the last pass found."""
        self.read = self.complete = self.dropped = self.zero_weight_rows = 0
        self.gaps, self._notes = GapPatterns(self._names), Notes()
        self._rounded = {}

    def batches(self) -> Iterator[TrainingBatch]:
        """Yield the rows, a few thousand at a time.

        A row of weight 0 is checked and left out. It counts neither as a row nor as dropped. If a column refuses gaps,
        one in such a row is refused as in any other.

        Raises InvalidInput with row and column of the first value that cannot be encoded or is not finite, of the first
        gap that is refused, or of the first weight that is negative or, with frequency weights, not a whole number.
        Also raises it if the file has rows, but all are left out.
        """
        for numbered in self.numbered_batches():
            yield numbered.batch

    def numbered_batches(self) -> Iterator[NumberedBatch]:
        """Yield the rows with their numbers. Raises as `batches` does."""
        with in_files(self._source, self._first_row):
            yield from self._batches()

    def place(self, number: int) -> tuple[str | None, int]:
        """Return the file and the row in it for a row's number of a finished pass; None if there is one file."""
        if not isinstance(self._source, FileSet):
            return None, number
        file, row = self._source.place(number - self._first_row)
        return file, self._first_row + row

    def _batches(self) -> Iterator[NumberedBatch]:
        self.begin_pass()
        last, first_row = self._features + self._targets, self._first_row
        for rows in self._plain_rows() if self._is_plain() else self._encoded_rows():
            if rows.others and len(self._others) < MAX_COLUMNS:
                self._others |= dict.fromkeys(name for name in sorted(rows.others) if len(name) <= MAX_NAME_LENGTH)
            unused = self._unused(rows, first_row)
            values, fold = rows.values, rows.fold
            begin, first_row = first_row, first_row + len(values)
            self.read += len(values)
            if unused is not None:
                values, fold = values[~unused], None if fold is None else fold[~unused]
            if len(values):
                self.complete += len(values)
                weights = values[:, last] if self.schema.weight is not None else None
                batch = TrainingBatch(values[:, : self._features], values[:, self._features : last], weights, fold)
                yield NumberedBatch(batch, begin, unused)
        if not self._is_part:
            self.check_left()

    def check_left(self) -> None:
        """Raise InvalidInput if the last pass read rows, but left all of them out."""
        if 0 < self.read == self.dropped + self.zero_weight_rows:
            raise self._nothing_left()

    def _is_plain(self) -> bool:
        """Return True if the format itself can read all columns as numbers."""
        if self._format is None or not self.schema.is_plain:
            return self._format is None
        if self._format.has_untyped_text:
            return self._format.is_text  # A workbook has cells of numbers and of text.
        return not any(column.strings for column in self.schema.numbers)

    def _unused(self, rows: _Rows, first_row: int) -> NDArray[np.bool_] | None:
        """Return which rows have weight 0 or are dropped, (n,), or None if none is."""
        if self.schema.weight is None and rows.gaps is None and rows.fold is None:
            return None
        zero = np.zeros(len(rows.values), dtype=bool)
        if self.schema.weight is not None:
            weights = rows.values[:, self._features + self._targets]
            if fault := first_weight_fault(weights, self._weight_kind):
                raise row_error(fault[1], row=first_row + fault[0], column=self.schema.weight.name)
            zero = weights == 0
            self.zero_weight_rows += int(zero.sum())
        if rows.gaps is not None and rows.gaps[:, self._refused].any():
            raise self._refused_gaps(rows.gaps, first_row)
        incomplete = np.zeros(len(rows.values), dtype=bool) if rows.gaps is None else rows.gaps.any(axis=1)
        if rows.fold is not None and (rows.fold == NO_FOLD).any():
            incomplete |= rows.fold == NO_FOLD
        incomplete &= ~zero
        if count := int(incomplete.sum()):
            self.dropped += count
            if rows.gaps is not None:
                self.gaps.add(rows.gaps[incomplete])
        unused = zero | incomplete
        return unused if unused.any() else None

    def _refused_gaps(self, gaps: NDArray[np.bool_], first_row: int) -> InvalidInput:
        """Return the error for the first gap in each column that refuses gaps."""
        places = [place for place in self._refused if gaps[:, place].any()][:MAX_LISTED]
        return in_columns(
            [
                FieldError(REFUSED, row=first_row + int(np.argmax(gaps[:, place])), column=self._names[place])
                for place in places
            ]
        )

    def _nothing_left(self) -> InvalidInput:
        if not self.dropped:
            return InvalidInput("Every row has weight 0, so none is left to train on. Give some a positive weight.")
        widths = {column.name: len(column.encoded_names) for column in self.schema.features}
        message = f"In every row a value is missing. {explain_too_few(0, self.gaps, widths).message}"
        if self.zero_weight_rows:
            message = (
                f"There are no rows to train on: {self.zero_weight_rows} row(s) have weight 0, and in the other "
                f"{self.dropped} a value is missing."
            )
        return InvalidInput(
            message,
            [
                FieldError(f"The name first appears in line {line}.", row=line, column=name)
                for name, line in list(self._late.items())[:MAX_WARNINGS]
            ],
        )

    def _plain_rows(self) -> Iterator[_Rows]:
        """Yield rows of numbers, which the format itself reads."""
        groups, numbers = self._groups, list(self._names)
        keep: list[str] = []
        # A matrix has a column of folds in place of the groups, unless the groups are a feature.
        has_folds = groups is not None and self._format is None and groups.column not in self._names
        if groups is not None and groups.column not in self._names:
            (numbers if has_folds else keep).append(groups.column)
        columns = Columns(numbers, keep, missing=self._drops, dialect=self.schema.dialect, late=self._late)
        row, width = self._first_row, len(self._names)
        for batch in self._read_plain(columns):
            for place, rounded in batch.rounded:
                self._rounded.setdefault(numbers[place], row + rounded)
            values, fold = batch.values[:, :width], None
            if groups is not None and has_folds:
                fold = np.nan_to_num(batch.values[:, -1], nan=NO_FOLD).astype(np.intp)
            elif groups is not None and batch.kept is not None:
                fold = groups.of_column(batch.kept.column(0))
            elif groups is not None:
                fold = groups.of_numbers(values[:, numbers.index(groups.column)])
            self._check_fold(fold, row)
            gaps = None if batch.is_complete else np.isnan(values)
            yield _Rows(values, gaps if gaps is not None and gaps.any() else None, fold, batch.others)
            row += len(values)

    def _read_plain(self, columns: Columns) -> Iterator[RowBatch]:
        if self._format is not None:
            yield from read_file(self._source, self._format, columns, self._threads)
            return
        assert isinstance(self._source, Path)
        rows = np.load(self._source, mmap_mode="r", allow_pickle=False)
        size = batch_rows(columns)
        for start in range(0, len(rows), size):
            values = np.asarray(rows[start : start + size])
            check(values, columns, start + 1)
            yield RowBatch(values)

    def _encoded_rows(self) -> Iterator[_Rows]:
        """Yield rows whose cells an encoder turns into numbers."""
        assert self._format is not None
        dialect, groups = self.schema.dialect, self._groups
        # The schema lacks only the levels whose rows are all left out because of gaps in other columns.
        untyped = self._format.has_untyped_text
        encoder = Encoder(self.schema.numbers, unknown="reference", training=True, dialect=dialect, untyped=untyped)
        notes = self._notes
        keep = dict.fromkeys([*encoder.texts, *([groups.column] if groups is not None else [])])
        columns = Columns(encoder.typed, [*keep], missing=True, dialect=dialect, late=self._late)
        row, size = self._first_row, batch_rows(Columns(encoder.names))
        with explained(self._source, self._format, dialect):
            for batch in self._format.cells(self._source, columns, self._threads):
                for name, rounded in batch.rounded.items():
                    self._rounded.setdefault(name, row + rounded)
                for start in range(0, batch.cells.num_rows, size):
                    cells = batch.cells.slice(start, size)
                    values, gaps = encoder.encode_with_gaps(cells, row, notes)
                    fold = None if groups is None else groups.of_column(cells.column(groups.column))
                    self._check_fold(fold, row)
                    yield _Rows(values, gaps, fold, batch.others)
                    row += len(values)
                for name, first in notes.rounded.items():
                    self._rounded.setdefault(name, first)

    def _check_fold(self, fold: NDArray[np.intp] | None, first_row: int) -> None:
        """Raise InvalidInput if a group is missing, but no row may be left out."""
        if fold is not None and self._groups is not None and not self._drops and (fold == NO_FOLD).any():
            row = first_row + int(np.argmax(fold == NO_FOLD))
            raise row_error("The group is missing.", row=row, column=self._groups.column)
