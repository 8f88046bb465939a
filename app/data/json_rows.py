"""Convert decoded JSON rows, objects or arrays, to matrices and kept columns."""

import contextlib
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import chain, islice
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.data.json_faults import MAX_DETAILS, NUMBERS, all_faults, allowed_types, are_objects, fault_of, list_names
from app.data.lazy_pyarrow import pa, raise_if_memory
from app.data.rounding import rounded_numbers
from app.errors import FieldError, InvalidInput

_SKIPPING = msgspec.json.Decoder(msgspec.Raw)
# Text up to the next bracket outside strings. Possessive quantifiers, so the time is linear in its length.
_NEXT_BRACKET = re.compile(rb'[^"\[{]*+(?:"(?:[^"\\]++|\\.)*+"[^"\[{]*+)*+[\[{]', re.DOTALL)


def has_more_brackets(body: bytes, most: int) -> bool:
    """Return True if a body of JSON has more than `most` objects and arrays. Does not decode it."""
    if body.count(b"{") + body.count(b"[") <= most:
        return False  # The number without those in strings is smaller still.
    count = at = 0
    while count <= most and (bracket := _NEXT_BRACKET.match(body, at)):
        count += 1
        at = bracket.end()
    return count > most


def is_json(body: bytes) -> bool:
    """Return True if a body is JSON. Does not decode it."""
    try:
        _SKIPPING.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def to_matrix(
    rows: Sequence[Any],
    names: Sequence[str],
    pointer: str,
    *,
    missing: bool = False,
    ignored: AbstractSet[str] = frozenset(),
) -> NDArray[np.float64]:
    """Return decoded rows as float64, (len(rows), len(names)), with the columns in the order of `names`.

    Rows are all objects with exactly these names in any order, or all arrays with a value for each name. With one name
    they may also be numbers. Objects may have `ignored` names, which are not read. Values are finite numbers: no
    booleans, no strings, no null. If values may be `missing`, null is NaN.

    Raises InvalidInput with the first place of every fault. `pointer` is the place of the rows in the body.
    """
    allowed = allowed_types(missing=missing)
    if (matrix := _matrix(rows, names, allowed)) is not None:
        return matrix
    if ignored:
        rows = [without_names(row, ignored) if isinstance(row, dict) else row for row in rows]
        if (matrix := _matrix(rows, names, allowed)) is not None:
            return matrix
    raise all_faults(rows, names, pointer, [partial(fault_of, allowed=allowed)] * len(names))


def without_names(row: dict[str, Any], names: AbstractSet[str]) -> dict[str, Any]:
    """Return the row without the values of these names."""
    return {name: value for name, value in row.items() if name not in names}


def _matrix(rows: Sequence[Any], names: Sequence[str], allowed: frozenset[type]) -> NDArray[np.float64] | None:
    """Return rows without any fault as a matrix, and None for others."""
    width = len(names)
    try:
        if width == 1 and type(rows[0]) in allowed:
            values: list[Any] = [rows]
            widths = {width}
        elif are_objects(rows):
            values = [[row[name] for name in names] for row in rows]
            widths = {len(row) for row in rows}
        else:
            values = list(rows)
            widths = {len(row) if type(row) is list else -1 for row in rows}
        if widths == {width} and set(map(type, chain.from_iterable(values))) <= allowed:
            matrix = np.array(values, dtype=np.float64).reshape(len(rows), width)
            if np.isfinite(matrix).all() or (type(None) in allowed and not np.isinf(matrix).any()):
                return matrix
    except (KeyError, TypeError, OverflowError):
        pass  # all_faults finds the places
    return None


def as_rows(
    given: list[Any], names: Sequence[str], pointer: str, *, missing: bool = False, numbers: bool = True
) -> list[Any]:
    """Return a list of rows, given one or a flat list of numbers, or of any values unless they have to be `numbers`.

    With one name a flat list is returned unchanged, a value for each row. With several names, as many values become
    one row. Raises InvalidInput for any other flat list.
    """
    if numbers:
        if not all(type(value) in NUMBERS or value is None for value in (given[0], given[-1])):
            return given
        _check_numbers(given, pointer, allowed_types(missing=missing), "Not all values of the flat list are numbers.")
    elif any(isinstance(value, dict | list) for value in given):
        return given
    if len(names) == 1:
        return given
    if len(given) == len(names):
        return [given]
    what = "numbers" if numbers else "values"
    raise InvalidInput.at(
        pointer,
        f"Found a flat list of {len(given)} {what}; expected a list of rows, each with {len(names)} values "
        f"({list_names(names)}), such as [[1, 2, ...], [3, 4, ...]].",
    )


def _check_numbers(values: Sequence[Any], pointer: str, allowed: frozenset[type], message: str) -> None:
    """Raise InvalidInput with the places of values that are not finite numbers."""
    with contextlib.suppress(OverflowError):
        if set(map(type, values)) <= NUMBERS and np.isfinite(np.array(values, dtype=np.float64)).all():
            return
    details = (
        FieldError(fault, pointer=f"{pointer}/{index}")
        for index, value in enumerate(values)
        if (fault := fault_of(value, allowed))
    )
    if first := list(islice(details, MAX_DETAILS)):
        raise InvalidInput(f"{message} {first[0].pointer}: {first[0].message}", first)


def first_rounded_rows(rows: Sequence[Any], names: Sequence[str], matrix: NDArray[np.float64]) -> dict[str, int]:
    """Return the columns of a decoded matrix or column in which integers were rounded, and the first row, from 1."""
    return {names[column]: row + 1 for column, row in rounded_numbers(matrix, rows, names)}


def to_column(values: Sequence[Any], pointer: str, *, missing: bool = False) -> NDArray[np.float64]:
    """Return decoded numbers as a column, (len(values), 1). If values may be `missing`, null is NaN.

    Raises InvalidInput with the places of other values.
    """
    _check_numbers(values, pointer, allowed_types(missing=missing), "Not all of these are numbers.")
    return np.array(values, dtype=np.float64)[:, np.newaxis]


def without_kept(rows: Sequence[Any], keep: Sequence[str], pointer: str) -> Sequence[Any]:
    """Return the rows without their kept values. Raises InvalidInput with the places of rows that lack one."""
    if not keep:
        return rows
    details = (
        FieldError(f'"{name}" is missing.', pointer=f"{pointer}/{index}")
        for index, row in enumerate(rows)
        for name in keep
        if not isinstance(row, dict) or name not in row
    )
    if first := list(islice(details, MAX_DETAILS)):
        raise InvalidInput("Not all rows have the columns to keep.", first)
    kept = set(keep)
    return [without_names(row, kept) for row in rows]


def kept_columns(rows: Sequence[dict[str, Any]], keep: Sequence[str]) -> "pa.RecordBatch | None":
    """Return the kept columns of rows that all have them, or None if there are none."""
    if not keep:
        return None
    # Checked first, because pyarrow would make a column of each name in any of the objects.
    if any(isinstance(row[name], dict | list) for row in rows for name in keep):
        raise InvalidInput("A kept column has an array or an object. Expected numbers, strings, booleans or null.")
    try:
        arrays = [pa.array([row[name] for row in rows]) for name in keep]
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise_if_memory(error)
        raise InvalidInput("A kept column has values of several types. Expected values of one type, or null.") from None
    if any(
        pa.types.is_floating(array.type) and pa.compute.all(pa.compute.is_finite(array)).as_py() is False
        for array in arrays
    ):
        raise InvalidInput("A kept column has a number that is not finite.")
    return pa.RecordBatch.from_arrays(arrays, names=list(keep))
