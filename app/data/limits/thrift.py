"""As much of Thrift's compact protocol as it takes to look into a Parquet file without decoding it."""

from typing import Any, TypeAlias

I32, I64, LIST, STRUCT = 5, 6, 9, 12

MAX_STRUCTS = 200_000  # in one, of all depths: each takes hundreds of bytes where it is decoded
MAX_DEPTH = 12

_BOOLEANS = (1, 2)
_INTEGERS = (4, I32, I64)
_STRING, _SET = 8, 10
_FIXED = {3: 1, 7: 8}  # bytes of a byte and of a double
_VARINT_BYTES = 10

# Of a struct by number and kind: a decoder passes over what has not the kind that it expects.
Fields: TypeAlias = dict[tuple[int, int], Any]


class Reader:
    """Reads structs: their integers, and their lists of integers and of structs. Of other values nothing is kept.

    Reading what is none, or beyond the end, raises IndexError.
    """

    def __init__(self, view: memoryview, at: int = 0) -> None:
        self.at = at
        self._view = view
        self._structs = 0

    def struct(self, depth: int = 0) -> Fields:
        self._structs += 1
        if depth > MAX_DEPTH or self._structs > MAX_STRUCTS:
            raise IndexError("There are too many structs.")
        found: Fields = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            found[number, head & 15] = self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in (LIST, _SET):
            return self._list(depth + 1)
        if kind == _STRING:
            length = self._varint()
            self.at += length
        elif kind in _FIXED:
            self.at += _FIXED[kind]
        elif kind not in _BOOLEANS:
            raise IndexError("There is no such kind.")
        return None

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = self._varint() if head >> 4 == 15 else head >> 4  # noqa: PLR2004 - a count that is too large for its place
        if depth > MAX_DEPTH or count > len(self._view):
            raise IndexError("The list is longer than all there is.")
        kind = head & 15
        if kind in _BOOLEANS:
            self.at += count
            return []
        return [self._value(kind, depth) for _ in range(count)]

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
