"""Tables as one JSON document: an array of records, or pandas' `split`. They are stored as an Arrow stream."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec

from app.data.batch import check_distinct
from app.data.formats.base import Output
from app.data.formats.ndjson_cells import CellReader
from app.data.json_faults import kind_of
from app.data.lazy_pyarrow import pa
from app.data.names import listed
from app.errors import InvalidInput, MalformedBody

_T = TypeVar("_T")
_FAULTS = (msgspec.DecodeError, ValueError, RecursionError)  # UnicodeDecodeError is a ValueError.
_ORIENTS = (
    'Write an array of records, [{"x": 1, "y": 2}, ...], or an object with `columns` and `data`: in pandas '
    '`to_json(orient="records")` or `orient="split"`.'
)
_SPLIT = re.compile(rb'\s*\{\s*"(?:columns|index|data)"\s*:\s*\[')
_BLOCK_ROWS = 1 << 14
# Values that are not JSON, but that Python's json module writes. NaN is a gap.
_CONSTANTS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}
_Present: TypeAlias = msgspec.Raw | msgspec.UnsetType


class _Members(msgspec.Struct):
    """Members of an object that show what it is. Others are skipped."""

    columns: _Present = msgspec.UNSET
    data: _Present = msgspec.UNSET
    instances: _Present = msgspec.UNSET
    targets: _Present = msgspec.UNSET


class _Split(msgspec.Struct):
    columns: list[str | int | float | bool | None]
    data: list[Any]


def is_table(body: bytes) -> bool:
    """Return True if a body of JSON is a table by itself: an array, pandas' `split` or one of its other orients.

    An object with `instances` or `targets` is a request. Does not decode the rows.
    """
    text = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return True
    try:
        members = msgspec.json.decode(text, type=_Members)
        if members.instances is not msgspec.UNSET or members.targets is not msgspec.UNSET:
            return False
        if members.columns is not msgspec.UNSET and members.data is not msgspec.UNSET:
            return True
        values = msgspec.json.decode(text, type=dict[str, msgspec.Raw]).values()
    except _FAULTS:
        return _SPLIT.match(text) is not None
    return len(values) > 1 and all(bytes(memoryview(value)[:1]) == b"{" for value in values)


def split_records(body: bytes) -> list[dict[str, Any]] | None:
    """Return the rows of a body that is pandas' `split`, or None if it is something else."""
    if not _SPLIT.match(body):
        return None
    try:
        names, columns = _of_split(msgspec.json.decode(body, type=_Split))
    except (*_FAULTS, InvalidInput):
        return None
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def json_table_to_arrow(body: bytes, file: Output) -> None:
    """Write the table of a body for which `is_table` is true as an Arrow stream, whose rows are counted from 1.

    Raises InvalidInput if it is not a table of scalars, or MalformedBody if it is not JSON.
    """
    names, columns = _columns(body)
    check_distinct(names, "Several columns have the same name:")
    reader = CellReader()
    arrays = [reader.array(name, values, 1) for name, values in zip(names, columns, strict=True)]
    table = pa.Table.from_arrays(arrays, names=names)
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=_BLOCK_ROWS)


def _columns(body: bytes) -> tuple[list[str], list[Sequence[Any]]]:
    """Return the names of the columns, and the values of each."""
    text = body.removeprefix(b"\xef\xbb\xbf")
    try:
        if not text.lstrip().startswith(b"["):
            return _of_split(_decode(text, _Split))
        rows = _decode(text, list[Any])
    except msgspec.ValidationError:
        raise InvalidInput(f"The body is a JSON object of columns or of rows, which is not read. {_ORIENTS}") from None
    except _FAULTS:
        raise MalformedBody("The body is not JSON: it has a fault, or ends early. Send all of it.") from None
    return _of_records(rows)


def _decode(text: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if b"NaN" not in text and b"Infinity" not in text:
            raise
    return msgspec.convert(json.loads(text, parse_constant=_CONSTANTS.get), kind)


def _of_records(rows: Sequence[Any]) -> tuple[list[str], list[Sequence[Any]]]:
    if not rows:
        raise InvalidInput(f"The JSON array is empty. Expected records. {_ORIENTS}")
    for index, row in enumerate(rows):
        if type(row) is not dict:
            found = "an array, whose values have no names" if isinstance(row, list) else kind_of(row)
            raise InvalidInput.at(
                f"/{index}", f"Expected an object with the values of a row, found {found}. {_ORIENTS}"
            )
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise InvalidInput(f"The records have no values. {_ORIENTS}")
    return names, [[row.get(name) for row in rows] for name in names]


def _of_split(split: _Split) -> tuple[list[str], list[Sequence[Any]]]:
    names, width = ["" if name is None else str(name) for name in split.columns], len(split.columns)
    if not names or not split.data:
        raise InvalidInput(f"`columns` or `data` is empty. Expected names and rows. {_ORIENTS}")
    for index, row in enumerate(split.data):
        if not isinstance(row, list) or len(row) != width:
            found = f"{len(row)} values" if isinstance(row, list) else kind_of(row)
            message = f"Expected an array of {width} values ({listed(names)}), found {found}."
            raise InvalidInput.at(f"/data/{index}", message)
    return names, list(zip(*split.data, strict=True))
