"""Tables as one JSON document."""

import io
import json
import math
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from app.data.json_tables import is_table, json_table_to_arrow, split_records
from app.errors import InvalidInput, LinserveError, MalformedBody

FRAME = pd.DataFrame({"x": [1, 2, 3], "word": ["a", None, "größe"], "b": [True, False, None], "f": [1.5, None, 2]})
CELLS = {"x": [1, 2, 3], "word": ["a", None, "größe"], "b": [True, False, None], "f": [1.5, None, 2.0]}


def read(body: bytes) -> dict[str, list[Any]]:
    file = io.BytesIO()
    json_table_to_arrow(body, file)
    return dict(pa.ipc.open_stream(file.getvalue()).read_all().to_pydict())


def refusal(body: bytes) -> LinserveError:
    with pytest.raises(LinserveError) as refused:
        json_table_to_arrow(body, io.BytesIO())
    return refused.value


@pytest.mark.parametrize("orient", ["records", "split"])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b" \n"])
def test_records_and_split_are_read_as_pandas_writes_them(orient: Any, before: bytes) -> None:
    body = before + FRAME.to_json(orient=orient).encode()
    assert is_table(body)
    assert read(body) == CELLS


def test_split_is_the_same_as_records_for_a_prediction() -> None:
    records = split_records(FRAME.to_json(orient="split").encode())
    assert records == json.loads(FRAME.to_json(orient="records"))
    for body in (
        b'{"instances": [[1]]}',
        b'{"columns": ["a"]}',
        b'{"data": [[1',
        b'{"columns": ["a"], "data": [[1, 2]]}',
    ):
        assert split_records(body) is None


@pytest.mark.parametrize("orient", ["values", "index", "columns"])
def test_other_orients_are_refused_with_those_that_are_read(orient: Any) -> None:
    body = FRAME.to_json(orient=orient).encode()
    assert is_table(body)
    assert 'orient="records"' in refusal(body).message


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[1]], "targets": [[2]]}',
        b'{"targets": [[2]], "columns": {}, "data": []}',
        b'{"instance": [[1]], "target": [[2]]}',
        b'{"solver": {}}',
        b"{}",
        b"",
        b'{"instances": [',
        b"5",
        b"\xff",
    ],
)
def test_a_request_is_no_table(body: bytes) -> None:
    assert not is_table(body)


def test_nan_as_python_writes_it_is_a_gap() -> None:
    records: list[dict[str, Any]] = [{"a": 1, "b": "x"}, {"a": math.nan, "b": math.nan}]
    split = {"columns": ["a", "b"], "index": [0, 1], "data": [list(record.values()) for record in records]}
    for body in (json.dumps(records).encode(), json.dumps(split).encode()):
        assert is_table(body)
        assert read(body) == {"a": [1, None], "b": ["x", None]}


def test_a_name_that_a_record_lacks_is_a_gap() -> None:
    assert read(b'[{"a": 1}, {"b": "x", "a": 2}]') == {"a": [1, 2], "b": [None, "x"]}


@pytest.mark.parametrize(
    ("body", "message", "pointer", "row"),
    [
        (b"[", "not JSON", None, None),
        (b'[{"a": 1}, {"a": 1]', "not JSON", None, None),
        (b'[{"a": 1}, \xff]', "not JSON", None, None),
        (b"[" * 100_000, "not JSON", None, None),
        (b"[]", "empty", None, None),
        (b"[{}]", "no values", None, None),
        (b'[{"a": 1}, [1]]', "Expected an object", "/1", None),
        (b'[{"a": 1}, null]', "found null", "/1", None),
        (b'[{"a": 1}, {"a": "x"}]', "Found a string, but row 1 has a number", None, 2),
        (b'[{"a": 1}, {"a": [1]}]', "found an array", None, 2),
        (b'{"columns": ["a", "b"], "data": [[1, 2], [1]]}', "found 1 values", "/data/1", None),
        (b'{"columns": ["a"], "data": [{"a": 1}]}', "found an object", "/data/0", None),
        (b'{"columns": ["a", "a"], "data": [[1, 2]]}', "same name", None, None),
        (b'{"columns": ["a"], "data": []}', "empty", None, None),
        (b'{"columns": {"a": 1}, "data": [[1]]}', "not read", None, None),
    ],
)
def test_a_fault_is_refused_with_its_place(body: bytes, message: str, pointer: str | None, row: int | None) -> None:
    error = refusal(body)
    assert isinstance(error, InvalidInput | MalformedBody)
    assert message in error.message
    if pointer or row:
        assert (error.details[0].pointer, error.details[0].row) == (pointer, row)


def test_a_document_with_many_rows_is_written_in_batches() -> None:
    body = json.dumps([{"a": row, "b": str(row)} for row in range(40_000)]).encode()
    file = io.BytesIO()
    json_table_to_arrow(body, file)
    reader = pa.ipc.open_stream(file.getvalue())
    assert [batch.num_rows for batch in reader] == [16_384, 16_384, 7_232]
