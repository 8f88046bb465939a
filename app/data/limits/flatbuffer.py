"""As much of FlatBuffers as it takes to look into the messages of Arrow without decoding them."""

import struct
from collections.abc import Iterator

_U16, _I32, _U32, _I64 = (struct.Struct(kind) for kind in ("<H", "<i", "<I", "<q"))


class Table:
    """A table of a buffer. Its fields are numbered as they stand in the format's schema.

    Reading beyond the buffer raises struct.error.
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
        return Table(self._view, self._followed(at)) if at else None

    def tables(self, field: int) -> "Iterator[Table]":
        """The tables in a vector; several places of it may hold the same one."""
        start, count = self.vector(field)
        for at in range(start, start + 4 * count, 4):
            yield Table(self._view, self._followed(at))

    def vector(self, field: int) -> tuple[int, int]:
        """Where the elements of a vector, or the bytes of a string, begin, and how many there are."""
        at = self._place(field)
        if not at:
            return 0, 0
        start = self._followed(at)
        return start + 4, _U32.unpack_from(self._view, start)[0]

    def _place(self, field: int) -> int:
        """Where the field's value is; 0 where it is left out."""
        slot = 4 + 2 * field
        if slot + 2 > self._end:
            return 0
        offset = _U16.unpack_from(self._view, self._fields + slot)[0]
        return self._at + offset if offset else 0

    def _followed(self, at: int) -> int:
        return at + int(_U32.unpack_from(self._view, at)[0])
