import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from app.data.part import Array, Columns, part_rows
from app.data.training_rows import Format, TrainingRows, write_matrix
from app.errors import InvalidInput
from app.regression.block import Block

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


BLOCK_ROWS = part_rows(Columns(["a", "b", "c"]))


def read_blocks(path: Path, form: Format, features: list[str], targets: list[str]) -> Iterator[Block]:
    return TrainingRows(path, form, features, targets).blocks()


def stored(folder: Path, x: Array, y: Array) -> Path:
    path = folder / "rows"
    with path.open("wb") as file:
        write_matrix(file, x, y)
    return path


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[Array, Array]:
    n, p, k = draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return draw(arrays(np.float64, (n, p), elements=FLOATS)), draw(arrays(np.float64, (n, k), elements=FLOATS))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some_rows())
def test_a_stored_matrix_is_read_back_to_the_last_bit(tmp_path: Path, rows: tuple[Array, Array]) -> None:
    x, y = rows
    path = stored(tmp_path, x, y)
    features, targets = [f"x{index}" for index in range(x.shape[1])], [f"y{index}" for index in range(y.shape[1])]
    (found,) = read_blocks(path, "matrix", features, targets)
    assert_array_equal(found.x, x, strict=True)
    assert_array_equal(found.y, y, strict=True)


@pytest.mark.parametrize("rows", [BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS + 5])
def test_a_matrix_comes_in_blocks_and_no_row_is_lost(tmp_path: Path, rows: int) -> None:
    x, y = np.arange(2.0 * rows).reshape(rows, 2), -np.arange(1.0 * rows)[:, np.newaxis]
    blocks = list(read_blocks(stored(tmp_path, x, y), "matrix", ["a", "b"], ["c"]))
    assert len(blocks) == -(-rows // BLOCK_ROWS)
    assert max(len(block.x) for block in blocks) <= BLOCK_ROWS
    assert_array_equal(np.concatenate([block.x for block in blocks]), x)
    assert_array_equal(np.concatenate([block.y for block in blocks]), y)


def test_a_matrix_of_no_rows_has_no_blocks(tmp_path: Path) -> None:
    path = stored(tmp_path, np.empty((0, 2)), np.empty((0, 1)))
    assert list(read_blocks(path, "matrix", ["a", "b"], ["c"])) == []


def test_a_stored_matrix_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    with (tmp_path / "rows").open("wb") as file:
        np.save(file, np.array([[print]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        list(read_blocks(tmp_path / "rows", "matrix", ["a"], []))
    with pytest.raises(ValueError, match="Object arrays"):
        write_matrix(io.BytesIO(), np.array([[print]], dtype=object), np.array([[print]], dtype=object))


def test_csv_columns_are_parted_into_features_and_targets_whatever_their_order(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("y,b,unused,a\n1,2,3,4\n5,6,7,8\n")
    (block,) = read_blocks(path, "csv", ["a", "b"], ["y"])
    assert_array_equal(block.x, [[4, 2], [8, 6]])
    assert_array_equal(block.y, [[1], [5]])


def test_a_fault_in_csv_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("a,y\n1,2\n3,\n")
    with pytest.raises(InvalidInput) as refused:
        list(read_blocks(path, "csv", ["a"], ["y"]))
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
    rows = TrainingRows(weighted(tmp_path, weights), "matrix", ["x"], ["y"], "w", weight_kind="frequency")

    with pytest.raises(InvalidInput, match=says) as raised:
        list(rows.blocks())

    assert (raised.value.details[0].row, raised.value.details[0].column) == (3, "w")


def test_a_precision_weight_can_be_any_positive_number(tmp_path: Path) -> None:
    (block,) = TrainingRows(weighted(tmp_path, [1e-9, 2.5]), "matrix", ["x"], ["y"], "w").blocks()

    assert block.weights is not None
    assert block.weights.tolist() == [1e-9, 2.5]


def test_a_missing_frequency_weight_is_dropped_as_any_missing_value(tmp_path: Path) -> None:
    path = weighted(tmp_path, [1.0, np.nan])

    (block,) = TrainingRows(path, "matrix", ["x"], ["y"], "w", weight_kind="frequency", drop_missing=True).blocks()

    assert len(block.x) == 1
