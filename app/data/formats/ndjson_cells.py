"""The cells of NDJSON lines: the values of a name in one Arrow type, which all lines share."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from app.data.batch import NOT_FINITE, Array, row_error
from app.data.json_faults import NUMBERS, kind_of
from app.data.lazy_pyarrow import pa
from app.data.rounding import rounded_numbers

_SCALARS: frozenset[type] = NUMBERS | {bool, str}
_KINDS = {type_: kind_of(type_()) for type_ in _SCALARS}
_NULL = type(None)
_EXPECTED = "Expected a number, a string, a boolean or null"


class CellReader:
    """Makes Arrow arrays of the decoded values of names, for one block of lines after the other."""

    def __init__(self) -> None:
        self.rounded: dict[str, int] = {}  # by name: the index of the first integer of the block that was rounded
        self._kinds: dict[str, tuple[str, int]] = {}  # by name: the kind of its values, and the row of the first

    def array(self, name: str, values: Sequence[Any], first: int) -> "pa.Array":
        """Return the values as an array.

        `first` is the number of the first row. Raises InvalidInput with the row of a value of another kind.
        """
        self.rounded.pop(name, None)
        types = {*map(type, values)} - {_NULL}
        self._check_kinds(name, values, types, first)
        if types <= {bool}:
            return pa.array(values, pa.bool_() if types else pa.null())
        if types == {str}:
            return pa.array(values, pa.string())
        if types == {int}:
            try:
                return pa.array(values, pa.int64())
            except (OverflowError, pa.ArrowInvalid):
                pass  # The integers are rounded.
        floats = _floats(name, values, first)
        rounded = rounded_numbers(floats[:, np.newaxis], values, [name])
        if rounded:
            self.rounded[name] = rounded[0][1]
        return pa.array(floats, from_pandas=True)

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


def _floats(name: str, values: Sequence[float | None], first: int) -> Array:
    """Return the numbers, with NaN for None. Raises InvalidInput for an integer that is too large for a float."""
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        row = next(
            row for row, value in enumerate(values, first) if value is not None and abs(value) >= sys.float_info.max
        )
        raise row_error(NOT_FINITE, row=row, column=name) from None
