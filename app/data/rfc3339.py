"""Dates and times as text (RFC 3339), the same in every format that has no type for them.

A timestamp with a time zone is written in UTC, with a Z. One without a time zone has no offset, because none is known.
"""

from app.data.lazy_pyarrow import pa
from app.errors import FieldError, InvalidInput

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DAY_SECONDS = 86_400
# Seconds from 1970 to the beginning of year 0 and of year 10000. Years between them have four digits.
_FIRST, _END = -62_167_219_200, 253_402_300_800
_TRAILING_ZEROS = r"(?:(\.[0-9]*[1-9])|\.)0+$"  # in a fraction of a second


def dates_as_text(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """Return the batch with its dates, times and timestamps as text. Raises InvalidInput for years beyond 0 to 9999."""
    if not any(map(pa.types.is_temporal, batch.schema.types)):
        return batch
    columns = [_as_text(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _as_text(name: str, column: "pa.Array") -> "pa.Array":
    """Return a column of dates, times or timestamps as text, and any other as it is."""
    type_ = column.type
    if not (pa.types.is_date(type_) or pa.types.is_time(type_) or pa.types.is_timestamp(type_)):
        return column
    numbers = column.view(pa.int32() if type_.bit_width == 32 else pa.int64())  # noqa: PLR2004 - bits
    _check_range(name, numbers, type_)
    if pa.types.is_date(type_):
        return column.cast(pa.date32(), safe=False).cast(pa.string())
    if pa.types.is_time(type_):
        return pa.compute.replace_substring_regex(column.cast(pa.string()), _TRAILING_ZEROS, r"\1")
    # The numbers are in UTC. The time zone is left out, because its name may be unknown here.
    text = numbers.cast(pa.timestamp(type_.unit)).cast(pa.string())
    text = pa.compute.replace_substring(text, " ", "T")
    text = pa.compute.replace_substring_regex(text, _TRAILING_ZEROS, r"\1")
    return text if type_.tz is None else pa.compute.binary_join_element_wise(text, "Z", "")


def _check_range(name: str, numbers: "pa.Array", type_: "pa.DataType") -> None:
    """Raise InvalidInput if a value has no text."""
    if pa.types.is_date32(type_):
        first, end = _FIRST // _DAY_SECONDS, _END // _DAY_SECONDS
    else:
        per_second = _PER_SECOND["ms" if pa.types.is_date64(type_) else type_.unit]
        first, end = (0, _DAY_SECONDS) if pa.types.is_time(type_) else (_FIRST, _END)
        first, end = first * per_second, end * per_second
    extremes = pa.compute.min_max(numbers).as_py()
    if extremes["min"] is not None and not first <= extremes["min"] <= extremes["max"] < end:
        message = (
            "The column holds a date or time that RFC 3339 cannot write: its years are 0 to 9999. Accept Arrow or "
            "Parquet, or leave the column out of `keep`."
        )
        raise InvalidInput(message, [FieldError(message, column=name)])
