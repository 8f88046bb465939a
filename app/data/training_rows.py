"""The stored rows of a training, read in batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from app.data.batch import MAX_COLUMNS, Array, Columns, RowBatch, batch_rows, check, row_error
from app.data.columns.schema import PLAIN, Dialect
from app.data.formats import BY_NAME
from app.data.groups import MISSING, Groups
from app.data.names import MAX_NAME_LENGTH
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


class TrainingRows:
    """Features, targets and weights in a stored file, for any number of passes."""

    def __init__(
        self,
        path: Path,
        format_name: str,
        features: Sequence[str],
        targets: Sequence[str],
        weight: str | None = None,
        *,
        weight_kind: WeightKind = "precision",
        drop_missing: bool = False,
        dialect: Dialect = PLAIN,
        late: Mapping[str, int] = MappingProxyType({}),
        groups: Groups | None = None,
        threads: int = 1,
    ) -> None:
        self.dropped = 0  # Rows that the last pass left out because a value was missing.
        self.zero_weight_rows = 0  # Rows that the last pass left out because their weight is 0.
        self._rounded: dict[int, int] = {}  # Index of a column to the first row in which an integer was rounded.
        self._others: dict[str, None] = {}  # Names in rows that are not read.
        self._path = path
        self._format = None if format_name == MATRIX else BY_NAME[format_name]
        self._features, self._targets, self._weight = len(features), len(targets), weight
        self._weight_kind = weight_kind
        numbers = [*features, *targets, *([weight] if weight is not None else [])]
        self._groups = groups
        # A matrix has a column of folds in place of the groups, unless the groups are a feature.
        self._has_folds = groups is not None and self._format is None and groups.column not in features
        if groups is not None and self._has_folds:
            numbers.append(groups.column)
        keep = [groups.column] if groups is not None and groups.column not in numbers else []
        self._columns = Columns(numbers, keep, missing=drop_missing, dialect=dialect, late=late)
        self._first_row = 1 if self._format is None else self._format.first_row(dialect)
        self._threads = threads

    @property
    def warnings(self) -> list[str]:
        """Warnings of the last pass."""
        names = self._columns.numbers
        warnings = rounding_warnings({names[index]: row for index, row in sorted(self._rounded.items())})
        late = list(self._columns.late.items())[:MAX_WARNINGS] if self.dropped else ()
        return warnings + [
            f'The name "{name}" first appears in line {line}: no row before it has a value.' for name, line in late
        ]

    @property
    def unused(self) -> list[str]:
        """The columns that are neither features nor targets; if each row has names, those that the last pass found."""
        numbers, keep = self._columns.numbers, self._columns.keep
        used = {*numbers[: self._features + self._targets]}
        if self._format is None:  # Weights have no column in the rows that were sent.
            names: Iterable[str] = numbers[-1:] if self._has_folds else ()
        elif self._format.names_in_rows:
            names = (*numbers, *keep, *self._others)
        else:
            names = self._format.column_names(self._path, self._columns.dialect)
        return [name for name in dict.fromkeys(names) if name not in used]

    def batches(self) -> Iterator[TrainingBatch]:
        """Yield the rows, a few thousand at a time.

        A row of weight 0 is checked and left out. It counts neither as a row nor as dropped. Unless missing values may
        be dropped, one in such a row is refused as in any other.

        Raises InvalidInput with row and column of the first value that is missing, not a number or not finite, or of
        the first weight that is negative or, with frequency weights, not a whole number. Also raises it if there are
        rows, but all are left out.
        """
        self.dropped = self.zero_weight_rows = 0
        self._rounded = {}
        last, first_row = self._features + self._targets, self._first_row
        for batch in self._row_batches():
            for column, row in batch.rounded:
                self._rounded.setdefault(column, first_row + row)
            if batch.others and len(self._others) < MAX_COLUMNS:
                self._others |= dict.fromkeys(name for name in sorted(batch.others) if len(name) <= MAX_NAME_LENGTH)
            values, fold = batch.values, self._fold(batch, first_row)
            unused = self._unused(values, fold, first_row)
            first_row += len(values)
            if unused.any():
                values, fold = values[~unused], None if fold is None else fold[~unused]
            if len(values):
                weights = values[:, last] if self._weight is not None else None
                yield TrainingBatch(values[:, : self._features], values[:, self._features : last], weights, fold)
        if 0 < first_row - self._first_row == self.dropped + self.zero_weight_rows:
            raise self._nothing_left()

    def _unused(self, values: Array, fold: NDArray[np.intp] | None, first_row: int) -> NDArray[np.bool_]:
        """Return which rows have weight 0 or are dropped, (n,)."""
        zero = np.zeros(len(values), dtype=bool)
        if self._weight is not None:
            weights = values[:, self._features + self._targets]
            if fault := first_weight_fault(weights, self._weight_kind):
                raise row_error(fault[1], row=first_row + fault[0], column=self._weight)
            zero = weights == 0
            self.zero_weight_rows += int(zero.sum())
        if not self._columns.missing:
            return zero
        incomplete = np.isnan(values).any(axis=1)
        if fold is not None:
            incomplete |= fold == MISSING
        self.dropped += int((incomplete & ~zero).sum())
        return zero | incomplete

    def _nothing_left(self) -> InvalidInput:
        if not self.dropped:
            return InvalidInput("Every row has weight 0, so none is left to train on. Give some a positive weight.")
        message = (
            "In every row a value is missing, so none is left to train on. Fill values in, or leave columns out with "
            "`features`."
        )
        if self.zero_weight_rows:
            message = (
                f"There are no rows to train on: {self.zero_weight_rows} row(s) have weight 0, and in the other "
                f"{self.dropped} a value is missing."
            )
        return InvalidInput(
            message,
            [
                FieldError(f"The name first appears in line {line}.", row=line, column=name)
                for name, line in list(self._columns.late.items())[:MAX_WARNINGS]
            ],
        )

    def _fold(self, batch: RowBatch, first_row: int) -> NDArray[np.intp] | None:
        """Return the fold of each row if groups decide it. Raises InvalidInput for a group that may not be missing."""
        if self._groups is None:
            return None
        if self._has_folds:
            fold = np.nan_to_num(batch.values[:, -1], nan=MISSING).astype(np.intp)
        elif batch.kept is not None:
            fold = self._groups.of_column(batch.kept.column(0))
        else:
            fold = self._groups.of_numbers(batch.values[:, self._columns.numbers.index(self._groups.column)])
        if not self._columns.missing and (fold == MISSING).any():
            row = first_row + int(np.argmax(fold == MISSING))
            raise row_error("The group is missing.", row=row, column=self._groups.column)
        return fold

    def _row_batches(self) -> Iterator[RowBatch]:
        if self._format is not None:
            yield from read_file(self._path, self._format, self._columns, self._threads)
            return
        rows = np.load(self._path, mmap_mode="r", allow_pickle=False)
        size = batch_rows(self._columns)
        for start in range(0, len(rows), size):
            values = np.asarray(rows[start : start + size])
            check(values, self._columns, start + 1)
            yield RowBatch(values)
