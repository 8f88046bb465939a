"""Tables as files, in every format that the service reads."""

import gzip
import io
import zlib
from collections.abc import Callable
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import xlsxwriter
from backports import zstd

MEDIA_TYPES: dict[str, str] = {
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
TABLE_FORMS = (*MEDIA_TYPES, "excel", "json")  # with the formats that are only read
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


def gzip_bomb(byte: bytes, mebibytes: int) -> bytes:
    """Return a gzip member of one byte repeated, without its end. To compress all the bytes would take a second."""
    compressor = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    part = byte * (1 << 20)
    first, other = (compressor.compress(part) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + other * (mebibytes - 1)


def written(table: pa.Table, form: str, **options: Any) -> bytes:
    """Return the file. `chunk` is the most rows of a record batch in an Arrow stream."""
    sink = io.BytesIO()
    if form == "csv":
        pyarrow.csv.write_csv(table, sink)
    elif form == "ndjson":
        sink.writelines(orjson.dumps(row) + b"\n" for row in table.to_pylist())
    elif form == "json":
        sink.write(orjson.dumps(table.to_pylist()))
    elif form == "excel":
        _write_workbook(table, sink)
    elif form == "arrow":
        chunk = options.pop("chunk", max(3, len(table) // 1000))
        with pa.ipc.new_stream(sink, table.schema, **options) as stream:
            stream.write_table(table, max_chunksize=chunk)
    else:
        pyarrow.parquet.write_table(table, sink, **options)
    return sink.getvalue()


def _write_workbook(table: pa.Table, sink: io.BytesIO) -> None:
    book = xlsxwriter.Workbook(sink, {"in_memory": True, "default_date_format": "yyyy-mm-dd hh:mm:ss"})
    sheet = book.add_worksheet()
    for column, name in enumerate(table.column_names):
        sheet.write_string(0, column, name)
        for row, value in enumerate(table[name].to_pylist(), start=1):
            if isinstance(value, str):
                sheet.write_string(row, column, value)
            elif value is not None:
                sheet.write(row, column, value)
    book.close()
