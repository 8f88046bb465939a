"""Faults of rows that came as JSON, each with its place in the body."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from app.data.names import MAX_SHOWN, instead, invisible_character, shown, unquoted, without_level
from app.errors import FieldError, InvalidInput

MAX_DETAILS = 20  # Faults in a response.
MAX_FAULTS = 1000  # Faults that are counted.
NUMBERS: frozenset[type] = frozenset({int, float})  # bool is a type of its own here, and not a number
MIXED = "Rows are either all objects or all arrays."
NULL_REMEDY = (
    " or leave the row out. A training leaves it out with `missing`: `drop`. A prediction is null with `missing`: "
    "`null`."
)
_REMEDIES: dict[type, str] = {
    str: " Send it without quotes.",
    bool: " Send 1 or 0.",
    type(None): f" Send a number,{NULL_REMEDY}",
}

_Key: TypeAlias = tuple[object, ...]
Check: TypeAlias = Callable[[object], str | None]  # Returns what is wrong with a value, or None.


def allowed_types(*, missing: bool) -> frozenset[type]:
    """Return the types of numbers, and that of null if values may be `missing`."""
    return NUMBERS | {type(None)} if missing else NUMBERS


def are_objects(rows: Sequence[Any]) -> bool:
    """Return True if the first row, which decides how all are read, is an object."""
    return isinstance(rows[0], dict)


def all_faults(rows: Sequence[Any], names: Sequence[str], pointer: str, checks: Sequence[Check]) -> InvalidInput:
    """Return the error with the first place of every fault, at most MAX_DETAILS of them, and the number of each.

    `checks` has one for the values of each column.
    """
    first: dict[_Key, FieldError] = {}
    counts: Counter[_Key] = Counter()
    for key, place, message in islice(_faults(rows, names, pointer, checks), MAX_FAULTS):
        counts[key] += 1
        if key not in first and len(first) < MAX_DETAILS:
            first[key] = FieldError(message(), pointer=place)
    seen = counts.total()
    more = "at least " if seen == MAX_FAULTS else ""
    details = [
        detail if counts[key] == 1 else replace(detail, message=f"{detail.message} ({more}{counts[key]} times)")
        for key, detail in first.items()
    ]
    one = next(iter(first.values()))
    fault = without_level(one.message)
    return InvalidInput(f"{more.capitalize()}{seen} fault(s) in the rows. {one.pointer}: {fault}", details)


def _faults(
    rows: Sequence[Any], names: Sequence[str], pointer: str, checks: Sequence[Check]
) -> Iterator[tuple[_Key, str, Callable[[], str]]]:
    """Yield every fault: a key that those of the same kind in the same column share, its place, and its message."""
    objects = are_objects(rows)
    known, listed_names = frozenset(names), list_names(names)
    for index, row in enumerate(rows):
        place, kind = f"{pointer}/{index}", kind_of(row)
        if not isinstance(row, dict | list):
            yield (kind,), place, f"Expected an object or an array, found {kind}.".__str__
        elif isinstance(row, dict) != objects:
            yield (MIXED,), place, f"{MIXED} Row 0 is {kind_of(rows[0])}, this one is {kind}.".__str__
        elif isinstance(row, dict):
            yield from _faults_of_object(row, names, known, place, checks)
        elif len(row) != len(names):
            length = f"Expected {len(names)} values ({listed_names}), found {len(row)}. Send as many in each row."
            yield (len(row),), place, length.__str__
        else:
            for column, (value, check) in enumerate(zip(row, checks, strict=True)):
                if fault := check(value):
                    yield (column, kind_of(value)), f"{place}/{column}", fault.__str__


def _faults_of_object(
    row: dict[str, Any], names: Sequence[str], known: frozenset[str], place: str, checks: Sequence[Check]
) -> Iterator[tuple[_Key, str, Callable[[], str]]]:
    unknown = list(islice((name for name in row if name not in known), MAX_DETAILS))
    for name, check in zip(names, checks, strict=True):
        if name not in row:
            yield (name, "missing"), place, partial(_missing, name, unknown)
        elif fault := check(row[name]):
            yield (name, kind_of(row[name])), f"{place}/{escaped(name)}", fault.__str__
    for name in unknown:
        # A name that no column can have is shown in the message, and its place is the row.
        at = f"{place}/{escaped(name)}" if len(name) <= MAX_SHOWN and name.isprintable() else place
        yield (name, "unknown"), at, partial(_unknown, name, names)


def _missing(name: str, unknown: Sequence[str]) -> str:
    return f"{shown(name)} is missing.{instead(name, unknown) or ' Add it.'}"


def _unknown(name: str, names: Sequence[str]) -> str:
    odd = invisible_character(name)
    return f"{shown(name)} is unknown. Expected {list_names(names)}." + f" The name has {odd}." * bool(odd)


def fault_of(value: object, allowed: frozenset[type] = NUMBERS) -> str | None:
    """Return what is wrong with a decoded value that should be a number of an allowed type, or None."""
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
    """Return a name as one step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def list_names(names: Sequence[str]) -> str:
    return ", ".join(map(unquoted, names[:MAX_DETAILS])) + ", ..." * (len(names) > MAX_DETAILS)
