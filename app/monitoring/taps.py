"""Taps and samples: rows of predictions on their way to the summaries, in bounded memory."""

from collections import deque
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from app.data.predict_decoder import to_array
from app.registry.version_file import Version
from app.regression.drift import MIN_ROWS
from app.regression.sufficient_statistics import Array

# Encoded rows: plain lists of floats, or a matrix.
Rows: TypeAlias = Sequence[Sequence[Any]] | Array

# Rows of one version that are summarised per flush. If there are more, a sample is taken, so a flush takes about 1 ms.
MAX_ROWS = 1000
# Values of one version's columns that are summarised per flush, which bounds the rows of a wide model.
MAX_VALUES = 1 << 14
# The same for MIN_ROWS rows, which a verdict needs. Models of this many columns have no cross products.
MAX_WIDE_VALUES = 1 << 20


def rows_kept(version: Version) -> int:
    """Return the number of rows of a version that are summarised per flush."""
    columns = max(1, len(version.model.columns))
    return max(1, min(MAX_ROWS, MAX_VALUES // columns), min(MIN_ROWS, MAX_WIDE_VALUES // columns))


class Tap:
    """Keeps the encoded rows of short requests, from one thread at a time, until another thread collects them.

    A prediction only appends to a bounded list. If there is no room for all rows, the first ones are kept. Each counter
    is written by one side only, so that no lock is needed: the predicting thread counts upwards, and the collecting
    thread remembers how far it got.
    """

    __slots__ = (
        "_collected_requests",
        "_collected_rows",
        "_kept",
        "_limit",
        "_taken",
        "requests",
        "room",
        "rows",
        "version",
    )

    def __init__(self, version: Version) -> None:
        self.version = version
        self.requests = 0
        self.rows = 0
        self.room = rows_kept(version)
        self._kept: deque[Rows] = deque()
        self._taken = 0
        self._limit = self.room
        self._collected_requests = self._collected_rows = 0

    def note(self, rows: Rows, count: int) -> None:
        """Count a request with encoded rows, `count` in number, and keep them if there is room.

        A list must not be changed afterwards. An array is copied.
        """
        self.requests += 1
        self.rows += count
        if self._taken < self._limit:
            if count == 1 and type(rows) is list:
                self._taken += 1
                self._kept.append(rows)
            else:
                self._keep(rows, count)

    def _keep(self, rows: Rows, count: int) -> None:
        """Keep all rows, or at regular distances as many as there is room for."""
        step = -(-count // (self._limit - self._taken))
        part = rows if step == 1 else rows[self.rows % step :: step]
        if isinstance(part, np.ndarray):
            part = part.copy()  # it may be a view of a parser's memory
        self._taken += len(part)
        self._kept.append(part)

    def collect(self) -> tuple[int, int, Array]:
        """Return the numbers of requests and rows since the last call, and the rows that were kept, (m, p)."""
        requests, rows = self.requests, self.rows
        since = requests - self._collected_requests, rows - self._collected_rows
        self._collected_requests, self._collected_rows = requests, rows
        width = len(self.version.model.features)
        kept = [self._kept.popleft() for _ in range(len(self._kept))]
        self._limit = self._taken + self.room
        return *since, _matrix(kept, width)


class Sample:
    """Keeps a random sample of all encoded rows of one version, however they are divided into requests and batches.

    Each row gets a random number, and those with the smallest numbers are kept.
    """

    def __init__(self, version: Version, random: np.random.Generator) -> None:
        self.version = version
        self.rows = 0
        self._room = rows_kept(version)
        self._random = random
        self._kept: list[Rows] = []
        self._numbers: list[Array] = []
        self._count = 0
        self._limit = 1.0  # rows with larger numbers are not kept

    def note(self, rows: Rows, count: int) -> None:
        """Count encoded rows, `count` in number, and keep those that belong to the sample. An array is copied."""
        self.rows += count
        numbers = self._random.random(count)
        chosen = np.flatnonzero(numbers < self._limit)
        if not len(chosen):
            return
        if len(chosen) > self._room:
            chosen = chosen[np.argpartition(numbers[chosen], self._room - 1)[: self._room]]
        self._kept.append(rows[chosen] if isinstance(rows, np.ndarray) else [rows[place] for place in chosen.tolist()])
        self._numbers.append(numbers[chosen])
        self._count += len(chosen)
        if self._count > 2 * self._room:
            self._thin()

    def collect(self) -> tuple[int, Array]:
        """Return the number of all rows, and the rows that were kept, (m, p)."""
        if self._count > self._room:
            self._thin()
        return self.rows, _matrix(self._kept, len(self.version.model.features))

    def _thin(self) -> None:
        numbers = np.concatenate(self._numbers)
        chosen = np.argpartition(numbers, self._room - 1)[: self._room]
        self._kept = [_matrix(self._kept, len(self.version.model.features))[chosen]]
        self._numbers = [numbers[chosen]]
        self._count, self._limit = self._room, float(numbers[chosen].max())


def _matrix(parts: Sequence[Rows], width: int) -> Array:
    """Return rows in lists and arrays as one matrix, (m, width)."""
    lists = [row for part in parts if not isinstance(part, np.ndarray) for row in part]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    return np.concatenate([to_array(lists, width), *arrays]) if arrays else to_array(lists, width)
