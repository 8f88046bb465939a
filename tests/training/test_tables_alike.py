"""Random tables with words, booleans, dates, numbers and gaps: every way to send them trains the same model."""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laboratory import Laboratory, coefficients, predictions
from numpy.typing import NDArray
from tables import TABLE_FORMS, written

from app.data.columns.options import ReadingOptions

# Levels of categories. Some of them are gaps in columns of numbers, or have signs of text formats.
WORDS = [
    "red",
    "Green",
    "gr\u00fcn",
    "None",
    "nan",
    "-",
    "a b",
    "x,y",
    'q"q',
    "1st",
    "true",
    "2020-01-01",
    "\U0001f600",
    "Z",
]
START = datetime(2019, 12, 30, tzinfo=UTC).replace(tzinfo=None)
SAME = 1e-12  # Relative difference of coefficients that is due to rounding alone.
ALIKE = 1e-9  # Difference of predictions, in residual standard deviations.


def column(kind: str, rows: int, random: np.random.Generator) -> list[Any]:
    if kind == "words":
        words = ["red", *random.choice(WORDS[1:], size=int(random.integers(1, 5)), replace=False)]
        return [str(word) for word in random.choice(words, size=rows)]
    if kind == "boolean":
        return [bool(value) for value in random.integers(2, size=rows)]
    if kind == "date":
        return [(START + timedelta(days=int(day))).date() for day in random.integers(-9000, 9000, size=rows)]
    if kind == "time":
        return [START + timedelta(seconds=int(second)) for second in random.integers(10**9, size=rows)]
    if kind == "integer":
        return [int(value) for value in random.integers(-50, 1000, size=rows)]
    return [float(value) for value in (random.normal(size=rows) * 10.0 ** random.integers(-3, 4)).round(6)]


TYPES = {
    "words": pa.string(), "boolean": pa.bool_(), "date": pa.date32(), "time": pa.timestamp("us"),
    "integer": pa.int64(), "number": pa.float64(),
}  # fmt: skip


@st.composite
def tables(draw: st.DrawFn, rows: int = 60) -> pa.Table:
    """Return a table with a target `y`, and gaps in some of the features."""
    kinds = draw(st.lists(st.sampled_from([*TYPES]), min_size=1, max_size=6))
    gaps = draw(st.lists(st.sampled_from([0, 0, 1, 3]), min_size=len(kinds), max_size=len(kinds)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    columns = {}
    for index, (kind, count) in enumerate(zip(kinds, gaps, strict=True)):
        cells = column(kind, rows, random)
        for row in random.choice(rows, size=count, replace=False):
            cells[row] = None
        columns[f"{kind} {index}"] = pa.array(cells, TYPES[kind])
    columns["y"] = pa.array(random.normal(size=rows).round(6) + np.arange(rows))
    return pa.table(columns)


@pytest.fixture
def laboratory() -> Iterator[Laboratory]:
    with tempfile.TemporaryDirectory() as folder:
        yield Laboratory(Path(folder) / "laboratory")


def assert_same(found: dict[str, float], expected: dict[str, float], table: pa.Table) -> None:
    """Compare coefficients, in units of their own size and of the target's deviation per value of the column."""
    spread = float(np.std(table["y"].to_numpy()))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=SAME, abs=SAME * spread), name


@given(table=tables())
@settings(max_examples=6)
def test_a_table_trains_the_same_model_in_every_format(laboratory: Laboratory, table: pa.Table) -> None:
    expected = coefficients(laboratory.train(written(table, "arrow"), "arrow"))
    for form in TABLE_FORMS:
        found = coefficients(laboratory.train(written(table, form), form))
        assert_same(found, expected, table)


@given(table=tables(), piece=st.integers(1, 9))
@settings(max_examples=6)
def test_a_table_in_pieces_trains_the_same_model_as_whole(laboratory: Laboratory, table: pa.Table, piece: int) -> None:
    expected = coefficients(laboratory.train(written(table, "arrow"), "arrow"))
    for form, options in (("arrow", {"chunk": piece}), ("parquet", {"row_group_size": piece})):
        found = coefficients(laboratory.train(written(table, form, **options), form))
        assert_same(found, expected, table)


@given(table=tables(), size=st.integers(200, 2000))
@settings(max_examples=6)
def test_the_size_of_the_blocks_that_a_text_is_read_in_changes_nothing(
    laboratory: Laboratory, table: pa.Table, size: int
) -> None:
    for form in ("csv", "ndjson"):
        content = written(table, form)
        expected = coefficients(laboratory.train(content, form))
        with pytest.MonkeyPatch.context() as patch:
            # The first guess, which is made from fewer bytes, and the blocks.
            patch.setattr("app.data.columns.plan.SAMPLE_BYTES", size // 4)
            patch.setattr("app.data.formats.csv.SINGLE_BLOCK_BYTES", size)
            patch.setattr("app.data.formats.ndjson.BLOCK_BYTES", size)
            patch.setattr("app.data.columns.profile.JOINED_ROWS", 1 + size // 100)
            patch.setattr("app.data.columns.profile.BLOCK_ROWS", 1 + size // 50)
            assert_same(coefficients(laboratory.train(content, form)), expected, table)


@given(table=tables(), order=st.randoms(use_true_random=False))
@settings(max_examples=6)
def test_the_order_of_rows_and_columns_changes_no_prediction(
    laboratory: Laboratory, table: pa.Table, order: Any
) -> None:
    rows, names = list(range(len(table))), list(table.column_names)
    order.shuffle(rows)
    order.shuffle(names)
    one = laboratory.train(written(table, "csv"), "csv")
    other = laboratory.train(written(table.take(rows).select(names), "csv"), "csv")
    assert_alike(predictions(other, table), predictions(one, table), table)


@given(table=tables(rows=90), cuts=st.lists(st.integers(31, 89), max_size=3))
@settings(max_examples=6)
def test_updates_in_any_split_train_the_same_model_as_all_rows_with_the_schema_of_the_first_part(
    laboratory: Laboratory, table: pa.Table, cuts: list[int]
) -> None:
    ends = sorted({30, *cuts, len(table)})
    first = written(table.slice(0, 30), "csv")
    updated, replaced = laboratory.new_model(), laboratory.new_model()
    version = laboratory.train(first, "csv", updated)
    for start, end in pairwise(ends):
        version = laboratory.train(written(table.slice(start, end - start), "csv"), "csv", updated, mode="update")
    laboratory.train(first, "csv", replaced)
    expected = laboratory.train(
        written(table, "csv"), "csv", replaced, reading=ReadingOptions(missing="drop"), mode="replace"
    )

    assert version.card.rows == expected.card.rows
    assert_alike(predictions(version, table), predictions(expected, table), table)
    if expected.card.rank == len(expected.model.columns) + 1:
        found, right = coefficients(version), coefficients(expected)
        assert found.keys() == right.keys()
        spread = float(np.std(table["y"].to_numpy()))
        for name, value in right.items():
            assert found[name] == pytest.approx(value, rel=ALIKE, abs=ALIKE * spread), name


def assert_alike(found: NDArray[np.float64], expected: NDArray[np.float64], table: pa.Table) -> None:
    """Compare predictions, in residual standard deviations."""
    assert (np.isnan(found) == np.isnan(expected)).all()
    complete = ~np.isnan(expected)
    residuals = table["y"].to_numpy()[complete[:, 0]] - expected[complete]
    assert np.abs(found - expected)[complete].max() <= ALIKE * np.sqrt(np.mean(residuals**2))
