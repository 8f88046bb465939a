"""The part of Thrift's compact protocol that describes a Parquet file, read without decoding the file."""

from typing import Any, TypeAlias

I32, I64, LIST, STRUCT = 5, 6, 9, 12

MAX_STRUCTS = 200_000  # Structs inside a struct, at all depths. Each takes hundreds of bytes when decoded.
MAX_DEPTH = 12

_BOOLEANS = (1, 2)
_INTEGERS = (4, I32, I64)
_STRING, _SET = 8, 10
_FIXED = {3: 1, 7: 8}  # Bytes of a byte and of a double.
_VARINT_BYTES = 10

# Values of a struct by field number and type. A decoder skips a field that has another type than it expects.
Fields: TypeAlias = dict[tuple[int, int], Any]


class Reader:
    """Reads a struct with its integers, and its lists of integers and of structs. Other values are skipped.

    Raises IndexError if the bytes are not a struct, or if it ends beyond them.
    """

    def __init__(self, view: memoryview) -> None:
        self.at = 0
        self._view = view
        self._structs = 0

    def struct(self, depth: int = 0) -> Fields:
        self._structs += 1
        if depth > MAX_DEPTH or self._structs > MAX_STRUCTS:
            raise IndexError("There are too many structs.")
        fields: Fields = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number, head & 15] = self._value(head & 15, depth)
        return fields

    def _value(self, type_: int, depth: int) -> Any:
        if type_ in _INTEGERS:
            return self._integer()
        if type_ == STRUCT:
            return self.struct(depth + 1)
        if type_ in (LIST, _SET):
            return self._list(depth + 1)
        if type_ == _STRING:
            length = self._varint()
            self.at += length
        elif type_ in _FIXED:
            self.at += _FIXED[type_]
        elif type_ not in _BOOLEANS:
            raise IndexError("There is no such type.")
        return None

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = self._varint() if head >> 4 == 15 else head >> 4  # noqa: PLR2004 - the largest value says that more follow
        if depth > MAX_DEPTH or count > len(self._view):
            raise IndexError("The list is longer than the bytes.")
        type_ = head & 15
        if type_ in _BOOLEANS:
            self.at += count
            return []
        return [self._value(type_, depth) for _ in range(count)]

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004 - the eighth bit says that more follows
                return value
        raise IndexError("No number is as long as this.")

    def _byte(self) -> int:
        byte = self._view[self.at]
        self.at += 1
        return byte
