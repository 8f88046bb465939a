"""Tables as files, in every format that the service reads."""

import gzip
import io
from collections.abc import Callable
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from backports import zstd

MEDIA_TYPES: dict[str, str] = {
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": gzip.compress, "zstd": zstd.compress}


def written(table: pa.Table, form: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    if form == "csv":
        pyarrow.csv.write_csv(table, sink)
    elif form == "ndjson":
        sink.writelines(orjson.dumps(row) + b"\n" for row in table.to_pylist())
    elif form == "arrow":
        with pa.ipc.new_stream(sink, table.schema, **options) as stream:
            stream.write_table(table, max_chunksize=max(3, len(table) // 1000))
    else:
        pyarrow.parquet.write_table(table, sink, **options)
    return sink.getvalue()
