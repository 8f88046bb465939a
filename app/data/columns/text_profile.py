"""The texts of a column: the distinct ones up to MAX_LEVELS, and the number of texts that each kind can read.

Distinct texts are parsed once, after the last row or when there are more than MAX_LEVELS. Later texts are parsed as
they come, until most of them contradict a kind. The result does not depend on the boundaries of batches.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.columns.booleans import parse_booleans
from app.data.columns.categories import levels_of
from app.data.columns.dates import parse_dates
from app.data.columns.gaps import WEAK_GAP_TEXTS, trimmed, without_gaps
from app.data.columns.numbers import as_text, is_text, parse_numbers
from app.data.columns.options import DateOrder
from app.data.columns.schema import Column
from app.data.columns.tally import Indices, Tally, total
from app.data.lazy_pyarrow import pa

MAX_LEVELS = 2_000  # Levels of a column.
MAX_LEVEL_LENGTH = 256  # Characters of a level.
MAX_COMPARED = 100_000  # Texts of a column that are compared with each other, to find identifiers.
BLOCK_ROWS = 1 << 16  # Rows between decisions about which kinds are still tried.
PATIENCE_ROWS = 2 * BLOCK_ROWS  # Rows before the first kind is given up.

_LEAST_SHARE = 0.1  # Share of the first MAX_LEVELS texts below which a kind is given up.

DATE_ORDERS: tuple[DateOrder | None, ...] = (None, "dmy", "mdy", "ymd")


@dataclass
class TextProfile:
    """The texts of a column, without those that are a gap in a category."""

    column: Column  # its options; the kind is open
    is_open: bool = True  # False if the column is a category in any case
    count: int = 0
    levels: dict[str, int] = field(default_factory=dict)  # distinct texts and their rows; with `is_full`, only some
    is_full: bool = False  # True if there are more than MAX_LEVELS texts, or one of them is too long
    is_long: bool = False  # True if a text has more than MAX_LEVEL_LENGTH characters
    compared: int = 0  # with `is_full`: texts that were compared with each other
    weak: int = 0  # rows with a gap of numbers only, such as "-"

    def __post_init__(self) -> None:
        column = self.column
        self.number = Tally(replace(column, kind="number"), parse_numbers)
        thousands = column.thousands or ("," if column.decimal == "." else "")
        self.thousands = Tally(replace(column, kind="number", thousands=thousands), parse_numbers)
        self.boolean = Tally(replace(column, kind="boolean"), parse_booleans)
        orders = DATE_ORDERS if column.dates is None else (None, column.dates)
        if column.dates == "ymd":  # Integers such as 20260131 are dates, too.
            orders = ("ymd",)
        self.dates: dict[DateOrder | None, Tally] = {
            order: Tally(replace(column, kind="date", dates=order), parse_dates) for order in orders
        }
        self._tallies = (self.number, self.thousands, self.boolean, *self.dates.values())
        self._category = replace(column, kind="category")
        self._firsts: dict[str, int] = {}  # first row of each level
        self._hashes: set[int] = set()

    @property
    def distinct(self) -> int:
        """Number of different texts: all, or with `is_full` those among `compared`."""
        return len(self._hashes) if self.is_full else len(self.levels)

    @property
    def first(self) -> int | None:
        """The first row with a text, from 0, or None."""
        return min(self._firsts.values(), default=None)

    def first_row_of(self, level: str) -> int:
        """Return the first row of a level, from 0, or 0 if it is not known."""
        return self._firsts.get(level, 0)

    def add(self, cells: "pa.Array", start: int) -> None:
        """Count the cells of rows from `start`, from 0. Raises TypeError if they have no levels."""
        if self.is_full:
            self._add_unknown(cells, start)
            return
        found = _found(levels_of(cells, self._category), start)
        new = [text for text in found if text not in self.levels]
        self.is_long = any(len(text) > MAX_LEVEL_LENGTH for text in new)
        if self.is_long or len(self.levels) + len(new) > MAX_LEVELS:
            self._overflow(new)
            self._add_unknown(cells, start)
            return
        for text, (rows, first) in found.items():
            self.levels[text] = self.levels.get(text, 0) + rows
            self._firsts.setdefault(text, first)
            self.count += rows

    def merge(self, count: int, levels: Mapping[str, int], firsts: Mapping[str, int]) -> None:
        """Count the texts of later rows. Too many texts make `is_full` true; then other properties are undefined."""
        self.count += count
        for text, rows in levels.items():
            self.levels[text] = self.levels.get(text, 0) + rows
            self._firsts.setdefault(text, firsts[text])
        self.is_full = self.is_full or len(self.levels) > MAX_LEVELS

    @property
    def first_rows(self) -> Mapping[str, int]:
        """The first row of each level, from 0."""
        return self._firsts

    def settle(self, row: int) -> None:
        """Give up the kinds that most texts contradict. Called after every BLOCK_ROWS rows."""
        if self.is_full and row >= PATIENCE_ROWS:
            for tally in self._tallies:
                fits = tally.fits + (self.number.fits if tally is not self.number else 0)
                tally.is_tried = tally.is_tried and 2 * fits > self.count

    def finish(self) -> None:
        """Read the distinct texts. Called once, after the last row."""
        if not self.is_full:
            self._read_levels()

    def _overflow(self, new: Iterable[str]) -> None:
        """Read the distinct texts so far, and keep some of the new ones as examples."""
        self._read_levels()
        self.is_full = True
        self._hashes, self.compared = set(map(hash, self.levels)), min(self.count, MAX_COMPARED)
        for text in new:
            if len(text) > MAX_LEVEL_LENGTH or len(self.levels) == MAX_LEVELS:
                break
            self.levels[text] = 0
        self._try_examples()

    def _try_examples(self) -> None:
        """Give up the kinds that can read few of the first distinct texts."""
        if not self.is_open or not self.levels:
            return
        examples = TextProfile(self.column)
        examples.levels = examples._firsts = dict.fromkeys(self.levels, 1)
        examples.finish()
        for tally, other in zip(self._tallies, examples._tallies, strict=True):
            tally.is_tried = other.fits > _LEAST_SHARE * len(self.levels)

    def _add_unknown(self, cells: "pa.Array", start: int) -> None:
        """Count cells without the number of each level."""
        texts = as_text(cells) if is_text(cells.type) else levels_of(cells, self._category).dictionary_decode()
        present = without_gaps(trimmed(texts), self._category).is_valid()
        rows = start + np.flatnonzero(present.to_numpy(zero_copy_only=False))
        texts = texts.filter(present)
        self.count += len(texts)
        if self.compared < MAX_COMPARED and len(texts):
            compared = texts[: MAX_COMPARED - self.compared]
            self.compared += len(compared)
            self._hashes.update(map(hash, compared.to_pylist()))
        self._read(texts, rows, None)

    def _read_levels(self) -> None:
        if self.levels:
            rows = np.fromiter((self._firsts[text] for text in self.levels), np.int64)
            self._read(pa.array(self.levels, pa.string()), rows, np.fromiter(self.levels.values(), np.int64))

    def _read(self, texts: "pa.Array", rows: Indices, weights: Indices | None) -> None:
        """Count the kinds that can read these texts. Those that can be numbers are read as nothing else."""
        if not self.is_open or not any(tally.is_tried for tally in self._tallies):
            return
        weak = pa.compute.is_in(trimmed(texts), value_set=pa.array(sorted(WEAK_GAP_TEXTS), texts.type))
        self.weak += total(weak.to_numpy(zero_copy_only=False), weights)
        if self.column.dates == "ymd":
            self.dates["ymd"].add(texts, rows, weights)
        if self.number.is_tried:
            values = self.number.add(texts, rows, weights).values
            texts, rows, weights = _where(np.isnan(values), texts, rows, weights)
        if self.thousands.is_tried and len(texts):
            self.thousands.add(texts, rows, weights)
        if self.boolean.is_tried and len(texts):
            self.boolean.add(texts, rows, weights)
        for order, tally in self.dates.items():
            if tally.is_tried and len(texts) and self.column.dates != "ymd":
                values = tally.add(texts, rows, weights).values
                if order is None:  # The other orders can read these, too.
                    texts, rows, weights = _where(np.isnan(values), texts, rows, weights)


def _found(levels: "pa.DictionaryArray", start: int) -> dict[str, tuple[int, int]]:
    """Return the levels that occur, in the order of their first rows, each with its rows and the first of them."""
    codes: NDArray[Any] = levels.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    is_level = np.append(levels.dictionary.is_valid().to_numpy(zero_copy_only=False), False)
    places = np.flatnonzero(is_level[codes])
    codes = codes[places]
    counts = np.bincount(codes, minlength=len(levels.dictionary))
    firsts = np.zeros(len(counts), np.int64)
    firsts[codes[::-1]] = places[::-1]  # The last assignment is that of the first row.
    used = np.flatnonzero(counts)
    used = used[np.argsort(firsts[used], kind="stable")]
    found: dict[str, tuple[int, int]] = {}
    texts = levels.dictionary.take(pa.array(used)).to_pylist()
    for text, rows, first in zip(texts, counts[used].tolist(), firsts[used].tolist(), strict=True):
        before, earlier = found.get(text, (0, start + first))
        found[text] = (before + rows, earlier)
    return found


def _where(
    cells: NDArray[np.bool_], texts: "pa.Array", rows: Indices, weights: Indices | None
) -> "tuple[pa.Array, Indices, Indices | None]":
    if cells.all():
        return texts, rows, weights
    return texts.filter(pa.array(cells)), rows[cells], None if weights is None else weights[cells]
