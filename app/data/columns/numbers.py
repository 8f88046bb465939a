"""Numbers as text: decimal commas, separators between thousands, signs such as "$" and "%"."""

import math
import re

import numpy as np
from numpy.typing import NDArray

from app.data.columns.gaps import NUMBER, SPACES, Parsed, first_valid, numeric_gaps, trimmed, without_gaps
from app.data.columns.schema import Column
from app.data.lazy_pyarrow import pa
from app.data.rounding import first_rounded, has_large

_NO_NUMBER = "x"  # text in place of one that would otherwise be read as another number
_VARIANTS = {" ": "[\u00a0\u2009\u202f]", "'": "\u2019"}  # other characters for a separator between thousands


def parse_numbers(texts: "pa.Array", column: Column) -> Parsed:
    """Return the numbers of a column of text, each rounded correctly to a float64.

    Texts that are not finite numbers are faults.
    """
    texts = without_gaps(trimmed(texts), column)
    plain = _plain(texts, column)
    try:
        first_valid(plain).cast(pa.float64())
        numbers = plain.cast(pa.float64())
    except pa.ArrowInvalid:
        is_number = pa.compute.match_substring_regex(plain, f"^{NUMBER}$")
        numbers = pa.compute.if_else(is_number, plain, pa.scalar(None, plain.type)).cast(pa.float64())
    values = numbers.to_numpy(zero_copy_only=False)
    rounded = first_rounded(plain.cast(pa.string()), values) if has_large(values) else None
    return parsed(texts, values)._replace(rounded=rounded)


def parsed(cells: "pa.Array", values: NDArray[np.float64]) -> Parsed:
    """Return values with a fault in each row that has a cell, but no finite number."""
    if np.isfinite(values).all():
        return Parsed(values)
    faults = ~np.isfinite(values) & cells.is_valid().to_numpy(zero_copy_only=False)
    if not faults.any():
        return Parsed(values)
    return Parsed(np.where(faults, np.nan, values), faults)


def _plain(texts: "pa.Array", column: Column) -> "pa.Array":
    """Return texts with a decimal point and without signs and separators between thousands."""
    compute = pa.compute
    if column.strip:
        signs = "|".join(re.escape(sign) for sign in column.strip)
        spaces = f"[{SPACES}]*"
        texts = compute.replace_substring_regex(texts, f"^([+-]?){spaces}(?:{signs}){spaces}", r"\1")
        texts = compute.replace_substring_regex(texts, f"{spaces}(?:{signs})$", "")
    if column.thousands:
        texts = _without_thousands(texts, column.thousands, column.decimal)
    if column.decimal == ",":
        texts = compute.if_else(compute.match_substring(texts, "."), _NO_NUMBER, texts)
        texts = compute.replace_substring(texts, ",", ".")
    return texts


def _without_thousands(texts: "pa.Array", separator: str, decimal: str) -> "pa.Array":
    compute = pa.compute
    if variants := _VARIANTS.get(separator):
        texts = compute.replace_substring_regex(texts, variants, separator)
    groups = rf"^[+-]?[0-9]{{1,3}}(?:{re.escape(separator)}[0-9]{{3}})+(?:{re.escape(decimal)}[0-9]*)?$"
    wrong = compute.and_not(
        compute.match_substring(texts, separator),
        compute.match_substring_regex(texts, groups),
    )
    return compute.replace_substring(compute.if_else(wrong, _NO_NUMBER, texts), separator, "")


def numbers_of(cells: "pa.Array", column: Column) -> Parsed:
    """Return the numbers of cells of any type. Raises TypeError if no value of the type is a number."""
    type_ = cells.type
    if isinstance(cells, pa.DictionaryArray):
        dictionary = as_text(cells.dictionary)
        found = numbers_of(dictionary, column)
        if found.rounded is None:
            return found.take(cells.indices)
        cells = pa.DictionaryArray.from_arrays(cells.indices, dictionary).dictionary_decode()
        type_ = cells.type
    if is_text(type_):
        return parse_numbers(as_text(cells), column)
    if pa.types.is_decimal(type_):
        return parse_numbers(cells.cast(pa.string()), Column(column.name, na=column.na))
    if not (pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_null(type_)):
        raise TypeError
    values = np.array(cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    rounded = first_rounded(cells, values)
    for mark in numeric_gaps(column.na):
        values[values == mark] = np.nan
    infinite = np.isinf(values)
    if infinite.any():
        return Parsed(np.where(infinite, np.nan, values), infinite, rounded)
    return Parsed(values, rounded=rounded)


def is_text(type_: "pa.DataType") -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def holds_text(type_: "pa.DataType") -> bool:
    """Return True if the values are strings, in a dictionary or not."""
    return is_text(type_.value_type if pa.types.is_dictionary(type_) else type_)


def first_value(cells: "pa.Array") -> int | None:
    """Return the index of the first cell that is not null, or None."""
    index: int = pa.compute.index(cells.is_valid(), True).as_py()
    return None if index < 0 else index


def as_text(cells: "pa.Array") -> "pa.Array":
    """Return text with a type for which pyarrow has all functions."""
    return cells.cast(pa.string()) if pa.types.is_string_view(cells.type) else cells


def number_of(value: object, column: Column) -> float | None:
    """Return the number of a value of a JSON document, NaN for a gap, or None if it is not a number."""
    if type(value) is float or type(value) is int:
        try:
            number = float(value)
        except OverflowError:
            return None
        if column.na and number in numeric_gaps(column.na):
            return np.nan
        return None if math.isinf(number) else number
    if isinstance(value, str):
        result = parse_numbers(pa.array([value], pa.string()), column)
        return None if result.faults is not None else float(result.values[0])
    return np.nan if value is None else None
