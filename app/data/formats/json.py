"""JSON documents, and rows as JSON objects."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from app.data.batch import Array
from app.data.formats.base import BodyFormat, Output
from app.data.lazy_pyarrow import pa
from app.data.rfc3339 import dates_as_text
from app.errors import InvalidInput

MAX_CHUNK_VALUES = 1 << 17  # Numbers written at a time, because each is a Python object meanwhile.


class JsonFormat(BodyFormat):
    """Bodies with one JSON document. It is not in FORMATS, because its rows come with options and are read whole."""

    name = "json"
    media_type = "application/json"
    label = "JSON"
    names_in_rows = True


JSON = JsonFormat()


class JsonDocumentWriter:
    """Writes rows as the member `predictions` of a JSON document, after the members of `document`."""

    def __init__(self, file: Output, keep: Sequence[str], names: Sequence[str], document: Mapping[str, Any]) -> None:
        self._file, self._keep, self._names = file, keep, names
        self._separator = b""
        file.write(orjson.dumps(document)[:-1] + b',"predictions":[')

    def write(self, kept: "pa.RecordBatch | None", values: Array) -> None:
        if len(values):
            self._file.write(self._separator)
            self._file.write(rows_as_objects(kept, values, self._keep, self._names, b","))
            self._separator = b","

    def close(self) -> None:
        self._file.write(b"]}")


def rows_as_objects(
    kept: "pa.RecordBatch | None", values: Array, keep: Sequence[str], names: Sequence[str], separator: bytes
) -> bytes | memoryview:
    """Return kept columns and numbers, (n, d), as JSON objects with `separator` between them. NaN becomes null."""
    if kept is None and np.isfinite(values).all():
        return objects_joined(values, names, separator)
    columns = [*(dates_as_text(kept).columns if kept is not None else ()), *values.T]
    try:
        rows = zip(*(column.tolist() for column in columns), strict=True)
    except (OverflowError, ValueError):
        raise InvalidInput("A kept column has a value that JSON cannot hold. Accept Arrow or Parquet.") from None
    all_names = [*keep, *names]
    # Each object is copied and freed before the next: orjson allocates 4 kB for it, of which it needs little.
    text = bytearray()
    for row in rows:
        text += separator * bool(text)
        text += orjson.dumps(dict(zip(all_names, row, strict=True)), default=str)
    return memoryview(text)


def to_objects(values: Array, names: Sequence[str]) -> bytes:
    """Return finite numbers, (n, d), as a JSON array of objects."""
    return b"[%b]" % objects_joined(values, names, b",")


def objects_joined(values: Array, names: Sequence[str], separator: bytes) -> bytes:
    """Return finite numbers, (n, d), as JSON objects with `separator` between them.

    This is five times as fast as encoding dicts.
    """
    if values.size > MAX_CHUNK_VALUES and len(values) > 1:
        rows = max(1, MAX_CHUNK_VALUES // len(names))
        starts = range(0, len(values), rows)
        return separator.join(objects_joined(values[start : start + rows], names, separator) for start in starts)
    numbers = orjson.dumps(np.ascontiguousarray(values).ravel(), None, orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    row = b"{%b}" % b",".join(orjson.dumps(name).replace(b"%", b"%%") + b":%b" for name in names)
    return separator.join([row] * len(values)) % tuple(numbers)
