"""Rows to files, part by part, in every format that rows come in."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import orjson

from app.data.batch import Array
from app.data.formats import FileFormat
from app.data.json_rows import objects_joined
from app.data.limits.arrow_memory import raise_if_memory
from app.data.rfc3339 import dates_as_text
from app.errors import BodyTooLarge, InvalidInput, not_stored

if TYPE_CHECKING:
    import pyarrow as pa

MAX_CHUNKS = 200_000  # of a Parquet file: a column of some rows, which takes hundreds of bytes to describe
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # of the Arrow IPC format

OutputFormat: TypeAlias = Literal["json"] | FileFormat


class SpooledOutput:
    """A binary file to write to, in memory for as long as `hold` agrees to so many bytes more, then on the disk.

    Raises BodyTooLarge when it would be longer than `limit` bytes, SpoolFull where the disk is full.
    """

    def __init__(self, hold: Callable[[int], bool], scratch: Callable[[], io.FileIO], limit: int) -> None:
        self.length = 0
        self.closed = False  # as pyarrow asks of files
        self._hold, self._scratch, self._limit = hold, scratch, limit
        self._chunks: list[bytes | memoryview] = []
        self._file: io.FileIO | None = None

    def write(self, data: bytes | memoryview) -> int:
        self.length += len(data)
        if self.length > self._limit:
            raise BodyTooLarge(f"The answer is longer than {self._limit} bytes.")
        try:
            if self._file is None and not self._hold(len(data)):
                self._file = self._scratch()
                self._file.writelines(self._chunks)
                self._chunks.clear()
            if self._file is None:
                self._chunks.append(data)
            else:
                self._file.write(data)
        except OSError as error:
            raise not_stored("The answer", error) from error
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def written(self) -> bytes | io.FileIO:
        """What was written: bytes, or a file to read it from and to close."""
        if self._file is None:
            return b"".join(self._chunks)
        self._file.seek(0)
        return self._file

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()


class TableWriter(Protocol):
    """Writes one table; `close` ends it, and with it a table of no rows is a table too. NaN becomes null."""

    def write(self, kept: "pa.RecordBatch | None", values: Array) -> None:
        """Some rows: the columns that pass through, and the numbers, (n, d), beside them."""

    def close(self) -> None: ...


def table_writer(
    form: OutputFormat, file: SpooledOutput, keep: Sequence[str], names: Sequence[str], document: Mapping[str, Any]
) -> TableWriter:
    """A writer of the columns `keep` and then `names`. As JSON the rows are the last member of the document."""
    if form in ("json", "ndjson"):
        return _JsonWriter(file, keep, names, document if form == "json" else None)
    if form == "csv":
        return _CsvWriter(file, keep, names)
    return _ArrowWriter(form, file, keep, names)


class _JsonWriter:
    """Objects, as the predictions of a document or one a line."""

    def __init__(
        self, file: SpooledOutput, keep: Sequence[str], names: Sequence[str], document: Mapping[str, Any] | None
    ) -> None:
        self._file, self._keep, self._names = file, keep, names
        self._between, self._end = (b"\n", b"\n") if document is None else (b",", b"]}")
        self._begun = False
        if document is not None:
            file.write(orjson.dumps(document)[:-1] + b',"predictions":[')

    def write(self, kept: "pa.RecordBatch | None", values: Array) -> None:
        if not len(values):
            return
        if kept is None and np.isfinite(values).all():
            self._append(objects_joined(values, self._names, self._between))
            return
        columns = [*(dates_as_text(kept).columns if kept is not None else ()), *values.T]
        try:
            rows = zip(*(column.tolist() for column in columns), strict=True)
        except (OverflowError, ValueError):
            raise InvalidInput("A kept column has a value that JSON cannot hold. Accept Arrow or Parquet.") from None
        names = [*self._keep, *self._names]
        # Each is copied and gone before the next: orjson takes 4 kB for it, of which the allocator gets back a piece.
        text = bytearray()
        for row in rows:
            text += self._between * bool(text)
            text += orjson.dumps(dict(zip(names, row, strict=True)), default=str)
        self._append(memoryview(text))

    def _append(self, text: bytes | memoryview) -> None:
        if self._begun:
            self._file.write(self._between)
        self._file.write(text)
        self._begun = True

    def close(self) -> None:
        if self._begun or self._end == b"]}":
            self._file.write(self._end)


class _CsvWriter:
    def __init__(self, file: SpooledOutput, keep: Sequence[str], names: Sequence[str]) -> None:
        self._file, self._names = file, names
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow([*keep, *names])
        file.write(header.getvalue().encode())

    def write(self, kept: "pa.RecordBatch | None", values: Array) -> None:
        import pyarrow as pa

        batch = _batch(None if kept is None else dates_as_text(kept), self._names, values)
        try:
            self._file.write(_csv(batch, "none"))
        except pa.ArrowInvalid:  # some value needs quotes; all words then have them
            self._file.write(_csv(batch, "needed"))

    def close(self) -> None:
        pass


def _csv(batch: "pa.RecordBatch", quoting: str) -> bytes:
    import pyarrow as pa
    from pyarrow.csv import WriteOptions, write_csv

    text = io.BytesIO()
    try:
        write_csv(batch, text, WriteOptions(include_header=False, quoting_style=quoting))
    except pa.ArrowInvalid:
        if quoting == "none":
            raise
        raise InvalidInput("A kept column has values that CSV cannot hold. Accept Arrow or Parquet.") from None
    except pa.ArrowException as error:
        raise_if_memory(error)
        raise InvalidInput("A kept column has values that CSV cannot hold. Accept Arrow or Parquet.") from None
    return text.getvalue()


class _ArrowWriter:
    """An Arrow IPC stream or a Parquet file. The first rows decide the types of the columns that are kept."""

    def __init__(self, form: OutputFormat, file: SpooledOutput, keep: Sequence[str], names: Sequence[str]) -> None:
        self._form, self._file, self._keep, self._names = form, file, keep, names
        self._schema: pa.Schema | None = None
        self._parquet: Any = None
        self._chunks = 0

    def write(self, kept: "pa.RecordBatch | None", values: Array) -> None:
        import pyarrow as pa

        batch = _batch(kept, self._names, values)
        try:
            self._begin(batch.schema)
            batch = batch.cast(self._schema)
            if self._parquet is None:
                # The message of an IPC stream, in one piece: its stream writer would copy it in many.
                self._file.write(memoryview(batch.serialize()))
            else:
                self._chunks += batch.num_columns
                if self._chunks > MAX_CHUNKS:
                    raise InvalidInput("The answer has too many columns and rows for Parquet. Accept another format.")
                self._parquet.write_batch(batch)
        except pa.ArrowException as error:
            raise_if_memory(error)
            raise InvalidInput(
                "A kept column has values of several types, or only null in the first rows. Accept JSON or CSV."
            ) from None

    def close(self) -> None:
        import pyarrow as pa

        kept = [pa.field(name, pa.null()) for name in self._keep]
        self._begin(pa.schema([*kept, *(pa.field(name, pa.float64()) for name in self._names)]))
        if self._parquet is None:
            self._file.write(END_OF_STREAM)
        else:
            self._parquet.close()

    def _begin(self, schema: "pa.Schema") -> None:
        if self._schema is not None:
            return
        self._schema = schema
        if self._form == "parquet":
            from pyarrow.parquet import ParquetWriter

            self._parquet = ParquetWriter(self._file, schema)
        else:
            self._file.write(memoryview(schema.serialize()))


def _batch(kept: "pa.RecordBatch | None", names: Sequence[str], values: Array) -> "pa.RecordBatch":
    import pyarrow as pa

    columns = [*(kept.columns if kept is not None else ()), *map(_array, values.T)]
    fields = [*(kept.schema if kept is not None else ()), *(pa.field(name, pa.float64()) for name in names)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _array(numbers: Array) -> "pa.Array":
    import pyarrow as pa

    missing = np.isnan(numbers)
    return pa.array(numbers, mask=missing) if missing.any() else pa.array(numbers)
