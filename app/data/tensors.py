"""Tensors of the Open Inference Protocol: numbers, booleans and texts, in JSON or in binary, as arrays.

Memory is allocated only for values that are present, never for a size that a client claims.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.data.json_faults import kind_of
from app.data.names import shown
from app.errors import InvalidInput

BYTES = "BYTES"
# The numpy type of each datatype except BYTES. Binary values are little-endian.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.uint8),
    **{
        f"{sign}INT{bits}": np.dtype(f"<{sign.lower() or 'i'}{bits // 8}")
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
    },
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
DATATYPES = (*DTYPES, BYTES)
LENGTH_BYTES = 4  # Bytes of the length before each element of a binary tensor of BYTES.
MAX_RANK = 2

# Types of decoded JSON by the kind of a datatype, and their name in a message.
_JSON_TYPES: dict[str, tuple[frozenset[type], str]] = {
    "FP": (frozenset({int, float, type(None)}), "a number"),
    "INT": (frozenset({int}), "an integer"),
    "BOOL": (frozenset({bool}), "true or false"),
    BYTES: (frozenset({str, type(None)}), "a string"),
}
_REMEDIES = {
    (False, str): " Send it without quotes.",
    (True, int): " Send numbers with the datatype FP64 or INT64.",
    (True, float): " Send numbers with the datatype FP64.",
    (False, type(None)): " Only FP64, FP32, FP16 and BYTES can have missing values.",
}
_NOT_FINITE = "The number is not finite, or too large for its datatype. Expected a finite number."

# The values of a tensor in row-major order: texts or None, or an array of the datatype's type. A gap is NaN or None.
Values: TypeAlias = "list[str | None] | NDArray[Any]"


class Tensor(NamedTuple):
    """A named tensor with its values in row-major order. Booleans are 0 and 1."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: Values

    @property
    def is_float(self) -> bool:
        return self.datatype.startswith("FP")

    @property
    def array(self) -> NDArray[Any]:
        """The values of any datatype but BYTES."""
        assert isinstance(self.values, np.ndarray)
        return self.values

    def gap(self) -> int | None:
        """Return the position of the first NaN, or None."""
        return _first(np.isnan(self.array)) if self.is_float else None

    def objects(self) -> list[Any]:
        """Return the values as decoded JSON has them, with None for a gap."""
        if isinstance(self.values, list):
            return self.values
        values = self.array.astype(bool) if self.datatype == "BOOL" else self.array
        if self.gap() is not None:
            values = values.astype(object)
            values[np.isnan(self.array)] = None
        objects: list[Any] = values.tolist()
        return objects

    def fault(self, message: str, position: int | None = None) -> InvalidInput:
        """Return the error for the tensor, or for its value at this position in row-major order."""
        return fault_of_tensor(self.name, message, self.shape, position)


def fault_of_tensor(name: str, message: str, shape: Sequence[int] = (), position: int | None = None) -> InvalidInput:
    """Return the error for a tensor, or for its value at this position in row-major order."""
    if position is None:
        return InvalidInput(f"Tensor {shown(name)}: {message}")
    indices = divmod(position, shape[1]) if len(shape) == MAX_RANK and shape[1] != 1 else (position,)
    return InvalidInput(f"Tensor {shown(name)}, index {', '.join(map(str, indices))}: {message}")


def count_of(name: str, shape: Sequence[int], datatype: str) -> int:
    """Return the number of values of a tensor. Raises InvalidInput if its shape or its datatype is not supported."""
    if datatype not in DATATYPES:
        raise fault_of_tensor(name, f"The datatype is not supported. Expected one of {', '.join(DATATYPES)}.")
    if not 1 <= len(shape) <= MAX_RANK:
        raise fault_of_tensor(name, f"Expected a shape of one or two dimensions, found {len(shape)}.")
    if min(shape) < 1:
        raise fault_of_tensor(name, "A dimension of the shape is not positive. Send at least one row.")
    return prod(shape)


def from_json(name: str, datatype: str, shape: Sequence[int], data: Sequence[Any]) -> Tensor:
    """Return a tensor whose values are a flat list, or lists that are nested as its shape says.

    Raises InvalidInput with the position of the first wrong value.
    """
    count = count_of(name, shape, datatype)
    if data and isinstance(data[0], list):
        data = _flattened(name, shape, data)
    if len(data) != count:
        raise fault_of_tensor(name, f"The shape has {count} value(s), and `data` has {len(data)}.")
    allowed, expected = _JSON_TYPES[datatype.rstrip("0123456789").lstrip("U")]
    if not set(map(type, data)) <= allowed:
        position, value = next((at, value) for at, value in enumerate(data) if type(value) not in allowed)
        found = "a decimal number" if isinstance(value, float) else kind_of(value)
        remedy = _REMEDIES.get((datatype == BYTES, type(value)), "")
        raise fault_of_tensor(name, f"Expected {expected}, found {found}.{remedy}", shape, position)
    if datatype == BYTES:
        return Tensor(name, datatype, shape, list(data))
    return _finite(Tensor(name, datatype, shape, _to_array(name, datatype, shape, data)))


def from_binary(name: str, datatype: str, shape: Sequence[int], content: memoryview) -> Tensor:
    """Return a tensor whose values are the bytes of `content`. Raises InvalidInput if they are too few or too many."""
    count = count_of(name, shape, datatype)
    if datatype == BYTES:
        return Tensor(name, datatype, shape, list(_texts(name, shape, content, count)))
    dtype = DTYPES[datatype]
    if len(content) != count * dtype.itemsize:
        message = (
            f"The shape has {count} value(s) of {dtype.itemsize} byte(s), and `binary_data_size` is {len(content)}."
        )
        raise fault_of_tensor(name, message)
    values = np.frombuffer(content, dtype)
    if datatype == "BOOL" and (position := _first(values > 1)) is not None:
        raise fault_of_tensor(name, "Expected a byte of 0 or 1.", shape, position)
    return _finite(Tensor(name, datatype, shape, values))


def _flattened(name: str, shape: Sequence[int], rows: Sequence[Any]) -> list[Any]:
    """Return nested lists as a flat list. Raises InvalidInput unless they are nested as the shape says."""
    width = shape[1] if len(shape) == MAX_RANK else 0
    wrong = (index for index, row in enumerate(rows) if type(row) is not list or len(row) != width)
    if len(rows) != shape[0] or (index := next(wrong, None)) is not None:
        where = f"{len(rows)} lists" if len(rows) != shape[0] else f"another list at index {index}"
        raise fault_of_tensor(name, f"The nesting of `data` is not that of the shape {list(shape)}: found {where}.")
    return list(chain.from_iterable(rows))


def _to_array(name: str, datatype: str, shape: Sequence[int], data: Sequence[Any]) -> NDArray[Any]:
    """Return numbers as an array of their datatype. Raises InvalidInput for an integer out of its range."""
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        try:
            values = np.array(data, np.float64)
        except OverflowError:
            large = (at for at, value in enumerate(data) if value is not None and abs(value) > sys.float_info.max)
            position = next(large)
            raise fault_of_tensor(name, _NOT_FINITE, shape, position) from None
        with np.errstate(over="ignore"):  # Infinity is refused later.
            return values.astype(dtype, copy=False)
    try:
        return np.array(data, dtype)
    except OverflowError:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        position = next(position for position, value in enumerate(data) if not low <= value <= high)
        message = f"The integer is not in the range of {datatype}, {low} to {high}."
        raise fault_of_tensor(name, message, shape, position) from None


def _finite(tensor: Tensor) -> Tensor:
    """Return the tensor. Raises InvalidInput if a value is infinite."""
    if tensor.is_float and (position := _first(np.isinf(tensor.array))) is not None:
        raise tensor.fault(_NOT_FINITE, position)
    return tensor


def _first(marks: NDArray[np.bool_]) -> int | None:
    """Return the first position that is marked, or None."""
    position = int(marks.argmax())
    return position if marks[position] else None


def _texts(name: str, shape: Sequence[int], content: memoryview, count: int) -> Iterator[str]:
    """Yield the elements of a binary tensor of BYTES. Raises InvalidInput for a wrong length or invalid UTF-8."""
    if count > len(content) // LENGTH_BYTES:
        raise fault_of_tensor(name, f"The shape has {count} value(s), for which {len(content)} byte(s) are too few.")
    start = 0
    for position in range(count):
        end = start + LENGTH_BYTES
        length = int.from_bytes(content[start:end], "little")
        start, end = end, end + length
        if end > len(content):
            raise fault_of_tensor(
                name, f"The element is cut off: it has a length of {length} byte(s).", shape, position
            )
        try:
            yield str(content[start:end], "utf-8")
        except UnicodeDecodeError:
            raise fault_of_tensor(name, "The text is not UTF-8.", shape, position) from None
        start = end
    if start != len(content):
        message = f"{len(content) - start} byte(s) follow the {count} value(s) of the shape."
        raise fault_of_tensor(name, message)
