import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from app.data.batch import BATCH_BYTES, MAX_KEPT_BYTES, RowBatch, split_wide
from app.errors import InvalidInput


def test_a_batch_is_split_if_much_is_made_of_its_rows() -> None:
    values = np.arange(20_000.0).reshape(10_000, 2)
    batch = RowBatch(values, pa.record_batch({"kept": np.arange(10_000)}))
    assert [*split_wide(batch, 16)] == [batch]
    batches = [*split_wide(batch, 8000)]
    assert max(len(batch.values) for batch in batches) * 8000 <= BATCH_BYTES
    assert_array_equal(np.vstack([batch.values for batch in batches]), values)
    kept = pa.Table.from_batches([batch.kept for batch in batches if batch.kept is not None])
    assert kept["kept"].to_pylist() == list(range(10_000))
    assert all(batch.kept is None for batch in split_wide(RowBatch(values), 8000))
    assert len([*split_wide(RowBatch(values[:0]), 8000)]) == 1


def test_a_batch_is_split_if_much_is_kept() -> None:
    words = ["w" * MAX_KEPT_BYTES] + ["w"] * 5 + ["w" * (MAX_KEPT_BYTES // 2)] * 3
    kept = pa.record_batch({"kept": pa.array(words).view(pa.binary())})
    batches = [*split_wide(RowBatch(np.ones((8, 1)), kept.slice(1)), 8, 2)]
    assert [len(batch.values) for batch in batches] == [len(batch.kept) for batch in batches if batch.kept is not None]
    assert sum(len(batch.values) for batch in batches) == 8
    with pytest.raises(InvalidInput, match=f"Row 2: .* more than {MAX_KEPT_BYTES} bytes in this row"):
        list(split_wide(RowBatch(np.ones((9, 1)), kept), 8, 2))
