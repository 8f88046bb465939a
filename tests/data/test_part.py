import numpy as np
import pyarrow as pa
from numpy.testing import assert_array_equal

from app.data.part import PART_BYTES, Part, narrowed


def test_a_part_is_cut_where_much_is_made_of_its_rows() -> None:
    values = np.arange(20_000.0).reshape(10_000, 2)
    part = Part(values, pa.record_batch({"kept": np.arange(10_000)}))
    assert [*narrowed(part, 2)] == [part]
    pieces = [*narrowed(part, 1000)]
    assert max(len(piece.values) for piece in pieces) * 1000 * 8 <= PART_BYTES
    assert_array_equal(np.vstack([piece.values for piece in pieces]), values)
    kept = pa.Table.from_batches([piece.kept for piece in pieces if piece.kept is not None])
    assert kept["kept"].to_pylist() == list(range(10_000))
    assert all(piece.kept is None for piece in narrowed(Part(values), 1000))
    assert len([*narrowed(Part(values[:0]), 1000)]) == 1
