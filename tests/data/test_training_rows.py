import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from number_rows import number_rows
from numpy.testing import assert_array_equal

from app.data.batch import Array, Columns, batch_rows
from app.data.training_rows import TrainingRows, write_matrix
from app.errors import InvalidInput
from app.regression.training_batch import TrainingBatch

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


BATCH_ROWS = batch_rows(Columns(["a", "b", "c"]))


def read_batches(path: Path, form: str, features: list[str], targets: list[str]) -> Iterator[TrainingBatch]:
    return number_rows(path, form, features, targets).batches()


def stored(folder: Path, x: Array, y: Array) -> Path:
    path = folder / "rows"
    with path.open("wb") as file:
        write_matrix(file, x, y)
    return path


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[Array, Array]:
    n, p, k = draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return draw(arrays(np.float64, (n, p), elements=FLOATS)), draw(arrays(np.float64, (n, k), elements=FLOATS))


@settings(max_examples=40)
@given(some_rows())
def test_a_stored_matrix_is_read_back_to_the_last_bit(tmp_path: Path, rows: tuple[Array, Array]) -> None:
    x, y = rows
    path = stored(tmp_path, x, y)
    features, targets = [f"x{index}" for index in range(x.shape[1])], [f"y{index}" for index in range(y.shape[1])]
    (found,) = read_batches(path, "matrix", features, targets)
    assert_array_equal(found.x, x, strict=True)
    assert_array_equal(found.y, y, strict=True)


@pytest.mark.parametrize("rows", [BATCH_ROWS - 1, BATCH_ROWS, BATCH_ROWS + 1, 2 * BATCH_ROWS + 5])
def test_a_matrix_comes_in_batches_and_no_row_is_lost(tmp_path: Path, rows: int) -> None:
    x, y = np.arange(2.0 * rows).reshape(rows, 2), -np.arange(1.0 * rows)[:, np.newaxis]
    batches = list(read_batches(stored(tmp_path, x, y), "matrix", ["a", "b"], ["c"]))
    assert len(batches) == -(-rows // BATCH_ROWS)
    assert max(len(batch.x) for batch in batches) <= BATCH_ROWS
    assert_array_equal(np.concatenate([batch.x for batch in batches]), x)
    assert_array_equal(np.concatenate([batch.y for batch in batches]), y)


def test_a_matrix_of_no_rows_has_no_batches(tmp_path: Path) -> None:
    path = stored(tmp_path, np.empty((0, 2)), np.empty((0, 1)))
    assert list(read_batches(path, "matrix", ["a", "b"], ["c"])) == []


def test_a_stored_matrix_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    with (tmp_path / "rows").open("wb") as file:
        np.save(file, np.array([[print]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        list(read_batches(tmp_path / "rows", "matrix", ["a"], []))
    with pytest.raises(ValueError, match="Object arrays"):
        write_matrix(io.BytesIO(), np.array([[print]], dtype=object), np.array([[print]], dtype=object))


def test_csv_columns_are_split_into_features_and_targets_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("y,b,unused,a\n1,2,3,4\n5,6,7,8\n")
    (batch,) = read_batches(path, "csv", ["a", "b"], ["y"])
    assert_array_equal(batch.x, [[4, 2], [8, 6]])
    assert_array_equal(batch.y, [[1], [5]])


def test_a_fault_in_csv_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("a,y\n1,2\n3,\n")
    with pytest.raises(InvalidInput) as refused:
        list(read_batches(path, "csv", ["a"], ["y"]))
    assert [(detail.row, detail.column) for detail in refused.value.details] == [(3, "y")]


def weighted(folder: Path, weights: list[float]) -> Path:
    path = folder / "rows"
    values = np.arange(1.0 * len(weights))[:, np.newaxis]
    with path.open("wb") as file:
        write_matrix(file, values, values, np.array(weights)[:, np.newaxis])
    return path


@pytest.mark.parametrize(("weights", "says"), [([1, 0, 2.5], "a whole number"), ([1, 0, -2.0], "negative")])
def test_a_frequency_weight_that_counts_no_rows_is_refused_with_its_place(
    tmp_path: Path, weights: list[float], says: str
) -> None:
    rows = number_rows(weighted(tmp_path, weights), "matrix", ["x"], ["y"], "w", weight_kind="frequency")

    with pytest.raises(InvalidInput, match=says) as raised:
        list(rows.batches())

    assert (raised.value.details[0].row, raised.value.details[0].column) == (3, "w")


def test_a_precision_weight_can_be_any_positive_number(tmp_path: Path) -> None:
    (batch,) = number_rows(weighted(tmp_path, [1e-9, 2.5]), "matrix", ["x"], ["y"], "w").batches()

    assert batch.sample_weight is not None
    assert batch.sample_weight.tolist() == [1e-9, 2.5]


def test_a_missing_frequency_weight_is_dropped_as_any_missing_value(tmp_path: Path) -> None:
    path = weighted(tmp_path, [1.0, np.nan])

    (batch,) = number_rows(path, "matrix", ["x"], ["y"], "w", weight_kind="frequency", drop_missing=True).batches()

    assert len(batch.x) == 1


def kept(rows: TrainingRows) -> list[list[float]]:
    return [row for batch in rows.batches() for row in np.hstack([batch.x, batch.y]).tolist()]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(*2 * [st.one_of(st.none(), st.integers(-9, 9))], st.sampled_from([0, -0.0, 1, 2.5])), min_size=1
    ),
    st.sampled_from(["csv", "ndjson", "matrix"]),
)
def test_a_row_of_weight_zero_counts_as_no_row_and_a_dropped_one_as_dropped(
    tmp_path: Path, given_rows: list[tuple[int | None, int | None, float]], form: str
) -> None:
    path = tmp_path / "rows"
    if form == "matrix":
        path = stored(tmp_path, np.array(given_rows, float), np.empty((len(given_rows), 0)))
    elif form == "csv":
        cells = [",".join("" if value is None else str(value) for value in row) for row in given_rows]
        path.write_text("\n".join(["x,y,w", *cells, ""]))
    else:
        path.write_text("".join(f"{json.dumps(dict(zip('xyw', row, strict=True)))}\n" for row in given_rows))
    used = [[x, y] for x, y, w in given_rows if w and x is not None and y is not None]
    zero = sum(w == 0 for *_, w in given_rows)
    rows = number_rows(path, form, ["x"], ["y"], "w", drop_missing=True)
    if used:
        for _ in range(2):
            assert kept(rows) == used
            assert (rows.zero_weight_rows, rows.dropped) == (zero, len(given_rows) - zero - len(used))
    else:
        with pytest.raises(InvalidInput):
            kept(rows)


def test_a_missing_value_in_a_row_of_weight_zero_is_refused_as_in_any_other(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("x,y,w\n1,2,1\n,2,0\n")
    with pytest.raises(InvalidInput) as refused:
        kept(number_rows(path, "csv", ["x"], ["y"], "w"))
    assert [(detail.row, detail.column) for detail in refused.value.details] == [(3, "x")]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("1,2,0\n3,4,0\n", "Every row has weight 0."),
        ("1,,1\n3,,1\n", "In every row a value is missing."),
        (
            "1,2,0\n3,,1\n,4,1\n",
            "There are no rows to train on: 1 row(s) have weight 0, and in the other 2 a value is missing.",
        ),
        ("1,,0\n", "Every row has weight 0."),
    ],
)
def test_rows_that_are_all_left_out_are_refused_with_the_reason(tmp_path: Path, rows: str, says: str) -> None:
    path = tmp_path / "rows"
    path.write_text(f"x,y,w\n{rows}")
    with pytest.raises(InvalidInput) as refused:
        kept(number_rows(path, "csv", ["x"], ["y"], "w", drop_missing=True))
    assert refused.value.message.startswith(says.removesuffix("."))


def test_a_batch_that_is_left_empty_is_not_yielded(tmp_path: Path) -> None:
    weights = np.ones((3 * BATCH_ROWS, 1))
    weights[BATCH_ROWS : 2 * BATCH_ROWS] = 0
    x = np.arange(3.0 * BATCH_ROWS)[:, np.newaxis]
    rows = number_rows(stored(tmp_path, np.hstack([x, x]), weights), "matrix", ["a"], ["b"], "w")
    assert [len(batch.x) for batch in rows.batches()] == [BATCH_ROWS, BATCH_ROWS]
    assert rows.zero_weight_rows == BATCH_ROWS


def test_a_negative_weight_is_named_with_its_row_after_rows_that_were_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("x,y,w\n1,2,0\n1,2,1\n1,2,-1\n")
    with pytest.raises(InvalidInput) as refused:
        kept(number_rows(path, "csv", ["x"], ["y"], "w"))
    assert [(detail.row, detail.column) for detail in refused.value.details] == [(4, "w")]
