"""Finds integers that float64 cannot hold, so that none is rounded without a warning."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.data.lazy_pyarrow import pa

Array: TypeAlias = NDArray[np.float64]
# Index of a column and row, from 0, of the first integer that was rounded in it.
Rounded: TypeAlias = tuple[tuple[int, int], ...]

EXACT = 2.0**53  # Magnitude below which float64 holds every integer.
MAX_WARNINGS = 20  # Columns with a warning of their own.

_INTEGER = re.compile(r"[+-]?[0-9]+(?:\.0*)?")


def are_small(values: Array) -> bool:
    """Return True if all values are finite numbers of a magnitude below EXACT. This is nearly always so."""
    return not values.size or bool(values.max() < EXACT and values.min() > -EXACT)


def has_large(values: Array) -> bool:
    """Return True if the magnitude of a value is at least EXACT. NaN is ignored."""
    return bool(np.fmax.reduce(values, axis=None, initial=0) >= EXACT) or bool(
        np.fmin.reduce(values, axis=None, initial=0) <= -EXACT
    )


def first_rounded(exact: "pa.Array", values: Array) -> int | None:
    """Return the first row of a column in which `values` differs from the integer it was made from, or None.

    `exact` holds integers, decimals, or text of a CSV file. Values of other types are not integers, and neither are
    decimals and text with a fraction or an exponent.
    """
    type_ = exact.type
    is_candidate = (
        pa.types.is_int64(type_) or pa.types.is_uint64(type_) or pa.types.is_decimal(type_) or pa.types.is_string(type_)
    )
    if not is_candidate or not has_large(values):
        return None
    rows = np.flatnonzero(np.abs(values) >= EXACT)
    at = _first_changed(exact.take(rows), values[rows])
    return None if at is None else int(rows[at])


def _first_changed(exact: "pa.Array", values: Array) -> int | None:
    if not pa.types.is_integer(exact.type):
        try:
            exact = exact.cast(pa.int64())
        except pa.ArrowInvalid:  # A fraction, spaces, or more than 64 bits.
            pairs = zip(exact.to_pylist(), values.tolist(), strict=True)
            return next((row for row, (given, value) in enumerate(pairs) if _is_changed(given, value)), None)
    integers = exact.to_numpy()
    limit = 2.0**63 if integers.dtype == np.int64 else 2.0**64
    with np.errstate(invalid="ignore"):  # A float of 2**63 or 2**64 is out of range; the first test finds it.
        changed = (values >= limit) | (values.astype(integers.dtype) != integers)
    return int(np.argmax(changed)) if changed.any() else None


def _is_changed(given: str | Decimal, value: float) -> bool:
    text = format(given, "f") if isinstance(given, Decimal) else given.strip(" \t")
    # Decimal takes any number of digits and compares exactly.
    return _INTEGER.fullmatch(text) is not None and Decimal(text) != Decimal(value)


def rounded_numbers(values: Array, rows: Sequence[Any], names: Sequence[str]) -> Rounded:
    """Return the places of rounded integers in a matrix made from decoded JSON.

    `rows` are objects with `names`, arrays, or numbers of a single column.
    """
    if not has_large(values):
        return ()
    first: dict[int, int] = {}
    for row, column in np.argwhere(np.abs(values) >= EXACT).tolist():
        if column not in first:
            given = rows[row]
            if isinstance(given, dict):
                given = given[names[column]]
            number = given[column] if isinstance(given, list) else given
            if type(number) is int and float(values[row, column]) != number:
                first[column] = row
    return tuple(first.items())


def rounding_warnings(first_rows: Mapping[str, int]) -> list[str]:
    """Return a warning for each column that had an integer rounded; `first_rows` gives its row, counted from 1."""
    warnings = [
        f'The column "{name}" holds integers beyond 2^53 that a 64-bit float cannot represent: they were rounded, '
        f"first in row {row}. Subtract a constant from the column, or leave it out if it only identifies rows."
        for name, row in list(first_rows.items())[:MAX_WARNINGS]
    ]
    if len(first_rows) > MAX_WARNINGS:
        warnings.append(f"Integers beyond 2^53 were rounded in {len(first_rows) - MAX_WARNINGS} more columns.")
    return warnings
