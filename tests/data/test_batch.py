import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from app.data.batch import BATCH_BYTES, MAX_KEPT_BYTES, RowBatch, split_wide
from app.errors import InvalidInput


def test_a_part_is_cut_where_much_is_made_of_its_rows() -> None:
    values = np.arange(20_000.0).reshape(10_000, 2)
    part = RowBatch(values, pa.record_batch({"kept": np.arange(10_000)}))
    assert [*split_wide(part, 16)] == [part]
    pieces = [*split_wide(part, 8000)]
    assert max(len(piece.values) for piece in pieces) * 8000 <= BATCH_BYTES
    assert_array_equal(np.vstack([piece.values for piece in pieces]), values)
    kept = pa.Table.from_batches([piece.kept for piece in pieces if piece.kept is not None])
    assert kept["kept"].to_pylist() == list(range(10_000))
    assert all(piece.kept is None for piece in split_wide(RowBatch(values), 8000))
    assert len([*split_wide(RowBatch(values[:0]), 8000)]) == 1


def test_a_part_is_cut_where_much_passes_through() -> None:
    words = ["w" * MAX_KEPT_BYTES] + ["w"] * 5 + ["w" * (MAX_KEPT_BYTES // 2)] * 3
    kept = pa.record_batch({"kept": pa.array(words).view(pa.binary())})
    pieces = [*split_wide(RowBatch(np.ones((8, 1)), kept.slice(1)), 8, 2)]
    assert [len(piece.values) for piece in pieces] == [len(piece.kept) for piece in pieces if piece.kept is not None]
    assert sum(len(piece.values) for piece in pieces) == 8
    with pytest.raises(InvalidInput, match=f"Row 2: .* more than {MAX_KEPT_BYTES} bytes in this row"):
        list(split_wide(RowBatch(np.ones((9, 1)), kept), 8, 2))
