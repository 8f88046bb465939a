"""Categories: the level of each cell, and the code of a level."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.data.columns.gaps import is_gap, trimmed, without_gaps
from app.data.columns.numbers import as_text, is_text
from app.data.columns.schema import Column
from app.data.groups import canonical
from app.data.lazy_pyarrow import pa
from app.data.rfc3339 import dates_as_text

GAP, UNSEEN = -1, -2  # codes of cells without a level, and with one that is not in the schema


def levels_of(cells: "pa.Array", column: Column) -> "pa.DictionaryArray":
    """Return the levels of cells of any type, with null for a gap. The dictionary may hold levels that do not occur.

    Raises TypeError if no value of the type is a level.
    """
    type_ = cells.type.value_type if isinstance(cells, pa.DictionaryArray) else cells.type
    if not (is_text(type_) or _is_level(type_)):
        raise TypeError
    encoded = cells if isinstance(cells, pa.DictionaryArray) else cells.dictionary_encode()
    texts = _texts(encoded.dictionary, column)
    gaps = without_gaps(trimmed(texts), column).is_null()
    if pa.compute.any(gaps).as_py():
        texts = pa.compute.if_else(gaps, pa.scalar(None, texts.type), texts)
    return pa.DictionaryArray.from_arrays(encoded.indices, texts)


def codes_of(levels: "pa.DictionaryArray", known: Sequence[str]) -> NDArray[np.int32]:
    """Return the index of each level in the schema, or GAP or UNSEEN, for cells from `levels_of`."""
    dictionary = levels.dictionary
    places = pa.compute.index_in(dictionary, value_set=pa.array(known, dictionary.type))
    codes = places.fill_null(UNSEEN).to_numpy(zero_copy_only=False)
    if dictionary.null_count:
        codes = np.where(dictionary.is_null().to_numpy(zero_copy_only=False), GAP, codes)
    codes = np.append(codes, GAP).astype(np.int32)  # A null index takes the last code.
    result: NDArray[np.int32] = codes[levels.indices.fill_null(len(dictionary)).to_numpy(zero_copy_only=False)]
    return result


def level_of(value: object, column: Column) -> str | None:
    """Return the level of a value of a JSON document, or None for a gap. Raises TypeError for arrays and objects."""
    if value is not None and not isinstance(value, str | bool | int | float):
        raise TypeError
    level = value if isinstance(value, str) else canonical(value)
    return None if is_gap(level, column) else level


def _texts(values: "pa.Array", column: Column) -> "pa.Array":
    """Return distinct values as text, the same that JSON and CSV have."""
    type_ = values.type
    if is_text(type_):
        return as_text(values)
    if pa.types.is_floating(type_):
        return pa.array([canonical(value) for value in values.to_pylist()], pa.string())
    if pa.types.is_date(type_) or pa.types.is_timestamp(type_):
        return dates_as_text(pa.RecordBatch.from_arrays([values], [column.name])).column(0)
    return values.cast(pa.string())


def _is_level(type_: "pa.DataType") -> bool:
    types = pa.types
    is_number = types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_)
    is_day = types.is_date(type_) or types.is_timestamp(type_)
    return bool(is_number or is_day or types.is_boolean(type_) or types.is_null(type_))
