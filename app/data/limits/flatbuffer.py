"""The part of FlatBuffers that describes Arrow's messages, read without decoding the messages."""

import struct
from collections.abc import Iterator

_U16, _I32, _U32, _I64 = (struct.Struct(code) for code in ("<H", "<i", "<I", "<q"))


class Table:
    """A table in a buffer. Its fields are numbered as in the format's schema.

    Raises struct.error if a value lies beyond the buffer.
    """

    def __init__(self, view: memoryview, at: int) -> None:
        self._view = view
        self._at = at
        self._fields = at - _I32.unpack_from(view, at)[0]
        if self._fields < 0:
            raise struct.error("A table's fields lie before the buffer.")
        self._end = _U16.unpack_from(view, self._fields)[0]

    @classmethod
    def root(cls, view: memoryview) -> "Table":
        return cls(view, _U32.unpack_from(view, 0)[0])

    def byte(self, field: int) -> int:
        at = self._place(field)
        return struct.unpack_from("B", self._view, at)[0] if at else 0

    def long(self, field: int) -> int:
        at = self._place(field)
        return int(_I64.unpack_from(self._view, at)[0]) if at else 0

    def table(self, field: int) -> "Table | None":
        at = self._place(field)
        return Table(self._view, self._target(at)) if at else None

    def tables(self, field: int) -> "Iterator[Table]":
        """Yield the tables in a vector. Several elements may be the same table."""
        start, count = self.vector(field)
        for at in range(start, start + 4 * count, 4):
            yield Table(self._view, self._target(at))

    def vector(self, field: int) -> tuple[int, int]:
        """Return the offset of a vector's elements or a string's bytes, and their number."""
        at = self._place(field)
        if not at:
            return 0, 0
        start = self._target(at)
        return start + 4, _U32.unpack_from(self._view, start)[0]

    def _place(self, field: int) -> int:
        """Return the offset of the field's value, or 0 if it is left out."""
        slot = 4 + 2 * field
        if slot + 2 > self._end:
            return 0
        offset = _U16.unpack_from(self._view, self._fields + slot)[0]
        return self._at + offset if offset else 0

    def _target(self, at: int) -> int:
        return at + int(_U32.unpack_from(self._view, at)[0])
