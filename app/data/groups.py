"""The column of groups: rows with equal values in it share a fold of a cross-validation.

A value has the same canonical text in every format. A number, or text that spells one, becomes an integer in full, or
else the shortest decimal number that rounds to the same float64. Any other text is unchanged.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.batch import Array
from app.data.json_faults import MAX_DETAILS, escaped
from app.data.lazy_pyarrow import pa, raise_if_memory
from app.errors import FieldError, InvalidInput
from app.regression.folds import group_fold

MISSING = -1  # Fold of a row whose group is missing.

_INTEGER = re.compile(r"([+-]?)0*([0-9]+)")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_CACHED_FOLDS = 1 << 16  # Groups whose folds are cached.


@dataclass(frozen=True)
class Groups:
    """The column with the group of each row, and the options that map groups to folds."""

    column: str
    folds: int
    seed: int

    def of_numbers(self, values: Array) -> NDArray[np.intp]:
        """Return the fold of each number, (n,); a group that is NaN is missing."""
        distinct, places = np.unique(values, return_inverse=True, equal_nan=True)
        return self.of_values(distinct.tolist())[places]

    def of_column(self, column: "pa.Array") -> NDArray[np.intp]:
        """Return the fold of each value of a column, (n,); a group that is null, NaN or empty text is missing.

        Raises InvalidInput for a column whose values have no text.
        """
        try:
            encoded = column.dictionary_encode(null_encoding="encode")
            distinct = encoded.dictionary
            if not pa.types.is_floating(distinct.type):
                distinct = distinct.cast(pa.large_string())
        except pa.ArrowException as error:
            raise_if_memory(error)
            message = "A column of groups holds numbers, words, booleans, dates or times."
            raise InvalidInput(message, [FieldError(message, column=self.column)]) from None
        places: NDArray[np.intp] = encoded.indices.to_numpy(zero_copy_only=False)
        return self.of_values(distinct.to_pylist())[places]

    def of_values(self, values: Iterable[Any]) -> NDArray[np.intp]:
        """Return the fold of each number, text or boolean, (n,); a group that is None, NaN or "" is missing."""
        texts = map(canonical, values)
        folds = [MISSING if text is None else _fold(text, self.folds, self.seed) for text in texts]
        return np.array(folds, dtype=np.intp)


_fold = lru_cache(_CACHED_FOLDS)(group_fold)


def canonical(value: object) -> str | None:
    """Return the text of a group, which is the same in every format, or None if it is missing."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return None if math.isnan(value) else _of_float(value)
    text = value if isinstance(value, str) else str(value)
    if match := _INTEGER.fullmatch(text):
        sign = "-" if match[1] == "-" and match[2] != "0" else ""
        return sign + match[2]
    return _of_float(float(text)) if _NUMBER.fullmatch(text) else text


def _of_float(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def split_groups(rows: Sequence[Any], groups: Groups, *, missing: bool) -> tuple[Sequence[Any], Array]:
    """Return the JSON objects without their groups, and their folds as a column, (n, 1).

    If groups may be `missing`, the fold of such a row is NaN. Raises InvalidInput with the places of rows that lack a
    group, or whose group is an array or an object.
    """
    name = groups.column
    details = (
        FieldError(fault, pointer=f"/instances/{index}" + f"/{escaped(name)}" * (isinstance(row, dict) and name in row))
        for index, row in enumerate(rows)
        if (fault := _fault(row, name, missing=missing))
    )
    if first := list(islice(details, MAX_DETAILS)):
        raise InvalidInput(f"{len(first)}{'+' * (len(first) == MAX_DETAILS)} fault(s) in the groups.", first)
    folds = groups.of_values(row[name] for row in rows).astype(np.float64)
    folds[folds == MISSING] = np.nan
    others = [{key: value for key, value in row.items() if key != name} for row in rows]
    return others, folds[:, np.newaxis]


def _fault(row: Any, name: str, *, missing: bool) -> str | None:
    if not isinstance(row, dict):
        return "Expected an object with the column of groups. Arrays can only have groups that are a feature."
    if name not in row:
        return "The group is missing."
    group = row[name]
    if isinstance(group, dict | list):
        return "Expected a number, a text or a boolean as the group."
    return "The group is missing." if canonical(group) is None and not missing else None
