"""Stored training rows, whatever their format, to a stream of blocks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np

from app.data.formats import READERS, FileFormat
from app.data.part import Array, Columns, Part, check, part_rows, refusal
from app.data.weights import first_fault
from app.errors import InvalidInput
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
        threads: int = 1,
    ) -> None:
        self.dropped = 0  # rows left out in the last pass, for a value that was missing
        self._path = path
        self._form = form
        self._features, self._targets, self._weight = len(features), len(targets), weight
        self._weight_kind = weight_kind
        self._columns = Columns([*features, *targets, *([weight] if weight else [])], missing=drop_missing)
        self._threads = threads

    def blocks(self) -> Iterator[Block]:
        """The rows in blocks of a few thousand.

        Raises InvalidInput with row and column of the first value that is missing, not a number or not finite, or of
        the first weight that is negative or, of frequency weights, not a whole number.
        """
        self.dropped = 0
        row = 2 if self._form == "csv" else 1
        last = self._features + self._targets
        for values, _ in self._parts():
            weights = values[:, last] if self._weight else None
            if weights is not None and (fault := first_fault(weights, self._weight_kind)):
                raise refusal(fault[1], row=row + fault[0], column=self._weight)
            row += len(values)
            if self._columns.missing and (incomplete := np.isnan(values).any(axis=1)).any():
                self.dropped += int(incomplete.sum())
                values = values[~incomplete]  # noqa: PLW2901 - those that are left
                weights = values[:, last] if self._weight else None
            yield Block(values[:, : self._features], values[:, self._features : last], weights)
        if self.dropped and row - (2 if self._form == "csv" else 1) == self.dropped:
            raise InvalidInput("In every row a value is missing.")

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
