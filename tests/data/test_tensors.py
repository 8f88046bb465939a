"""Tensors of the Open Inference Protocol, in JSON and in binary."""

import contextlib
import json
import struct
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.data.tensors import BYTES, DATATYPES, DTYPES, from_binary, from_json
from app.errors import InvalidInput

SHAPES = st.tuples(st.integers(1, 5)) | st.tuples(st.integers(1, 5), st.integers(1, 4))


def packed(texts: list[str]) -> bytes:
    """Return texts as the elements of a binary tensor of BYTES."""
    return b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, texts))


@st.composite
def numbers(draw: st.DrawFn) -> tuple[str, Any]:
    datatype = draw(st.sampled_from(sorted(DTYPES)))
    elements: Any = st.integers(0, 1) if datatype == "BOOL" else arrays.from_dtype(DTYPES[datatype])
    if datatype.startswith("FP"):
        elements = arrays.from_dtype(DTYPES[datatype], allow_nan=False, allow_infinity=False)
    values: Any = arrays.arrays(DTYPES[datatype], draw(SHAPES), elements=elements)
    return datatype, draw(values)


@given(numbers())
def test_numbers_are_the_same_from_json_flat_or_nested_and_from_binary(drawn: tuple[str, Any]) -> None:
    datatype, values = drawn
    sent = values.astype(bool) if datatype == "BOOL" else values
    binary = from_binary("t", datatype, values.shape, memoryview(values.tobytes()))
    assert binary.array.dtype == DTYPES[datatype]
    assert binary.array.tobytes() == values.tobytes()
    for data in (sent.ravel().tolist(), sent.tolist()):
        tensor = from_json("t", datatype, values.shape, json.loads(json.dumps(data)))
        assert tensor.array.tobytes() == values.tobytes()
        assert tensor.objects() == sent.ravel().tolist() == binary.objects()


@given(st.data(), SHAPES)
def test_texts_are_the_same_from_json_and_from_binary(data: st.DataObject, shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape))
    text = st.text(st.characters(codec="utf-8"), max_size=9)
    texts = data.draw(st.lists(text, min_size=count, max_size=count))
    binary = from_binary("t", BYTES, shape, memoryview(packed(texts)))
    assert binary.objects() == texts == from_json("t", BYTES, shape, texts).objects()


@given(
    st.sampled_from(DATATYPES),
    st.lists(st.integers(-1, 2**65) | st.integers(1, 4), max_size=4),
    st.binary(max_size=40),
)
def test_any_shape_and_any_bytes_make_a_tensor_of_that_shape_or_an_error(
    datatype: str, shape: list[int], content: bytes
) -> None:
    with contextlib.suppress(InvalidInput):
        assert len(from_binary("t", datatype, shape, memoryview(content)).values) == np.prod(shape)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
)


@given(st.sampled_from(DATATYPES), SHAPES, st.lists(JSON, max_size=6))
def test_any_list_makes_a_tensor_of_that_shape_or_an_error(
    datatype: str, shape: tuple[int, ...], data: list[Any]
) -> None:
    with contextlib.suppress(InvalidInput):
        assert len(from_json("t", datatype, shape, data).values) == np.prod(shape)


FAULTS = {
    "the first value that is not a number": ("FP64", [2, 2], [1, 2, "3", 4], "index 1, 0: Expected a number, found a"),
    "a number among texts": (BYTES, [2], ["a", 1], "index 1: Expected a string, found a number. Send numbers with"),
    "a decimal number": ("INT8", [1], [1.5], "index 0: Expected an integer, found a decimal number"),
    "a boolean": ("UINT8", [1, 1], [True], "index 0: Expected an integer, found a boolean"),
    "an integer out of range": ("INT8", [2], [127, 128], "index 1: The integer is not in the range of INT8, -128 to"),
    "a negative integer": ("UINT64", [1], [-1], "index 0: The integer is not in the range of UINT64"),
    "an integer that no float has": ("FP64", [2], [1, 10**400], "index 1: The number is not finite"),
    "a number that its datatype does not have": ("FP16", [2], [1, 65520], "index 1: The number is not finite"),
    "another datatype": ("BF16", [1], [1], "The datatype is not supported. Expected one of"),
    "no dimension": ("FP64", [], [1], "one or two dimensions, found 0"),
    "three dimensions": ("FP64", [1, 1, 1], [1], "one or two dimensions, found 3"),
    "no rows": ("FP64", [0, 3], [], "not positive"),
    "a negative dimension": ("FP64", [-1, -3], [1, 2, 3], "not positive"),
    "too few values": ("FP64", [2, 3], [1, 2], "The shape has 6 value(s), and `data` has 2"),
    "too many values": ("FP64", [1], [1, 2], "The shape has 1 value(s), and `data` has 2"),
    "other rows": ("FP64", [2, 2], [[1, 2], [3]], "that of the shape [2, 2]: found another list at index 1"),
    "too few rows": ("FP64", [2, 2], [[1, 2]], "found 1 lists"),
    "a row among numbers": ("FP64", [2], [1, [2]], "index 1: Expected a number, found an array"),
}  # fmt: skip


@pytest.mark.parametrize(("datatype", "shape", "data", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_json_is_named_with_its_index(
    datatype: str, shape: list[int], data: list[Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_json("t", datatype, shape, data)
    assert message in caught.value.message


INF = np.array([1, np.inf])
BINARY_FAULTS = {
    "too few bytes": ("FP64", [2], b"1234567", "The shape has 2 value(s) of 8 byte(s), and `binary_data_size` is 7"),
    "infinity": ("FP64", [2], INF.tobytes(), "index 1: The number is not finite"),
    "another byte for a boolean": ("BOOL", [2], b"\x01\x02", "index 1: Expected a byte of 0 or 1"),
    "a length that lies": (BYTES, [2], packed(["ab"]) + b"\xff\xff\xff\xffab", "index 1: The element is cut off"),
    "a length that is cut off": (BYTES, [2], packed(["abcdefg"]) + b"\x01\x00", "index 1: The element is cut off"),
    "more elements than bytes": (BYTES, [10**9], packed(["a"]), "1000000000 value(s), for which 5 byte(s) are too few"),
    "elements left over": (BYTES, [1], packed(["a", "b"]), "5 byte(s) follow the 1 value(s) of the shape"),
    "bytes that are not UTF-8": (BYTES, [2], packed(["a"]) + b"\x01\x00\x00\x00\xff", "index 1: The text is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("datatype", "shape", "content", "message"), BINARY_FAULTS.values(), ids=BINARY_FAULTS)
def test_a_fault_in_binary_is_named_with_its_index(
    datatype: str, shape: list[int], content: bytes, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_binary("t", datatype, shape, memoryview(content))
    assert message in caught.value.message


def test_a_gap_is_none() -> None:
    tensor = from_binary("t", "FP64", [3], memoryview(np.array([1, np.nan, 3.0]).tobytes()))
    assert tensor.gap() == 1
    assert tensor.objects() == [1.0, None, 3.0]
    assert from_json("t", "FP32", [2], [None, 1]).gap() == 0
    assert from_json("t", BYTES, [2], [None, "a"]).objects() == [None, "a"]


def test_many_short_texts_are_read_in_linear_time() -> None:
    content = memoryview(packed(["a"] * 200_000))
    started = time.process_time()
    assert len(from_binary("t", BYTES, [200_000], content).values) == 200_000
    assert time.process_time() - started < 5
