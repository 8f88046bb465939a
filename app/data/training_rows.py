"""Stored training rows, whatever their format, to a stream of blocks."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Literal, TypeAlias

import numpy as np

from app.data.formats import READERS, FileFormat, first_row
from app.data.part import Array, Columns, Header, Part, check, part_rows, refusal
from app.data.rounding import MAX_WARNINGS, rounding_warnings
from app.data.weights import first_fault
from app.errors import Detail, InvalidInput
from app.regression.block import Block
from app.regression.sufficient_statistics import WeightKind

Format: TypeAlias = Literal["matrix"] | FileFormat


def write_matrix(file: BinaryIO, *columns: Array) -> None:
    """Store rows that are already numbers: [x, y], or [x, y, weights], side by side, float64; NaN is a missing one."""
    np.save(file, np.hstack(columns), allow_pickle=False)


class TrainingRows:
    """Features, targets and weights in a stored file, for as many passes as are wanted."""

    def __init__(
        self,
        path: Path,
        form: Format,
        features: Sequence[str],
        targets: Sequence[str],
        weight: str | None = None,
        *,
        weight_kind: WeightKind = "precision",
        drop_missing: bool = False,
        header: Header | None = None,
        late: Mapping[str, int] = MappingProxyType({}),
        threads: int = 1,
    ) -> None:
        # Of the last pass: rows left out because a value was missing, and rows ignored because their weight is 0.
        self.dropped = self.zero_weight_rows = 0
        self._rounded: dict[int, int] = {}  # column to the first row in which an integer was rounded
        self._path = path
        self._form = form
        self._features, self._targets, self._weight = len(features), len(targets), weight
        self._weight_kind = weight_kind
        names = [*features, *targets, *([weight] if weight is not None else [])]
        self._columns = Columns(names, missing=drop_missing, header=header, late=late)
        self._first_row = first_row(form, header)
        self._threads = threads

    @property
    def warnings(self) -> list[str]:
        """What the last pass found that does not fail a job."""
        found = rounding_warnings({self._columns.numbers[index]: row for index, row in sorted(self._rounded.items())})
        if self.dropped:
            late = list(self._columns.late.items())[:MAX_WARNINGS]
            found += [
                f'The name "{name}" first appears in line {line}: no row before it has a value.' for name, line in late
            ]
        return found

    def blocks(self) -> Iterator[Block]:
        """The rows in blocks of a few thousand.

        A row of weight 0 is left out once it is read and checked, and counts neither as a row nor as dropped. Unless
        missing values may be dropped, one in such a row is refused as in any other.

        Raises InvalidInput with row and column of the first value that is missing, not a number or not finite, or of
        the first weight that is negative or, of frequency weights, not a whole number; and if there are rows, but all
        are left out.
        """
        self.dropped = self.zero_weight_rows = read = 0
        self._rounded = {}
        last = self._features + self._targets
        for values, _, rounded in self._parts():
            for column, row in rounded:
                self._rounded.setdefault(column, self._first_row + read + row)
            kept = self._used(values, self._first_row + read)
            read += len(values)
            if len(kept):
                weights = kept[:, last] if self._weight is not None else None
                yield Block(kept[:, : self._features], kept[:, self._features : last], weights)
        if read and read == self.dropped + self.zero_weight_rows:
            raise self._nothing_left()

    def _used(self, values: Array, row: int) -> Array:
        """The rows that have a weight and, if missing values are dropped, all values; `row` is that of the first."""
        if self._weight is not None:
            weights = values[:, -1]
            if fault := first_fault(weights, self._weight_kind):
                raise refusal(fault[1], row=row + fault[0], column=self._weight)
            if (zero := weights == 0).any():
                self.zero_weight_rows += int(zero.sum())
                values = values[~zero]
        if self._columns.missing and (incomplete := np.isnan(values).any(axis=1)).any():
            self.dropped += int(incomplete.sum())
            values = values[~incomplete]
        return values

    def _nothing_left(self) -> InvalidInput:
        late = [
            Detail(f"The name first appears in line {line}.", row=line, column=name)
            for name, line in list(self._columns.late.items())[:MAX_WARNINGS]
        ]
        if not self.dropped:
            return InvalidInput("Every row has weight 0.")
        if not self.zero_weight_rows:
            return InvalidInput("In every row a value is missing.", late)
        return InvalidInput(
            f"There are no rows to train on: {self.zero_weight_rows} row(s) have weight 0, and in the other "
            f"{self.dropped} a value is missing.",
            late,
        )

    def _parts(self) -> Iterator[Part]:
        if self._form != "matrix":
            yield from READERS[self._form](self._path, self._columns, self._threads)
            return
        rows = np.load(self._path, mmap_mode="r", allow_pickle=False)
        size = part_rows(self._columns)
        for start in range(0, len(rows), size):
            values = np.asarray(rows[start : start + size])
            check(values, self._columns, start + 1)
            yield Part(values)
