"""Rows that came as JSON, objects or arrays, to a matrix."""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from app.data.rounding import rounded_numbers
from app.errors import Detail, InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DETAILS = 20
AT_ONCE = 1 << 17  # numbers that are Python objects
NUMBERS: frozenset[type] = frozenset({int, float})  # bool is a type of its own here, and no number

_SKIPPING = msgspec.json.Decoder(msgspec.Raw)
# Up to the next bracket that is in no string. Nothing is tried in two ways.
_NEXT_BRACKET = re.compile(rb'[^"\[{]*+(?:"(?:[^"\\]++|\\.)*+"[^"\[{]*+)*+[\[{]', re.DOTALL)


def has_more_brackets(body: bytes, most: int) -> bool:
    """Whether more than so many objects and arrays are in a body of JSON, found without decoding it."""
    if body.count(b"{") + body.count(b"[") <= most:
        return False  # whatever stands in strings
    found = at = 0
    while found <= most and (bracket := _NEXT_BRACKET.match(body, at)):
        found += 1
        at = bracket.end()
    return found > most


def is_json(body: bytes) -> bool:
    """Whether it is JSON, found without decoding it."""
    try:
        _SKIPPING.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def are_objects(rows: Sequence[Any]) -> bool:
    """Whether the first row, which sets the form of all, is an object."""
    return isinstance(rows[0], dict)


def to_matrix(
    rows: Sequence[Any],
    names: Sequence[str],
    pointer: str,
    *,
    missing: bool = False,
    ignored: AbstractSet[str] = frozenset(),
) -> NDArray[np.float64]:
    """The decoded rows as float64, (len(rows), len(names)), columns in the order of `names`.

    Rows are all objects with exactly these names in any order, or all arrays of as many values. Objects may also have
    `ignored` names, which are not read. Values are finite numbers: no booleans, no strings, no null; where values may
    be `missing`, null is NaN. `pointer` is where the rows stand in the body; InvalidInput names the first 20 places
    where something else stands.
    """
    allowed = NUMBERS | {type(None)} if missing else NUMBERS
    if (matrix := _matrix(rows, names, allowed)) is not None:
        return matrix
    if ignored:
        rows = [without_names(row, ignored) if isinstance(row, dict) else row for row in rows]
        if (matrix := _matrix(rows, names, allowed)) is not None:
            return matrix
    details = list(islice(_faults(rows, names, pointer, allowed), MAX_DETAILS))
    raise InvalidInput(f"{len(details)}{'+' * (len(details) == MAX_DETAILS)} fault(s) in the rows.", details)


def without_names(row: dict[str, Any], names: AbstractSet[str]) -> dict[str, Any]:
    """Return the row without the values of these names."""
    return {name: value for name, value in row.items() if name not in names}


def _matrix(rows: Sequence[Any], names: Sequence[str], allowed: frozenset[type]) -> NDArray[np.float64] | None:
    """Return rows that are exactly as they should be as a matrix, and None for others."""
    width = len(names)
    try:
        if are_objects(rows):
            values: list[Any] = [[row[name] for name in names] for row in rows]
            widths = {len(row) for row in rows}
        else:
            values = list(rows)
            widths = {len(row) if type(row) is list else -1 for row in rows}
        if widths == {width} and set(map(type, chain.from_iterable(values))) <= allowed:
            matrix = np.array(values, dtype=np.float64).reshape(len(rows), width)
            if np.isfinite(matrix).all() or (type(None) in allowed and not np.isinf(matrix).any()):
                return matrix
    except (KeyError, TypeError, OverflowError):
        pass  # the slow way finds the places
    return None


def first_rounded_rows(rows: Sequence[Any], names: Sequence[str], matrix: NDArray[np.float64]) -> dict[str, int]:
    """Return the columns of a decoded matrix or column in which integers were rounded, and the first row, from 1."""

    def number_at(row: int, column: int) -> Any:
        found = rows[row]
        if isinstance(found, dict):
            return found[names[column]]
        return found[column] if isinstance(found, list) else found

    places = rounded_numbers(matrix, number_at)
    return {names[column]: row + 1 for column, row in places}


def to_column(values: Sequence[Any], pointer: str, *, missing: bool = False) -> NDArray[np.float64]:
    """Decoded numbers as a column, (len(values), 1); where values may be `missing`, null is NaN.

    Raises InvalidInput with the places of those that are none.
    """
    allowed = NUMBERS | {type(None)} if missing else NUMBERS
    details = (
        Detail(fault, pointer=f"{pointer}/{index}")
        for index, value in enumerate(values)
        if (fault := fault_of(value, allowed))
    )
    if first := list(islice(details, MAX_DETAILS)):
        raise InvalidInput("Not all of these are numbers.", first)
    return np.array(values, dtype=np.float64)[:, np.newaxis]


def without_kept(rows: Sequence[Any], keep: Sequence[str], pointer: str) -> Sequence[Any]:
    """The rows without the values that only pass through. Raises InvalidInput with the places that lack one."""
    if not keep:
        return rows
    details = (
        Detail(f'"{name}" is missing.', pointer=f"{pointer}/{index}")
        for index, row in enumerate(rows)
        for name in keep
        if not isinstance(row, dict) or name not in row
    )
    if first := list(islice(details, MAX_DETAILS)):
        raise InvalidInput("Not all rows have the columns to keep.", first)
    kept = set(keep)
    return [without_names(row, kept) for row in rows]


def kept_columns(rows: Sequence[dict[str, Any]], keep: Sequence[str]) -> "pa.RecordBatch | None":
    """The values that pass through, from rows that all have them."""
    import pyarrow as pa
    from pyarrow import compute

    if not keep:
        return None
    # Looked for first: of objects pyarrow would make a column for every name that is in any of them.
    if any(isinstance(row[name], dict | list) for row in rows for name in keep):
        raise InvalidInput("A column that is kept holds numbers, words or booleans, or null.")
    try:
        arrays = [pa.array([row[name] for row in rows]) for name in keep]
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        raise InvalidInput("A column that is kept holds values of one kind, or null.") from None
    if any(
        pa.types.is_floating(array.type) and compute.all(compute.is_finite(array)).as_py() is False for array in arrays
    ):
        raise InvalidInput("A column that is kept holds a number that is not finite.")
    return pa.RecordBatch.from_arrays(arrays, names=list(keep))


def to_objects(values: NDArray[np.float64], names: Sequence[str]) -> bytes:
    """Finite numbers, (n, d), as a JSON array of objects."""
    return b"[%b]" % objects_joined(values, names, b",")


def objects_joined(values: NDArray[np.float64], names: Sequence[str], between: bytes) -> bytes:
    """Finite numbers, (n, d), as JSON objects with `between` between them. Five times as fast as by way of dicts."""
    if values.size > AT_ONCE and len(values) > 1:
        rows = max(1, AT_ONCE // len(names))
        starts = range(0, len(values), rows)
        return between.join(objects_joined(values[start : start + rows], names, between) for start in starts)
    numbers = orjson.dumps(np.ascontiguousarray(values).ravel(), None, orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    row = b"{%b}" % b",".join(orjson.dumps(name).replace(b"%", b"%%") + b":%b" for name in names)
    return between.join([row] * len(values)) % tuple(numbers)


def _faults(rows: Sequence[Any], names: Sequence[str], pointer: str, allowed: frozenset[type]) -> Iterator[Detail]:
    objects = are_objects(rows)
    for index, row in enumerate(rows):
        place = f"{pointer}/{index}"
        if not isinstance(row, dict | list):
            yield Detail(f"Expected an object or an array of numbers, found {_kind(row)}.", pointer=place)
        elif isinstance(row, dict) != objects:
            yield Detail("Rows are either all objects or all arrays.", pointer=place)
        elif isinstance(row, dict):
            yield from _faults_of_object(row, names, place, allowed)
        elif len(row) != len(names):
            yield Detail(f"Expected {len(names)} values ({_listed(names)}), found {len(row)}.", pointer=place)
        else:
            for column, value in enumerate(row):
                if fault := fault_of(value, allowed):
                    yield Detail(fault, pointer=f"{place}/{column}")


def _faults_of_object(
    row: dict[str, Any], names: Sequence[str], place: str, allowed: frozenset[type]
) -> Iterator[Detail]:
    for name in names:
        if name not in row:
            yield Detail(f'"{name}" is missing.', pointer=place)
        elif fault := fault_of(row[name], allowed):
            yield Detail(fault, pointer=f"{place}/{escaped(name)}")
    unknown = sum(name not in names for name in islice(row, len(names) + MAX_DETAILS))
    if unknown:
        # The unknown name itself is input, and input is not repeated.
        yield Detail(f"An unknown name; known are {_listed(names)}.", pointer=place)


def fault_of(value: object, allowed: frozenset[type] = NUMBERS) -> str | None:
    """What is wrong with a decoded value that should be a number of a type that is allowed; None where nothing is."""
    if type(value) not in allowed:
        return f"Expected a number, found {_kind(value)}."
    try:
        finite = value is None or np.isfinite(float(value))  # type: ignore[arg-type]
    except OverflowError:
        finite = False
    return None if finite else "The number is not finite, or too large for 64 bits."


def _kind(value: object) -> str:
    kinds = {bool: "a boolean", str: "a string", type(None): "null", list: "an array", dict: "an object"}
    return kinds.get(type(value), "a number")


def escaped(name: str) -> str:
    """A name as one step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_DETAILS]) + (", ..." if len(names) > MAX_DETAILS else "")
