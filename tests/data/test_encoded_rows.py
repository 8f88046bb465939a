"""Training rows of words, dates, booleans and gaps, in every format."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from tables import written

from app.data import training_rows
from app.data.columns.schema import Column, Dialect, TableSchema
from app.data.groups import Groups
from app.data.training_rows import TrainingRows
from app.errors import InvalidInput

FORMS = ["csv", "ndjson", "arrow", "parquet"]
SCHEMA = TableSchema(
    features=(
        Column("word", kind="category", levels=("a", "b", "c")),
        Column("day", kind="date"),
        Column("x", missing="indicator", fill=0.5),
    ),
    targets=(Column("y"), Column("z", kind="boolean")),
    weight=Column("w"),
)
TABLE: dict[str, list[Any]] = {
    "w": [1, 2, 1, 1, 0, 1],
    "x": [1.5, None, 2.5, 3.5, 4.5, 5.5],
    "word": ["b", "a", None, "c", "a", "b"],
    "unused": ["p", "q", "r", "s", "t", "u"],
    "day": [*(dt.date(1970, 1, day) for day in range(1, 6)), None],
    "z": [True, False, True, False, True, True],
    "y": [1.0, 2.0, 3.0, None, 5.0, None],
}


def stored(folder: Path, table: Mapping[str, Any], form: str) -> Path:
    path = folder / f"rows.{form}"
    if form == "ndjson":
        table = {name: [str(v) if isinstance(v, dt.date) else v for v in values] for name, values in table.items()}
    path.write_bytes(written(pa.table(table), form, **({"chunk": 10_000} if form == "arrow" else {})))
    return path


def read(rows: TrainingRows) -> list[list[float]]:
    found: list[list[float]] = []
    for batch in rows.batches():
        assert batch.sample_weight is not None
        found += np.column_stack([batch.x, batch.y, batch.sample_weight]).tolist()
    return found


@pytest.mark.parametrize("form", [*FORMS, "excel"])
def test_rows_are_encoded_and_those_with_gaps_are_dropped_and_counted(tmp_path: Path, form: str) -> None:
    rows = TrainingRows(stored(tmp_path, TABLE, form), form, SCHEMA)
    for _ in range(2):
        assert read(rows) == [[1, 0, 0, 1.5, 0, 1, 1, 1], [0, 0, 1, 0.5, 1, 2, 0, 2]]
        assert (rows.complete, rows.dropped, rows.zero_weight_rows) == (2, 3, 1)
        assert rows.gaps.by_column == {"y": 2, "word": 1, "day": 1}
    assert rows.unused == ["w", "unused"]
    assert rows.warnings == []


@pytest.mark.parametrize("form", FORMS)
def test_a_gap_that_is_refused_is_named_with_its_place(tmp_path: Path, form: str) -> None:
    word, day, x = SCHEMA.features
    schema = replace(SCHEMA, features=(replace(word, missing="refuse"), replace(day, missing="refuse"), x))
    with pytest.raises(InvalidInput, match="The value is missing") as refused:
        read(TrainingRows(stored(tmp_path, TABLE, form), form, schema))
    first = 2 if form == "csv" else 1
    places = [(detail.row, detail.column) for detail in refused.value.details]
    assert places == [(first + 2, "word"), (first + 5, "day")]


@pytest.mark.parametrize("form", FORMS)
def test_a_value_of_another_kind_is_refused_with_its_place(tmp_path: Path, form: str) -> None:
    table = {"x": ["1 Jan 1970", "2 Jan 1970", "31 Feb 1970"], "y": [1.0, 2.0, 3.0]}
    schema = TableSchema((Column("x", kind="date"),), (Column("y"),))
    with pytest.raises(InvalidInput, match="Expected a date") as refused:
        list(TrainingRows(stored(tmp_path, table, form), form, schema).batches())
    (detail,) = refused.value.details
    assert (detail.row, detail.column) == (4 if form == "csv" else 3, "x")


@pytest.mark.parametrize("form", [*FORMS, "excel"])
def test_numbers_sent_as_strings_are_numbers_if_the_schema_says_so(tmp_path: Path, form: str) -> None:
    table = {"x": ["1", "NA", " 2.5"], "y": [1.0, 2.0, 3.0]}
    rows = TrainingRows(stored(tmp_path, table, form), form, TableSchema((Column("x", strings=True),), (Column("y"),)))
    (batch,) = rows.batches()
    assert batch.x.tolist() == [[1], [2.5]]
    assert rows.gaps.by_column == {"x": 1}


@pytest.mark.parametrize("form", FORMS)
def test_groups_may_be_a_category_or_any_other_column(tmp_path: Path, form: str) -> None:
    path = stored(tmp_path, TABLE, form)
    for column in ("word", "unused", "x"):
        groups = Groups(column, 5, 1)
        (batch,) = TrainingRows(path, form, SCHEMA, groups=groups).batches()
        assert batch.fold is not None
        kept = [0, 1] if column != "x" else [0]
        assert batch.fold.tolist() == groups.of_values([TABLE[column][row] for row in kept]).tolist()


@pytest.mark.parametrize("form", FORMS)
def test_a_rounded_integer_is_a_warning_with_its_row(tmp_path: Path, form: str) -> None:
    table = {"x": [2**53, 2**53 + 1], "word": ["a", "b"], "y": [1, 2]}
    schema = TableSchema((Column("x"), SCHEMA.features[0]), (Column("y"),))
    rows = TrainingRows(stored(tmp_path, table, form), form, schema)
    list(rows.batches())
    (warning,) = rows.warnings
    assert f"first in row {3 if form == 'csv' else 2}" in warning


@pytest.mark.parametrize("form", FORMS)
def test_wide_rows_come_in_small_batches(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_rows, "batch_rows", lambda columns: 1000 // len(columns.numbers))
    levels = tuple(f"level {number:03}" for number in range(100))
    table = {"word": [levels[row % 100] for row in range(1000)], "y": np.arange(1000.0)}
    schema = TableSchema((Column("word", kind="category", levels=levels),), (Column("y"),))
    batches = list(TrainingRows(stored(tmp_path, table, form), form, schema).batches())
    assert max(len(batch.x) for batch in batches) == 10
    x = np.vstack([batch.x for batch in batches])
    assert_array_equal(x, np.arange(100)[1:] == np.arange(1000)[:, np.newaxis] % 100)
    assert_array_equal(np.vstack([batch.y for batch in batches])[:, 0], np.arange(1000.0))


def test_signs_thousands_and_a_decimal_comma_are_read_as_the_schema_says(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text('x;y;z\n"$1.234,5";1,5;7\n$2;NA;8\n-$3;2,5;?\n$4;?;9\n$5;-1;999\n')
    schema = TableSchema(
        (Column("x", decimal=",", thousands=".", strip=("$",)), Column("z", decimal=",", na=("999",))),
        (Column("y", decimal=","),),
        dialect=Dialect(sep=";", decimal=","),
    )
    rows = TrainingRows(path, "csv", schema)
    (batch,) = rows.batches()
    assert batch.x.tolist() == [[1234.5, 7]]
    assert batch.y.tolist() == [[1.5]]
    assert rows.gaps.by_column == {"z": 2, "y": 2}
