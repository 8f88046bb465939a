"""The cells of NDJSON lines: the values of a name in one Arrow type, which all lines share."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from app.data.batch import NOT_FINITE, Array, row_error
from app.data.json_faults import NUMBERS, kind_of
from app.data.lazy_pyarrow import pa
from app.data.rounding import rounded_numbers
from app.errors import InvalidInput

_SCALARS: frozenset[type] = NUMBERS | {bool, str}
_KINDS = {type_: kind_of(type_()) for type_ in _SCALARS}
_NULL = type(None)
_EXPECTED = "Expected a number, a string, a boolean or null"


class CellReader:
    """Makes Arrow arrays of the decoded values of names, for one block of lines after the other."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, int]] = {}  # by name: the kind of its values, and the row of the first

    def array(self, name: str, values: Sequence[Any], first: int) -> "tuple[pa.Array, int | None]":
        """Return the values as an array, and the index of the first integer that was rounded, if any.

        `first` is the number of the first row. Raises InvalidInput with the row of a value of another kind.
        """
        types = {*map(type, values)} - {_NULL}
        self._check_kinds(name, values, types, first)
        if types <= {bool}:
            return pa.array(values, pa.bool_() if types else pa.null()), None
        if types == {str}:
            return _words(name, values, first), None
        if types == {int}:
            try:
                return pa.array(values, pa.int64()), None
            except (OverflowError, pa.ArrowInvalid):
                pass  # The integers are rounded.
        floats = _floats(name, values, first)
        rounded = rounded_numbers(floats[:, np.newaxis], values, [name])
        return pa.array(floats, from_pandas=True), rounded[0][1] if rounded else None

    def _check_kinds(self, name: str, values: Sequence[Any], types: Iterable[type], first: int) -> None:
        kinds = {_KINDS.get(type_, "") for type_ in types}
        known = self._kinds.get(name)
        if not kinds or (known and kinds == {known[0]}):
            return
        for row, value in enumerate(values, first):
            if type(value) is _NULL:
                continue
            kind = kind_of(value)
            if type(value) not in _SCALARS:
                message = f"{_EXPECTED}, found {kind}. Write each of its values under a name of its own."
                raise row_error(message, row=row, column=name)
            known = self._kinds.setdefault(name, (kind, row))
            if kind != known[0]:
                message = f"Found {kind}, but row {known[1]} has {known[0]}. Write values of one kind, or null."
                raise row_error(message, row=row, column=name)


def _words(name: str, values: Sequence[str | None], first: int) -> "pa.Array":
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        raise _first_fault(
            name, values, first, _is_half, "The string has half of a surrogate pair. Remove it."
        ) from None


def _is_half(value: str | None) -> bool:
    return value is not None and any("\ud800" <= char <= "\udfff" for char in value)


def _floats(name: str, values: Sequence[float | None], first: int) -> Array:
    try:
        floats = np.array(values, dtype=np.float64)  # None becomes NaN
        if not np.isinf(floats).any():
            return floats
    except OverflowError:
        pass
    raise _first_fault(name, values, first, _is_infinite, NOT_FINITE)


def _is_infinite(value: float | None) -> bool:
    try:
        return value is not None and bool(np.isinf(float(value)))
    except OverflowError:
        return True


def _first_fault(
    name: str, values: Sequence[Any], first: int, is_fault: Callable[[Any], bool], message: str
) -> InvalidInput:
    row = next(row for row, value in enumerate(values, first) if is_fault(value))
    return row_error(message, row=row, column=name)
