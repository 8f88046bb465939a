"""Stored training rows, whatever their format, to a stream of blocks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.data.formats import READERS, FileFormat
from app.data.groups import MISSING, Groups
from app.data.part import Array, Columns, Part, check, part_rows, refusal
from app.errors import InvalidInput
from app.regression.block import Block

Format: TypeAlias = Literal["matrix"] | FileFormat


def write_matrix(file: BinaryIO, *columns: Array) -> None:
    """Store rows that are already numbers: [x, y], with weights and then folds if there are any, side by side, float64.

    NaN is a missing one.
    """
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
        drop_missing: bool = False,
        groups: Groups | None = None,
        threads: int = 1,
    ) -> None:
        self.dropped = 0  # rows left out in the last pass, for a value that was missing
        self._path = path
        self._form = form
        self._features, self._targets, self._weight = len(features), len(targets), weight
        numbers = [*features, *targets, *([weight] if weight else [])]
        self._groups = groups
        # A matrix has a column of folds in place of groups that are no feature.
        self._has_folds = groups is not None and form == "matrix" and groups.column not in features
        if groups is not None and self._has_folds:
            numbers.append(groups.column)
        keep = [groups.column] if groups is not None and groups.column not in numbers else []
        self._columns = Columns(numbers, keep, missing=drop_missing)
        self._threads = threads

    def blocks(self) -> Iterator[Block]:
        """The rows in blocks of a few thousand.

        Raises InvalidInput with row and column of the first value that is missing, not a number or not finite, or of
        the first weight that is negative.
        """
        self.dropped = 0
        row = 2 if self._form == "csv" else 1
        last = self._features + self._targets
        for part in self._parts():
            values = part.values
            weights = values[:, last] if self._weight else None
            if weights is not None and (weights < 0).any():
                at = int(np.argmax(weights < 0))
                raise refusal("A weight cannot be negative.", row=row + at, column=self._weight)
            fold = self._fold(part, row)
            row += len(values)
            if self._columns.missing:
                incomplete = np.isnan(values).any(axis=1)
                if fold is not None:
                    incomplete |= fold == MISSING
                if incomplete.any():
                    self.dropped += int(incomplete.sum())
                    values = values[~incomplete]
                    weights = values[:, last] if self._weight else None
                    fold = None if fold is None else fold[~incomplete]
            yield Block(values[:, : self._features], values[:, self._features : last], weights, fold)
        if self.dropped and row - (2 if self._form == "csv" else 1) == self.dropped:
            raise InvalidInput("In every row a value is missing.")

    def _fold(self, part: Part, first_row: int) -> NDArray[np.intp] | None:
        """The fold of each row, if groups decide it. Raises InvalidInput for a group that may not be missing."""
        if self._groups is None:
            return None
        if self._has_folds:
            fold = np.nan_to_num(part.values[:, -1], nan=MISSING).astype(np.intp)
        elif part.kept is not None:
            fold = self._groups.of_column(part.kept.column(0))
        else:
            fold = self._groups.of_numbers(part.values[:, self._columns.numbers.index(self._groups.column)])
        if not self._columns.missing and (fold == MISSING).any():
            row = first_row + int(np.argmax(fold == MISSING))
            raise refusal("The group is missing.", row=row, column=self._groups.column)
        return fold

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
