"""Rows of known columns straight from JSON: what msgspec can check, it checks while it decodes."""

from collections.abc import Sequence
from types import GenericAlias
from typing import Any, TypeAlias

import msgspec
import numpy as np
import simdjson
from msgspec.structs import astuple
from numpy.typing import NDArray

from app.errors import MalformedBody

Rows: TypeAlias = Sequence[Sequence[float]] | NDArray[np.float64]

LONG = 1000  # bytes of a body from which simdjson is faster

_NUMBERS_AND_SPACE = b"0123456789+-.eE \t\r\n"
_SKELETON = b'{"instances":[%b]}'.translate(None, _NUMBERS_AND_SPACE)


class RowsDecoder:
    """Decodes `{"instances": [...]}` and nothing else: all objects with exactly these names, or all arrays."""

    def __init__(self, names: Sequence[str]) -> None:
        fields = [f"column_{index}" for index in range(len(names))]
        row = msgspec.defstruct(
            "Row",
            [(field, float, msgspec.field(name=name)) for field, name in zip(fields, names, strict=True)],
            forbid_unknown_fields=True,
            gc=False,
        )
        self._width = len(names)
        self._objects = _decoder(row)
        self._arrays = _decoder(GenericAlias(tuple, (float,) * len(names)))
        self._parser = simdjson.Parser()

    def decode(self, body: bytes) -> tuple[Rows, bool]:
        """The rows in a body, their values in the order of the columns, and whether they were objects.

        Raises MalformedBody for a body that is anything else, which may yet be understood.
        """
        objects = body.find(b"{", 1) >= 0
        try:
            if not objects and len(body) >= LONG:
                return self._matrix(body), False
            rows = (self._objects if objects else self._arrays).decode(body).instances
        except (msgspec.DecodeError, ValueError, TypeError, KeyError, RecursionError):
            raise MalformedBody("Not the plain form of rows.") from None
        return list(map(astuple, rows)) if objects else rows, objects

    def _matrix(self, body: bytes) -> NDArray[np.float64]:
        """Many arrays, which takes half as long as one by one.

        simdjson checks that the body is JSON, and gives the numbers in it but not how they were nested: that shows in
        what is left of the body without them. Raises ValueError, TypeError or KeyError.
        """
        skeleton = body.translate(None, _NUMBERS_AND_SPACE)
        rows = skeleton.count(b"[") - 1
        row = b"[%b]" % (b"," * (self._width - 1))
        if rows < 1 or skeleton != _SKELETON % b",".join([row] * rows):
            raise ValueError("Rows of other lengths, or something besides.")
        # Nothing may still refer to what was parsed when the parser is used again.
        parsed: Any = self._parser.parse(body)
        return np.frombuffer(parsed["instances"].as_buffer(of_type="d")).reshape(rows, self._width)


def to_array(rows: Rows, width: int) -> NDArray[np.float64]:
    """Rows of as many floats each as a matrix, (len(rows), width).

    msgspec packs them five times as fast as numpy walks through them: in MessagePack a float is always a byte and its
    eight, the highest first, so that all rows are as long as each other and numpy has but to know where to look.
    """
    if isinstance(rows, np.ndarray):
        return rows
    packed = msgspec.msgpack.encode(rows)
    row_header = 1 if width < 16 else 3  # noqa: PLR2004 - MessagePack's short arrays
    length = row_header + 9 * width
    places = [row_header + 1 + 9 * index for index in range(width)]
    kind = np.dtype(
        {"names": list(map(str, places)), "formats": [">f8"] * width, "offsets": places, "itemsize": length}
    )
    table = np.frombuffer(packed, kind, offset=len(packed) - length * len(rows))
    matrix = np.empty((len(rows), width))
    for index, name in enumerate(table.dtype.names or ()):
        matrix[:, index] = table[name]
    return matrix


def _decoder(row: Any) -> Any:
    rows = msgspec.defstruct("Rows", [("instances", list[row])], forbid_unknown_fields=True)
    return msgspec.json.Decoder(rows)
