"""Rows that came as JSON, objects or arrays, to a matrix."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from app.data.limits.arrow_memory import raise_if_memory
from app.data.name_hints import MAX_SHOWN, instead, invisible_character, shown, unquoted
from app.data.rounding import rounded_numbers
from app.errors import FieldError, InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DETAILS = 20
AT_ONCE = 1 << 17  # numbers that are Python objects
MAX_FAULTS = 1000  # Faults that are counted.
NUMBERS: frozenset[type] = frozenset({int, float})  # bool is a type of its own here, and no number
MIXED = "Rows are either all objects or all arrays."
_REMEDIES: dict[type, str] = {
    str: " Send it without quotes.",
    bool: " Send 1 or 0.",
    type(None): " Send a number, or leave the row out, as a training does with `missing`: `drop`; "
    "a prediction answers it with null, given `missing`: `null`.",
}

_Key: TypeAlias = tuple[object, ...]

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

    Rows are all objects with exactly these names in any order, or all arrays of as many values; of one name, they may
    be all numbers. Objects may also have `ignored` names, which are not read. Values are finite numbers: no booleans,
    no strings, no null; if values may be `missing`, null is NaN. `pointer` is the place of the rows in the body;
    InvalidInput names the first place of every fault.
    """
    allowed = NUMBERS | {type(None)} if missing else NUMBERS
    if (matrix := _matrix(rows, names, allowed)) is not None:
        return matrix
    if ignored:
        rows = [without_names(row, ignored) if isinstance(row, dict) else row for row in rows]
        if (matrix := _matrix(rows, names, allowed)) is not None:
            return matrix
    raise _all_faults(rows, names, pointer, allowed)


def without_names(row: dict[str, Any], names: AbstractSet[str]) -> dict[str, Any]:
    """Return the row without the values of these names."""
    return {name: value for name, value in row.items() if name not in names}


def _matrix(rows: Sequence[Any], names: Sequence[str], allowed: frozenset[type]) -> NDArray[np.float64] | None:
    """Return rows that are exactly as they should be as a matrix, and None for others."""
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
        pass  # the slow way finds the places
    return None


def as_rows(given: list[Any], names: Sequence[str], pointer: str, *, missing: bool = False) -> list[Any]:
    """Return a list of rows, given one or a flat list of numbers.

    With one name a flat list stays as it is, a number for each row; with several, as many numbers become one row.
    Raises InvalidInput for any other flat list.
    """
    allowed = NUMBERS | {type(None)} if missing else NUMBERS
    if not all(type(value) in NUMBERS or value is None for value in (given[0], given[-1])):
        return given
    if not _are_numbers(given):
        faults = ((index, fault_of(value, allowed)) for index, value in enumerate(given))
        places = (FieldError(fault, pointer=f"{pointer}/{index}") for index, fault in faults if fault is not None)
        if details := list(islice(places, MAX_DETAILS)):
            message = f"Not all values of the flat list are numbers. {details[0].pointer}: {details[0].message}"
            raise InvalidInput(message, details)
    if len(names) == 1:
        return given
    if len(given) == len(names):
        return [given]
    raise InvalidInput.at(
        pointer,
        f"Found a flat list of {len(given)} numbers; expected a list of rows, each with {len(names)} values "
        f"({_listed(names)}), such as [[1, 2, ...], [3, 4, ...]].",
    )


def _are_numbers(values: Sequence[Any]) -> bool:
    """Return True if all decoded values are numbers that 64 bits can hold."""
    try:
        return set(map(type, values)) <= NUMBERS and bool(np.isfinite(np.array(values, dtype=np.float64)).all())
    except OverflowError:
        return False


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
    """Decoded numbers as a column, (len(values), 1); if values may be `missing`, null is NaN.

    Raises InvalidInput with the places of those that are none.
    """
    allowed = NUMBERS | {type(None)} if missing else NUMBERS
    details = (
        FieldError(fault, pointer=f"{pointer}/{index}")
        for index, value in enumerate(values)
        if (fault := fault_of(value, allowed))
    )
    if first := list(islice(details, MAX_DETAILS)):
        raise InvalidInput(f"Not all of these are numbers. {first[0].pointer}: {first[0].message}", first)
    return np.array(values, dtype=np.float64)[:, np.newaxis]


def without_kept(rows: Sequence[Any], keep: Sequence[str], pointer: str) -> Sequence[Any]:
    """The rows without the values that only pass through. Raises InvalidInput with the places that lack one."""
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
    """The values that pass through, from rows that all have them."""
    import pyarrow as pa
    from pyarrow import compute

    if not keep:
        return None
    # Looked for first: of objects pyarrow would make a column for every name that is in any of them.
    if any(isinstance(row[name], dict | list) for row in rows for name in keep):
        raise InvalidInput("A kept column may hold only numbers, strings, booleans and null.")
    try:
        arrays = [pa.array([row[name] for row in rows]) for name in keep]
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise_if_memory(error)
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


def _all_faults(rows: Sequence[Any], names: Sequence[str], pointer: str, allowed: frozenset[type]) -> InvalidInput:
    """Return the error with the first place of every fault, at most MAX_DETAILS of them, and the number of each."""
    first: dict[_Key, FieldError] = {}
    counts: Counter[_Key] = Counter()
    seen = 0
    for key, place, message in islice(_faults(rows, names, pointer, allowed), MAX_FAULTS):
        seen += 1
        counts[key] += 1
        if key not in first and len(first) < MAX_DETAILS:
            first[key] = FieldError(message(), pointer=place)
    more = "at least " if seen == MAX_FAULTS else ""
    details = [
        detail if counts[key] == 1 else replace(detail, message=f"{detail.message} ({more}{counts[key]} times)")
        for key, detail in first.items()
    ]
    one = next(iter(first.values()))
    return InvalidInput(f"{more.capitalize()}{seen} fault(s) in the rows. {one.pointer}: {one.message}", details)


def _faults(
    rows: Sequence[Any], names: Sequence[str], pointer: str, allowed: frozenset[type]
) -> Iterator[tuple[_Key, str, Callable[[], str]]]:
    """Yield every fault: a key that those of the same kind in the same column share, its place, and its message."""
    objects = are_objects(rows)
    known = frozenset(names)
    for index, row in enumerate(rows):
        place = f"{pointer}/{index}"
        kind = kind_of(row)
        if not isinstance(row, dict | list):
            yield (kind,), place, f"Expected an object or an array of numbers, found {kind}.".__str__
        elif isinstance(row, dict) != objects:
            yield (MIXED,), place, f"{MIXED} Row 0 is {kind_of(rows[0])}, this one is {kind}.".__str__
        elif isinstance(row, dict):
            yield from _faults_of_object(row, names, known, place, allowed)
        elif len(row) != len(names):
            yield (len(row),), place, partial(_wrong_length, names, len(row))
        else:
            for column, value in enumerate(row):
                if fault := fault_of(value, allowed):
                    yield (column, kind_of(value)), f"{place}/{column}", fault.__str__


def _faults_of_object(
    row: dict[str, Any], names: Sequence[str], known: frozenset[str], place: str, allowed: frozenset[type]
) -> Iterator[tuple[_Key, str, Callable[[], str]]]:
    unknown = list(islice((name for name in row if name not in known), MAX_DETAILS))
    for name in names:
        if name not in row:
            yield (name, "missing"), place, partial(_missing, name, unknown)
        elif fault := fault_of(row[name], allowed):
            yield (name, kind_of(row[name])), f"{place}/{escaped(name)}", fault.__str__
    for name in unknown:
        # A name that no column can have is shown in the message, and its place is the row.
        at = f"{place}/{escaped(name)}" if len(name) <= MAX_SHOWN and name.isprintable() else place
        yield (name, "unknown"), at, partial(_unknown, name, names)


def _wrong_length(names: Sequence[str], length: int) -> str:
    return f"Expected {len(names)} values ({_listed(names)}), found {length}. Send as many in each row."


def _missing(name: str, unknown: Sequence[str]) -> str:
    return f"{shown(name)} is missing.{instead(name, unknown) or ' Add it.'}"


def _unknown(name: str, names: Sequence[str]) -> str:
    odd = invisible_character(name)
    return f"{shown(name)} is unknown. Expected {_listed(names)}." + f" The name has {odd}." * bool(odd)


def fault_of(value: object, allowed: frozenset[type] = NUMBERS) -> str | None:
    """What is wrong with a decoded value that should be a number of a type that is allowed; None where nothing is."""
    if type(value) not in allowed:
        return f"Expected a number, found {kind_of(value)}.{_REMEDIES.get(type(value), '')}"
    try:
        finite = value is None or np.isfinite(float(value))  # type: ignore[arg-type]
    except OverflowError:
        finite = False
    return None if finite else "The number is not finite, or too large for 64 bits. Expected a finite number."


def kind_of(value: object) -> str:
    """Return in words what kind of JSON a decoded value is."""
    kinds = {bool: "a boolean", str: "a string", type(None): "null", list: "an array", dict: "an object"}
    return kinds.get(type(value), "a number")


def escaped(name: str) -> str:
    """A name as one step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(unquoted, names[:MAX_DETAILS])) + ", ..." * (len(names) > MAX_DETAILS)
