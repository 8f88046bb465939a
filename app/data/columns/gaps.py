"""Gaps: cells without a value. The texts that mark one, and where they are in a column of text."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.data.batch import Array
from app.data.columns.schema import Column
from app.data.lazy_pyarrow import pa

# Texts that mark a gap in a column of numbers, booleans or dates. Spaces around them do not matter.
GAP_TEXTS = frozenset(
    [
        *("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "null", "NULL", "None", "<NA>", "NaT", r"\N"),
        *("#N/A", "#N/A N/A", "#NA", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!", "#SPILL!", "#CALC!"),
        *("#GETTING_DATA", "#FIELD!", "#BLOCKED!", "#UNKNOWN!", "#CONNECT!", "#BUSY!", "#EXTERNAL!", "#PYTHON!"),
        *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    ]
)
# Further texts that mark a gap in a column of numbers.
WEAK_GAP_TEXTS = frozenset(["?", ".", "-", "--"])
# The only gaps of a column of words that is read as text; an unquoted NA is null already.
WORD_GAP_TEXTS = frozenset([""])
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"  # with a decimal point
SPACES = " \t\r\n\v\f\u00a0\u2007\u2009\u202f\ufeff"  # around a cell


class Parsed(NamedTuple):
    """The values of cells as numbers. NaN is a gap or a fault."""

    values: Array  # (n,)
    faults: NDArray[np.bool_] | None = None  # (n,), cells that cannot be read; None if there are none
    rounded: int | None = None  # first row with an integer that float64 cannot hold

    @property
    def first_fault(self) -> int | None:
        """Return the first row at fault, or None."""
        return None if self.faults is None else int(np.argmax(self.faults))

    @property
    def gaps(self) -> NDArray[np.bool_]:
        """Return which cells are gaps, (n,)."""
        missing: NDArray[np.bool_] = np.isnan(self.values)
        return missing if self.faults is None else missing & ~self.faults

    def take(self, indices: "pa.Array") -> "Parsed":
        """Return the values of the rows of a dictionary's indices, without `rounded`. A null index is a gap."""
        missing = indices.is_null().to_numpy(zero_copy_only=False) if indices.null_count else None
        places = indices.fill_null(0).to_numpy(zero_copy_only=False) if indices.null_count else indices.to_numpy()
        if not len(self.values):  # Then all indices are null.
            return Parsed(np.full(len(indices), np.nan))
        values = self.values[places]
        faults = None if self.faults is None else self.faults[places]
        if missing is not None:
            values[missing] = np.nan
            faults = None if faults is None else faults & ~missing
        return Parsed(values, faults if faults is not None and faults.any() else None)


def gap_texts(column: Column) -> frozenset[str]:
    """Return the texts that mark a gap in a column, without spaces around them."""
    return _gap_texts(column.kind, column.na)


@lru_cache
def _gap_texts(kind: str, na: Sequence[str]) -> frozenset[str]:
    always = WORD_GAP_TEXTS if kind == "category" else GAP_TEXTS
    weak = WEAK_GAP_TEXTS if kind == "number" else frozenset()
    return frozenset([*always, *weak, *(text.strip(SPACES) for text in na)])


@lru_cache
def _value_set(texts: frozenset[str], type_: "pa.DataType") -> "pa.Array":
    return pa.array(sorted(texts), type_)


def is_gap(value: object, column: Column) -> bool:
    """Return True if a value of a JSON document is a gap in this column."""
    if isinstance(value, str):
        return value.strip(SPACES) in gap_texts(column)
    if isinstance(value, float) and math.isnan(value):
        return True
    return value is None or (bool(column.na) and not isinstance(value, bool) and value in numeric_gaps(column.na))


@lru_cache
def numeric_gaps(texts: tuple[str, ...]) -> tuple[float, ...]:
    """Return the numbers among the texts that mark a gap, such as -999."""
    return tuple(float(text) for text in texts if re.fullmatch(NUMBER, text.strip(SPACES)))


def trimmed(texts: "pa.Array") -> "pa.Array":
    """Return texts without the spaces around them."""
    return pa.compute.utf8_trim(texts, characters=SPACES)


def without_gaps(texts: "pa.Array", column: Column) -> "pa.Array":
    """Return trimmed texts with null in place of each gap."""
    gaps = pa.compute.is_in(texts, value_set=_value_set(gap_texts(column), texts.type))
    if not pa.compute.any(gaps).as_py():
        return texts
    return pa.compute.if_else(gaps, pa.scalar(None, texts.type), texts)


def first_valid(texts: "pa.Array") -> "pa.Array":
    """Return the first text that is not null, or none. Casting it shows whether a cast of all may succeed.

    A cast that fails takes 100 times longer, because pyarrow describes each fault.
    """
    if texts.null_count == len(texts):
        return texts.slice(0, 0)
    return texts.slice(pa.compute.index(texts.is_valid(), value=True).as_py(), 1)
