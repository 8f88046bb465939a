"""Decodes and checks plain JSON rows of known columns in one pass, which is several times faster."""

from collections.abc import Sequence
from types import GenericAlias
from typing import Any, TypeAlias

import msgspec
import numpy as np
import simdjson
from msgspec.structs import astuple
from numpy.typing import NDArray

from app.errors import MalformedBody

Rows: TypeAlias = Sequence[Sequence[Any]] | NDArray[np.float64]

LONG = 1000  # Length of a body, in bytes, above which simdjson is faster.

_NUMBERS_AND_SPACE = b"0123456789+-.eE \t\r\n"
_SKELETON = b'{"instances":[%b]}'.translate(None, _NUMBERS_AND_SPACE)


class RowsDecoder:
    """Decodes `{"instances": [...]}` and nothing else: all objects with exactly these names, or all arrays."""

    def __init__(self, names: Sequence[str], types: Sequence[type] | None = None) -> None:
        """Prepare for columns with values of these types: float, bool or str, by default all float."""
        types = types or [float] * len(names)
        fields = [f"column_{index}" for index in range(len(names))]
        row = msgspec.defstruct(
            "Row",
            [(field, type_, msgspec.field(name=name)) for field, type_, name in zip(fields, types, names, strict=True)],
            forbid_unknown_fields=True,
            gc=False,
        )
        self._width = len(names)
        self._are_numbers = set(types) == {float}
        self._objects = _decoder(row)
        self._arrays = _decoder(GenericAlias(tuple, tuple(types)))
        self._parser = simdjson.Parser()

    def decode(self, body: bytes) -> tuple[Rows, bool]:
        """Return the rows in a body, their values in the order of the columns, and whether they were objects.

        Raises MalformedBody for any other body. The ordinary decoder may still understand it.
        """
        objects = body.find(b"{", 1) >= 0
        try:
            if not objects and len(body) >= LONG and self._are_numbers:
                return self._matrix(body), False
            rows = (self._objects if objects else self._arrays).decode(body).instances
        except (msgspec.DecodeError, ValueError, TypeError, KeyError, RecursionError):
            raise MalformedBody("The body has more than plain rows.") from None
        return list(map(astuple, rows)) if objects else rows, objects

    def _matrix(self, body: bytes) -> NDArray[np.float64]:
        """Return many arrays as a matrix, in half the time of decoding one by one.

        simdjson checks that the body is JSON and returns its numbers without their nesting. The nesting is checked in
        the body without its numbers. Raises ValueError, TypeError or KeyError.
        """
        skeleton = body.translate(None, _NUMBERS_AND_SPACE)
        rows = skeleton.count(b"[") - 1
        row = b"[%b]" % (b"," * (self._width - 1))
        if rows < 1 or skeleton != _SKELETON % b",".join([row] * rows):
            raise ValueError("The rows have other lengths, or the body has other members.")
        # The parser can be used again only if nothing refers to what it parsed before.
        parsed: Any = self._parser.parse(body)
        return np.frombuffer(parsed["instances"].as_buffer(of_type="d")).reshape(rows, self._width)


def to_array(rows: Rows, width: int) -> NDArray[np.float64]:
    """Return rows of `width` floats each as a matrix, (len(rows), width).

    Packing with msgspec is five times as fast as numpy's conversion. MessagePack writes each float as a type byte and
    8 bytes in big-endian order, so all rows have the same length, and numpy can read the packed bytes.
    """
    if isinstance(rows, np.ndarray):
        return rows
    if not rows:
        return np.empty((0, width))
    packed = msgspec.msgpack.encode(rows)
    row_header = 1 if width < 16 else 3  # noqa: PLR2004 - MessagePack's short arrays
    length = row_header + 9 * width
    start = len(packed) - length * len(rows) + row_header + 1
    return np.ndarray((len(rows), width), ">f8", packed, start, (length, 9)).astype(np.float64)


def _decoder(row: Any) -> Any:
    rows = msgspec.defstruct("Rows", [("instances", list[row])], forbid_unknown_fields=True)
    return msgspec.json.Decoder(rows)
