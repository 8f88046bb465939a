"""Rows of known columns straight from JSON: what msgspec can check, it checks while it decodes."""

from collections.abc import Sequence
from types import GenericAlias
from typing import Any

import msgspec
from msgspec.structs import astuple

from app.errors import MalformedBody


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
        self._objects = _decoder(row)
        self._arrays = _decoder(GenericAlias(tuple, (float,) * len(names)))

    def decode(self, body: bytes) -> tuple[Sequence[Sequence[float]], bool]:
        """The rows in a body, their values in the order of the columns, and whether they were objects.

        Raises MalformedBody for a body that is anything else, which may yet be understood.
        """
        objects = body.find(b"{", 1) >= 0
        try:
            rows = (self._objects if objects else self._arrays).decode(body).instances
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise MalformedBody("Not the plain form of rows.") from None
        return list(map(astuple, rows)) if objects else rows, objects


def _decoder(row: Any) -> Any:
    rows = msgspec.defstruct("Rows", [("instances", list[row])], forbid_unknown_fields=True)
    return msgspec.json.Decoder(rows)
