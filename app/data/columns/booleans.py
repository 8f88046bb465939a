"""Booleans as text: true and false, yes and no, in three spellings and as one letter."""

import numpy as np

from app.data.columns.gaps import SPACES, Parsed, is_gap, trimmed, without_gaps
from app.data.columns.numbers import as_text, is_text, numbers_of, parsed
from app.data.columns.schema import Column
from app.data.lazy_pyarrow import pa

_WORDS = (("true", 1.0), ("false", 0.0), ("yes", 1.0), ("no", 0.0), ("t", 1.0), ("f", 0.0), ("y", 1.0), ("n", 0.0))
# Number of each text. Digits are booleans only in a column that is known to hold booleans.
_TEXTS = {
    **{spelt: number for word, number in _WORDS for spelt in (word, word.title(), word.upper())},
    "1": 1.0,
    "0": 0.0,
    "1.0": 1.0,
    "0.0": 0.0,
}
_NUMBERS = np.array([*_TEXTS.values(), np.nan])


def parse_booleans(texts: "pa.Array", column: Column) -> Parsed:
    """Return 1 and 0 for a column of text. Texts that are neither are faults."""
    texts = without_gaps(trimmed(texts), column)
    places = pa.compute.index_in(texts, value_set=pa.array(list(_TEXTS), texts.type))
    return parsed(texts, _NUMBERS[places.fill_null(len(_TEXTS)).to_numpy(zero_copy_only=False)])


def booleans_of(cells: "pa.Array", column: Column) -> Parsed:
    """Return 1 and 0 for cells of any type. Raises TypeError if no value of the type is a boolean."""
    type_ = cells.type
    if isinstance(cells, pa.DictionaryArray):
        return booleans_of(cells.dictionary, column).take(cells.indices)
    if is_text(type_):
        return parse_booleans(as_text(cells), column)
    if pa.types.is_boolean(type_):
        return Parsed(cells.cast(pa.float64()).to_numpy(zero_copy_only=False))
    numbers = numbers_of(cells, column)
    values = numbers.values
    if numbers.faults is not None:
        return numbers
    faults = (values != 0) & (values != 1) & ~np.isnan(values)
    return Parsed(np.where(faults, np.nan, values), faults) if faults.any() else Parsed(values)


def boolean_of(value: object, column: Column) -> float | None:
    """Return 1 or 0 for a value of a JSON document, NaN for a gap, or None if it is neither."""
    if isinstance(value, bool):
        return float(value)
    if is_gap(value, column):
        return np.nan
    if isinstance(value, str):
        return _TEXTS.get(value.strip(SPACES))
    return float(value) if isinstance(value, int | float) and value in (0, 1) else None
