"""Counts the gaps of a table by column, and explains why too few complete rows are left."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.data.names import MAX_LISTED, shown
from app.errors import FieldError, InvalidInput

MAX_PATTERNS = 1_000  # Combinations of columns with a gap that are counted separately.

_COPY_ROWS = 1 << 14  # rows whose combinations are found at a time


class GapRecord(NamedTuple):
    """The content of GapPatterns."""

    rows: int
    counts: list[int]
    patterns: dict[bytes, int]


class GapPatterns:
    """The gaps of incomplete rows: their number by column, and by combination of columns."""

    def __init__(self, columns: Sequence[str]) -> None:
        """Count gaps of these columns: the features, targets and weight of the table, before encoding."""
        self.columns = tuple(columns)
        self.rows = 0  # incomplete rows
        self._counts = np.zeros(len(columns), np.int64)
        self._patterns: Counter[bytes] = Counter()  # columns with a gap, as bits, to the number of such rows

    def add(self, gaps: NDArray[np.bool_]) -> None:
        """Count some incomplete rows: which cells are gaps, (k, len(columns))."""
        self.rows += len(gaps)
        self._counts += gaps.sum(axis=0)
        for start in range(0, len(gaps), _COPY_ROWS):
            bits = np.packbits(gaps[start : start + _COPY_ROWS], axis=1)
            patterns, counts = np.unique(bits, axis=0, return_counts=True)
            for pattern, count in zip(patterns, counts.tolist(), strict=True):
                key = pattern.tobytes()
                if key in self._patterns or len(self._patterns) < MAX_PATTERNS:
                    self._patterns[key] += count

    @property
    def record(self) -> GapRecord:
        return GapRecord(self.rows, self._counts.tolist(), dict(self._patterns))

    def merge(self, other: GapRecord) -> None:
        """Add the gaps of other incomplete rows of the same columns."""
        self.rows += other.rows
        self._counts += np.array(other.counts, np.int64)
        for key, count in other.patterns.items():
            if key in self._patterns or len(self._patterns) < MAX_PATTERNS:
                self._patterns[key] += count

    @property
    def by_column(self) -> dict[str, int]:
        """The columns with gaps and their numbers, the largest first."""
        pairs = zip(self.columns, self._counts.tolist(), strict=True)
        return {name: count for name, count in sorted(pairs, key=lambda pair: -pair[1]) if count}

    def kept_without(self, columns: Sequence[str]) -> int:
        """Return the number of rows that are complete without these columns. Rare combinations may not be counted."""
        patterns, counts = self._unpacked()
        others = np.array([name not in columns for name in self.columns], dtype=bool)
        return int(counts[~patterns[:, others].any(axis=1)].sum())

    def to_drop(self, complete: int, widths: Mapping[str, int], intercept: bool) -> list[str]:
        """Return the columns to drop until there are more rows than coefficients, or none if that is impossible.

        Each is the column with the most gaps in the rows that are still incomplete.
        """
        patterns, counts = self._unpacked()
        dropped: list[str] = []
        coefficients = sum(widths.values()) + intercept
        while len(dropped) < len(widths) - 1:
            gaps = {name: int(counts @ patterns[:, self.columns.index(name)]) for name in widths if name not in dropped}
            name = max(gaps, key=lambda name: gaps[name])
            if not gaps[name]:
                break
            dropped.append(name)
            coefficients -= widths[name]
            patterns = patterns & (np.array(self.columns) != name)
            if complete + int(counts[~patterns.any(axis=1)].sum()) > coefficients:
                return dropped
        return []

    def _unpacked(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return the combinations, (k, len(columns)), and the number of rows that have each."""
        packed = np.frombuffer(b"".join(self._patterns), np.uint8).reshape(
            len(self._patterns), (len(self.columns) + 7) // 8
        )
        bits = np.unpackbits(packed, axis=1, count=len(self.columns)).astype(bool)
        return bits, np.fromiter(self._patterns.values(), np.int64, len(self._patterns))


def explain_too_few(
    complete: int, gaps: GapPatterns, widths: Mapping[str, int], intercept: bool = True
) -> InvalidInput:
    """Return the error for fewer complete rows than coefficients, with what `drop=` would keep.

    `widths` gives the number of columns of the design for each feature. Only features can be dropped.
    """
    coefficients = sum(widths.values()) + intercept
    counts = gaps.by_column
    listed = ", ".join(f"{shown(name)} {count:,}" for name, count in list(counts.items())[:MAX_LISTED])
    more = f" and {len(counts) - MAX_LISTED} more columns" if len(counts) > MAX_LISTED else ""
    message = f"{complete:,} complete rows for {coefficients:,} coefficients; gaps by column: {listed}{more}."
    details = [
        FieldError(f"{count:,} of {complete + gaps.rows:,} rows have a gap in this column.", column=name)
        for name, count in list(counts.items())[:MAX_LISTED]
    ]
    return InvalidInput(f"{message} {_advice(complete, gaps, widths, intercept)}", details)


def _advice(complete: int, gaps: GapPatterns, widths: Mapping[str, int], intercept: bool) -> str:
    names = gaps.to_drop(complete, widths, intercept)
    if names:
        kept = complete + gaps.kept_without(names)
        left = sum(widths.values()) + intercept - sum(widths[name] for name in names)
        option = ",".join(names) if all(_is_simple(name) for name in names) else ",".join(map(shown, names))
        return (
            f"`drop={option}` would keep {kept:,} rows for {left:,} coefficients; `missing=indicator` would keep all "
            "rows with gaps in features."
        )
    if set(gaps.by_column).isdisjoint(widths):
        return "Fill the gaps in, or send more rows."
    return "Fill the gaps in, send more rows, or give `missing=indicator`."


def _is_simple(name: str) -> bool:
    return name.isprintable() and "," not in name and "`" not in name
