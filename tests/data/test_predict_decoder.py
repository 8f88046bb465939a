import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from app.data.predict_decoder import RowsDecoder, to_array
from app.errors import MalformedBody

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("width", [1, 2, 15, 16, 300])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_600])
def test_rows_of_any_shape_become_the_same_matrix(width: int, count: int) -> None:
    if count * width > 1_000_000:
        count = 200
    expected = np.random.default_rng(0).normal(size=(count, width))
    rows = [tuple(row) for row in expected.tolist()]
    assert_array_equal(to_array(rows, width), expected, strict=True)


@given(st.lists(st.tuples(FLOATS, FLOATS), max_size=20))
def test_every_float_is_unchanged_to_the_sign_of_zero(rows: list[tuple[float, float]]) -> None:
    found = to_array(rows, 2)
    assert_array_equal(found, np.array(rows).reshape(-1, 2), strict=True)
    assert_array_equal(np.signbit(found), np.signbit(np.array(rows).reshape(-1, 2)))


@given(st.lists(st.lists(st.one_of(FLOATS, st.integers(-(2**62), 2**62)), min_size=3, max_size=3), min_size=1))
def test_objects_and_arrays_decode_to_the_same_values_in_the_columns_order(rows: list[list[float]]) -> None:
    names = ["a", "b c", "ü"]
    decoder = RowsDecoder(names)
    objects = [dict(reversed(list(zip(names, row, strict=True)))) for row in rows]
    found, as_objects = decoder.decode(json.dumps({"instances": objects}).encode())
    again, not_objects = decoder.decode(json.dumps({"instances": rows}).encode())
    assert (as_objects, not_objects) == (True, False)
    assert [list(row) for row in found] == [list(row) for row in again] == [list(map(float, row)) for row in rows]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"instances": [[1, 2]], "interval": 0.9}',
        b'{"instances": [[1, 2, 3]]}',
        b'{"instances": [[1]]}',
        b'{"instances": [[1, true]]}',
        b'{"instances": [[1, "2"]]}',
        b'{"instances": [[1, null]]}',
        b'{"instances": [{"a": 1}]}',
        b'{"instances": [{"a": 1, "b": 2, "c": 3}]}',
        b'{"instances": [{"a": 1, "b": 2}, [1, 2]]}',
        b'{"instances": [[1, 1e999]]}',
        b'{"instances": [[1, NaN]]}',
    ],
)
def test_anything_except_plain_rows_is_left_to_the_ordinary_decoder(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        RowsDecoder(["a", "b"]).decode(body)


WORDS = ["[", "]", ",", "{", "}", '"', ":", "0", "-", "e", ".", "[]", "[1,2]", ",[3,4]", "null", "true", "\ufeff", "x"]
PIECES = st.one_of(st.sampled_from([word.encode() for word in WORDS]), st.binary(max_size=3))


@given(st.integers(120, 200), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), PIECES), max_size=3))
def test_a_long_body_decodes_as_json_does_or_is_left_to_the_ordinary_decoder(
    count: int, edits: list[tuple[float, int, bytes]]
) -> None:
    rows = np.random.default_rng(count).normal(size=(count, 2)).round(3).tolist()
    body = json.dumps({"instances": rows}).encode()
    for place, removed, added in edits:
        at = int(place * len(body))
        body = body[:at] + added + body[at + removed :]
    try:
        found, objects = RowsDecoder(["a", "b"]).decode(body)
    except MalformedBody:
        assert edits
        return
    expected = json.loads(body)
    assert not objects
    assert list(expected) == ["instances"]
    assert all(type(value) in (int, float) for row in expected["instances"] for value in row)
    assert_array_equal(to_array(found, 2), np.array(expected["instances"], dtype=float), strict=True)


def test_a_decoder_works_on_after_a_long_body_that_it_could_not_read() -> None:
    decoder = RowsDecoder(["a", "b"])
    rows = [[1, 2.5]] * 500
    for wrong in (b"[[1,2e]", b"[[1,2],[1]", b"[[1,1e999]", b"[[1,00]"):
        with pytest.raises(MalformedBody):
            decoder.decode(b'{"instances":%b%b]}' % (wrong, b",[1,2]" * 500))
    found, _ = decoder.decode(json.dumps({"instances": rows}).encode())
    assert_array_equal(to_array(found, 2), np.array(rows))
