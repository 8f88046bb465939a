from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tables import written

from app.data import reading
from app.data.batch import Columns
from app.data.formats import BY_NAME
from app.data.formats.csv import CSV
from app.data.reading import read_file
from app.errors import InvalidInput

FORMATS: list[str] = ["csv", "ndjson", "arrow", "parquet"]


def places(content: bytes | Path, form: str, *names: str, **options: Any) -> list[tuple[str | None, int | None]]:
    with pytest.raises(InvalidInput) as refused:
        list(read_file(content, BY_NAME[form], Columns(names, **options)))
    return [(detail.column, detail.row) for detail in refused.value.details]


@pytest.mark.parametrize("form", FORMATS)
def test_every_column_with_a_gap_is_named_with_its_first_row_however_far_apart_they_are(form: str) -> None:
    # Several batches of a file; the stream has a batch for every three rows.
    size = {"csv": 150_000, "ndjson": 30_000, "arrow": 3_000, "parquet": 150_000}[form]
    columns = {name: [1.0] * size for name in "abcd"}
    gaps = {"c": 5, "a": size // 2, "d": size - 1}
    for name, row in gaps.items():
        columns[name][row] = None  # type: ignore[call-overload]
        columns[name][-1] = None  # type: ignore[call-overload]
    first = 2 if form == "csv" else 1
    found = places(written(pa.table(columns), form), form, "a", "b", "c", "d")
    assert found == [(name, row + first) for name, row in gaps.items()]


def test_words_and_gaps_in_csv_are_named_together() -> None:
    content = b"a,b,c,d\n1,2,3,4\n1,x,3,4\n,2,3,4\n1,2,3,y\n"
    assert places(content, "csv", "a", "b", "c", "d") == [("b", 3), ("a", 4), ("d", 5)]
    assert places(content, "csv", "d", "b") == [("b", 3), ("d", 5)]
    assert places(content, "csv", "a", "b", "c", "d", missing=True) == [("b", 3), ("d", 5)]
    assert places(content, "csv", "a", "b", "c", only=True, keep=["d"]) == [("b", 3), ("a", 4)]


def test_at_most_twenty_columns_are_named() -> None:
    names = [f"x{index}" for index in range(40)]
    content = (",".join(names) + "\n" + ",".join(["x"] * 40) + "\n").encode()
    assert places(content, "csv", *names) == [(name, 2) for name in names[:20]]


def test_a_fault_of_a_row_is_alone() -> None:
    assert places(b"a,b\nx,2\n1,2,3\n", "csv", "a", "b") == [(None, 3)]
    assert places(b'{"a":1,"b":2}\n7\n{"a":"x","b":2}\n', "ndjson", "a", "b") == [(None, 2)]


def test_a_name_twice_in_the_header_is_not_a_fault_of_values() -> None:
    with pytest.raises(InvalidInput, match="Several columns have the same name in the header"):
        list(read_file(b"a,a\n1,2\n", CSV, Columns(["a"])))


def test_the_work_to_find_more_faults_is_bounded_by_that_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_NUMBERS", 0)
    rows = 400_000
    content = b"a,b\nx,1\n" + b"1,1\n" * rows + b"1,y\n"
    assert places(content, "csv", "a", "b") == [("a", 2)]
    monkeypatch.setattr(reading, "MAX_NUMBERS", 2 * rows)
    assert places(content, "csv", "a", "b") == [("a", 2), ("b", rows + 3)]


def test_hints_for_very_many_names_are_limited() -> None:
    wanted = [f"wanted {index}" for index in range(2000)]
    line = ("{" + ",".join(f'"wente {index}":1' for index in range(30_000)) + "}\n").encode()
    assert places(line, "ndjson", *wanted, late={}) == [(None, 1)] * 20
    rows = b'{"other":1}\n' * 30_000
    assert places(b'{"other":1,"a":1}\n' + rows, "ndjson", "a") == [("a", 2)]
