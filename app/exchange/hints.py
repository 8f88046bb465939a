"""Hints in the metadata of an exported file: how the values of features are spelled in rows, such as `1,5`.

An import takes kinds, levels and gaps from the model itself. Hints only restore the spelling.
"""

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from app.data.columns.schema import Column
from app.errors import InvalidInput
from app.exchange.json_model import ColumnRecord

FEATURES = "linserve.features"  # name of the metadata
_SPELLING = ("decimal", "thousands", "strip", "dates", "strings")


def encoded_hints(columns: Iterable[Column]) -> str:
    """Return the metadata for features."""
    records = [
        msgspec.convert(replace(column, levels=(), fill=None), ColumnRecord, from_attributes=True) for column in columns
    ]
    return msgspec.json.encode(records).decode()


def decoded_hints(text: str) -> dict[str, ColumnRecord]:
    """Return the hints by the names of features. Raises InvalidInput."""
    try:
        records = msgspec.json.decode(text, type=list[ColumnRecord])
    except (msgspec.MsgspecError, RecursionError):
        raise InvalidInput(f"The metadata {FEATURES} is damaged. Remove it, or export the model again.") from None
    return {record.name: record for record in records}


def with_hint(column: Column, hint: ColumnRecord | None) -> Column:
    """Return a column as its rows are written. A hint for another kind is ignored."""
    if hint is None or hint.kind != column.kind:
        return column
    missing = "refuse" if (column.missing, hint.missing) == ("drop", "refuse") else column.missing
    return replace(column, missing=missing, **{name: getattr(hint, name) for name in _SPELLING})
