"""Small files that would decode to very much: refused before they are decoded, or read in bounded memory."""

import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service import ROOT
from tables import written

from app.data.formats import BY_NAME
from app.data.limits import arrow_limits, decode_limits, parquet_limits
from app.errors import BodyTooLarge, InvalidInput

GIBIBYTE = 1 << 30
SMALL = 1 << 20  # bytes of a file that is a bomb, at most
# Bytes that reading a file may take: 256 MiB at once, and half of that again for the values decoded from it.
MAX_MEMORY = 3 << 27

# Admits each file that its input names as the service does, and reads it as the trainer does, in a process of its own
# that may take a minute of CPU time. Prints the result, the rows and the memory.
READER = """
import json, os, resource, sys
from pathlib import Path
import pyarrow.parquet, numpy
from app.data.formats import BY_NAME
from app.data.batch import Columns
from app.errors import LinserveError
peak = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10
def read(path, form, limit):
    before, rows, end = peak(), 0, "read"
    try:
        names = BY_NAME[form].column_names(path)[:100]
        BY_NAME[form].check_size(path, names, limit)
        for batch in BY_NAME[form].batches(path, Columns(names, missing=True), 2):
            rows += len(batch.values)
    except LinserveError as error:
        end = type(error).__name__
    print(json.dumps([end, rows, peak() - before]), flush=True)
for line in sys.stdin:
    path, form, limit = json.loads(line)
    if os.fork() == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        read(Path(path), form, limit)
        os._exit(0)
    if status := os.wait()[1]:
        print(json.dumps([f"status {status}", 0, 0]), flush=True)
"""
Read: TypeAlias = Callable[[bytes, str], tuple[str, int, int]]


@pytest.fixture(scope="module")
def reader() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", READER]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


@pytest.fixture
def read(reader: subprocess.Popen[str], tmp_path: Path) -> Read:
    """Return a function that reads a file. It returns the result, the number of rows, and the memory that it took."""

    def read_file(content: bytes, form: str) -> tuple[str, int, int]:
        path = tmp_path / "rows"
        path.write_bytes(content)
        assert reader.stdin is not None
        assert reader.stdout is not None
        print(json.dumps([str(path), form, 4 * GIBIBYTE]), file=reader.stdin, flush=True)
        end, rows, memory = json.loads(reader.stdout.readline())
        return end, rows, memory

    return read_file


def arrow(schema: pa.Schema, *batches: pa.RecordBatch, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return sink.getvalue()


def zeros(rows: int, compression: str) -> bytes:
    batch = pa.record_batch({"a": np.zeros(rows)})
    return arrow(batch.schema, batch, compression=compression)


def nulls(rows: int) -> bytes:
    schema = pa.schema([("a", pa.null())])
    content = arrow(schema, pa.RecordBatch.from_arrays([pa.nulls(12345)], schema=schema))
    return content.replace(struct.pack("<q", 12345), struct.pack("<q", rows))


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def one_page(rows: int, compression: str) -> bytes:
    options = {"data_page_size": 1 << 31, "max_rows_per_page": 1 << 31, "row_group_size": rows}
    return parquet(pa.table({"a": np.zeros(rows)}), use_dictionary=False, compression=compression, **options)


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def footer(groups: int, columns: int) -> bytes:
    """A Parquet file of nothing but descriptions, three bytes each, of column chunks."""
    schema = b"\x19\x2c" + b"\x48\x01r\x15\x02\x00" + b"\x15\x0a\x25\x00\x18\x01a\x00"
    group = b"\x19\xfc" + varint(columns) + b"\x26\x00\x00" * columns + b"\x16\x00\x16\x00\x00"
    described = b"\x15\x02" + schema + b"\x16\x00" + b"\x19\xfc" + varint(groups) + group * groups + b"\x00"
    return b"PAR1" + described + struct.pack("<I", len(described)) + b"PAR1"


def claimed(groups: int) -> bytes:
    """A Parquet file whose footer announces row groups that are not there."""
    schema = b"\x19\x2c" + b"\x48\x01r\x15\x02\x00" + b"\x15\x0a\x25\x00\x18\x01a\x00"
    described = b"\x15\x02" + schema + b"\x16\x00" + b"\x19\xfc" + varint(groups) + b"\x00"
    return b"PAR1" + described + struct.pack("<I", len(described)) + b"PAR1"


def page_header_of_numbers(count: int) -> bytes:
    """A Parquet file with a compressed page whose header is a list of zeros."""
    header = b"\x19\xf5" + varint(count) + b"\x00" * count
    sizes = b"\x15\x02" + b"\x16\x02" + b"\x16\x02" + b"\x16" + varint(2 * len(header)) + b"\x26" + varint(8)
    chunk = b"\x26\x00\x1c" + b"\x15\x0a\x19\x05\x19\x18\x01a" + sizes + b"\x00\x00"
    schema = b"\x19\x2c" + b"\x48\x01r\x15\x02\x00" + b"\x15\x0a\x25\x00\x18\x01a\x00"
    described = b"\x15\x02" + schema + b"\x16\x02" + b"\x19\x1c" + b"\x19\x1c" + chunk + b"\x16\x02\x16\x02\x00\x00"
    return b"PAR1" + header + described + struct.pack("<I", len(described)) + b"PAR1"


class Described:
    """An Arrow message with a schema, laid out by hand, with parts that are shared as no writer would."""

    def __init__(self) -> None:
        self._bytes = bytearray(4)

    def table(self, slots: dict[int, bytes]) -> int:
        """Return the offset of a table with these fields. The targets of its references are set later."""
        count = max(slots, default=-1) + 1
        places, body = [0] * count, bytearray(4)
        for slot, value in slots.items():
            places[slot] = len(body)
            body += value
        fields = struct.pack(f"<HH{count}H", 4 + 2 * count, len(body), *places)
        at = len(self._bytes) + len(fields)
        struct.pack_into("<i", body, 0, len(fields))
        self._bytes += fields + body
        return at

    def vector(self, count: int, content: bytes) -> int:
        at = len(self._bytes)
        self._bytes += struct.pack("<I", count) + content
        return at

    def point(self, at: int, to: int) -> None:
        struct.pack_into("<I", self._bytes, at, to - at)

    def message(self) -> bytes:
        metadata = bytes(self._bytes) + b"\0" * (-len(self._bytes) % 8)
        return b"\xff" * 4 + struct.pack("<i", len(metadata)) + metadata


def schema_of(names: int, depth: int = 0) -> bytes:
    """A schema of `names` fields that share one description, with as many fields inside each, to `depth` levels."""
    made = Described()
    root = made.table({1: b"\1", 2: b"\0" * 4})
    made.point(0, root)
    holder = made.table({1: b"\0" * 4})
    made.point(root + 5, holder)
    for level in range(depth + 1):
        vector = made.vector(names, b"\0" * 4 * names)
        made.point(holder + 4, vector)
        last = level == depth
        field = made.table({0: b"\0" * 4} if last else {5: b"\0" * 4})
        for index in range(names):
            made.point(vector + 4 + 4 * index, field)
        holder = field
    made.point(holder + 4, made.vector(1, b"a\0"))
    return made.message()


def shared_words() -> bytes:
    """A schema with many entries of metadata that share one text of 100 kB."""
    made = Described()
    root = made.table({1: b"\1", 2: b"\0" * 4})
    made.point(0, root)
    schema = made.table({2: b"\0" * 4})
    made.point(root + 5, schema)
    notes = made.vector(50_000, b"\0" * 200_000)
    made.point(schema + 4, notes)
    pair = made.table({0: b"\0" * 4, 1: b"\0" * 4})
    for index in range(50_000):
        made.point(notes + 4 + 4 * index, pair)
    words = made.vector(100_000, b"a" * 100_001)
    made.point(pair + 4, words)
    made.point(pair + 8, words)
    return made.message()


BOMBS: dict[str, tuple[str, Callable[[], bytes], set[str]]] = {
    "Arrow, a batch that lz4 packed": ("arrow", lambda: zeros(34_000_000, "lz4"), {"InvalidInput"}),
    "Arrow, a batch that zstd packed": ("arrow", lambda: zeros(34_000_000, "zstd"), {"InvalidInput"}),
    "Arrow, rows without bytes": ("arrow", lambda: nulls(1 << 40), {"BodyTooLarge"}),
    "Arrow, more rows than can be added up": ("arrow", lambda: nulls((1 << 63) - 1), {"BodyTooLarge"}),
    "Arrow, metadata of 2 GB": ("arrow", lambda: b"\xff" * 7 + b"\x7f" + b"\0" * 100, {"InvalidInput"}),
    "Arrow, a name for each of many columns": ("arrow", lambda: schema_of(200_000), {"InvalidInput"}),
    "Arrow, columns in columns in columns": ("arrow", lambda: schema_of(20, depth=20), {"InvalidInput"}),
    "Arrow, entries of metadata that share one text": ("arrow", shared_words, {"InvalidInput"}),
    "Parquet, a page that zstd packed": ("parquet", lambda: one_page(34_000_000, "zstd"), {"InvalidInput"}),
    "Parquet, a page that gzip packed": ("parquet", lambda: one_page(34_000_000, "gzip"), {"InvalidInput"}),
    "Parquet, a footer of descriptions": ("parquet", lambda: footer(6, 50_000), {"InvalidInput"}),
    "Parquet, a footer that announces a million row groups": ("parquet", lambda: claimed(1_000_000), {"InvalidInput"}),
    "Parquet, a page header of numbers": ("parquet", lambda: page_header_of_numbers(64 * SMALL), {"InvalidInput"}),
    "Parquet, a footer longer than the file": ("parquet", lambda: b"PAR1\xff\xff\xff\x7fPAR1", {"InvalidInput"}),
    "CSV, a line without end": ("csv", lambda: b"a\n" + b"1" * SMALL * 64, {"InvalidInput"}),
    "CSV, a quote without end": ("csv", lambda: b'a\n"' + b"1\n" * SMALL * 32, {"InvalidInput"}),
    "CSV, a header of names": ("csv", lambda: b",".join(b"%x" % n for n in range(150_000)), {"InvalidInput"}),
    "NDJSON, a line without end": ("ndjson", lambda: b'{"a":' + b" " * SMALL * 64, {"InvalidInput"}),
    "NDJSON, arrays in arrays": ("ndjson", lambda: b'{"a":' + b"[" * SMALL * 64, {"InvalidInput"}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "gzip packed" in name else name for name in BOMBS]
)
def test_a_small_file_that_would_take_much_memory_is_refused_before_it_does(name: str, read: Read) -> None:
    form, make, expected = BOMBS[name]
    end, rows, memory = read(make(), form)
    assert ({end}, rows) == (expected, 0)
    assert memory < MAX_MEMORY, f"{memory >> 20} MiB"


@pytest.mark.parametrize(
    ("form", "make"),
    [
        ("parquet", lambda: parquet(pa.table({"a": np.zeros(50_000_000)}), row_group_size=50_000_000)),
        ("parquet", lambda: parquet(pa.table({"a": pa.nulls(50_000_000)}), row_group_size=50_000_000)),
        ("parquet", lambda: one_page(20_000_000, "zstd")),
        ("arrow", lambda: zeros(20_000_000, "zstd")),
    ],
    ids=["equal values", "no values", "a page that just fits", "a batch that just fits"],
)
def test_a_file_compressed_a_thousandfold_within_the_limits_is_read_in_bounded_memory(
    form: str, make: Callable[[], bytes], read: Read
) -> None:
    content = make()
    assert len(content) < SMALL
    end, rows, memory = read(content, form)
    assert end == ("InvalidInput" if rows == 0 else "read")
    assert memory < MAX_MEMORY, f"{memory >> 20} MiB"


@pytest.mark.parametrize(("method", "part"), [("batches", "kept"), ("cells", "cells")])
def test_a_long_word_that_every_row_repeats_is_read_in_bounded_memory(tmp_path: Path, method: str, part: str) -> None:
    rows = 600
    words = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), ["x" * SMALL])
    (tmp_path / "rows").write_bytes(parquet(pa.table({"a": np.zeros(rows), "word": words.cast(pa.string())})))
    code = f"""
import sys
from pathlib import Path
import pyarrow.compute, pyarrow.parquet
from app.data.formats import BY_NAME
from app.data.batch import Columns
peak = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10
form, path, columns = BY_NAME["parquet"], Path(sys.argv[1]), Columns(["a"], ["word"])
before, length = peak(), 0
for batch in form.{method}(path, columns):
    length += pyarrow.compute.sum(pyarrow.compute.binary_length(batch.{part}.column("word"))).as_py()
print(length, peak() - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "rows")]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=600).stdout
    length, memory = map(int, said.split())
    assert length == rows * SMALL
    assert memory < MAX_MEMORY, f"{memory >> 20} MiB"


def test_rows_of_several_times_the_size_of_an_upload_are_too_large() -> None:
    content = parquet(pa.table({"a": np.zeros(1_000_000), "b": np.zeros(1_000_000)}))
    BY_NAME["parquet"].check_size(content, ["a"], SMALL)  # 8 MB, of 1 MiB eight times over
    with pytest.raises(BodyTooLarge, match="8 times the 1048576 bytes"):
        BY_NAME["parquet"].check_size(content, ["a", "b"], SMALL)
    with pytest.raises(BodyTooLarge):
        BY_NAME["arrow"].check_size(zeros(2_000_000, "lz4"), ["a"], SMALL)


def test_a_dictionary_counts_in_addition_to_the_pages_that_point_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"a": np.arange(20_000) % 10_000, "b": np.zeros(20_000)})
    content = parquet(table, compression="zstd", dictionary_pagesize_limit=1 << 20)
    BY_NAME["parquet"].check_size(content, ["a"], GIBIBYTE)
    monkeypatch.setattr(decode_limits, "HELD_BYTES", 80_000 - len(content))
    BY_NAME["parquet"].check_size(content, ["b"], GIBIBYTE)  # only the columns that are read count
    with pytest.raises(InvalidInput, match="of memory at once"):
        BY_NAME["parquet"].check_size(content, ["a"], GIBIBYTE)


def test_dictionaries_of_a_stream_count_in_addition_to_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    words = pa.array([f"{n % 10:1000}" for n in range(1000)]).dictionary_encode()
    batch = pa.record_batch({"a": np.zeros(1000), "words": words.cast(pa.dictionary(pa.int32(), pa.string()))})
    content = arrow(batch.schema, batch, compression="zstd")
    monkeypatch.setattr(decode_limits, "HELD_BYTES", 22_000)
    BY_NAME["arrow"].check_size(content, ["a"], GIBIBYTE)
    monkeypatch.setattr(decode_limits, "HELD_BYTES", 20_000)
    with pytest.raises(InvalidInput, match="of memory at once"):
        BY_NAME["arrow"].check_size(content, ["a"], GIBIBYTE)


def test_the_announced_length_of_a_compressed_buffer_is_checked_before_it_is_decompressed() -> None:
    content = zeros(1000, "lz4")
    packed = content.replace(struct.pack("<q", 8000), struct.pack("<q", 1 << 60))
    assert packed != content
    with pytest.raises(InvalidInput, match="of memory at once"):
        BY_NAME["arrow"].check_size(packed, ["a"], GIBIBYTE)


def test_too_many_batches_or_pages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = pa.schema([("a", pa.float64())])
    empty = pa.RecordBatch.from_arrays([pa.array([], pa.float64())], schema=schema)
    monkeypatch.setattr(arrow_limits, "MAX_BATCHES", 10)
    BY_NAME["arrow"].check_size(arrow(schema, *[empty] * 9), ["a"], GIBIBYTE)
    with pytest.raises(InvalidInput, match="more than 10 batches"):
        BY_NAME["arrow"].check_size(arrow(schema, *[empty] * 11), ["a"], GIBIBYTE)
    content = parquet(pa.table({"a": np.random.default_rng(0).normal(size=1000)}), max_rows_per_page=10)
    BY_NAME["parquet"].check_size(content, ["a"], GIBIBYTE)
    monkeypatch.setattr(parquet_limits, "MAX_PAGES", 50)
    with pytest.raises(InvalidInput, match="more than 50 pages"):
        BY_NAME["parquet"].check_size(content, ["a"], GIBIBYTE)


@pytest.mark.parametrize("form", ["csv", "arrow", "parquet"])
def test_more_than_ten_thousand_columns_are_refused(form: str) -> None:
    columns = {f"{n:x}": pa.array([1.0]) for n in range(10_001)}
    with pytest.raises(InvalidInput, match=r"more than 10000 columns|metadata is longer"):
        BY_NAME[form].column_names(written(pa.table(columns), form))
    columns.popitem()
    assert form == "parquet" or len(BY_NAME[form].column_names(written(pa.table(columns), form))) == 10_000


FILES = {
    "arrow": arrow(
        pa.schema([("a", pa.float64()), ("b", pa.list_(pa.int8()))], {"k": "v"}),
        pa.record_batch({"a": [1.0, 2.0], "b": pa.array([[1], [2]], pa.list_(pa.int8()))}),
        compression="zstd",
    ),
    "parquet": parquet(pa.table({"a": np.arange(50.0)}), compression="zstd"),
}


@pytest.mark.parametrize("form", FILES)
@settings(max_examples=100)
@given(data=st.data())
def test_any_bytes_are_admitted_or_refused(form: str, data: st.DataObject) -> None:
    content = bytearray(FILES[form])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        BY_NAME[form].column_names(bytes(content))
        BY_NAME[form].check_size(bytes(content), ["a"], GIBIBYTE)
    except (InvalidInput, BodyTooLarge):
        pass
