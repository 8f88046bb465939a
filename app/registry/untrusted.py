"""Read version files from elsewhere, which may be damaged or made to do harm.

Sizes are checked before anything is read, and everything is checked before anything is computed. Only the columns and
the statistics of a file are used, and its coefficients by an import: its metrics and warnings are not.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from app.errors import InvalidInput
from app.registry.foreign_card import (
    STATISTICS_READ,
    ForeignCard,
    InvalidStatistics,
    card_faults,
    checked_statistics,
)
from app.registry.model_card import SCHEMA
from app.registry.origin import reason_of
from app.registry.tensors import FOLD_TENSORS, STATISTICS, TENSORS, shape_of
from app.registry.version_file import MAX_FILE_BYTES
from app.regression.sufficient_statistics import SufficientStatistics

MAX_HEADER_BYTES = 16 << 20  # Bytes of the header of a file, which has the card.
MAX_OBJECTS = 100_000  # JSON objects in a card. Decoded, a column takes thirty times the bytes of a short text.
OLDEST_SCHEMA = 3  # Oldest format that is read. Earlier ones have other tensors.
CHUNK_BYTES = 1 << 20  # Bytes hashed at a time.
_LENGTH_BYTES = 8  # Bytes of the length of the header.
_NUMBER_BYTES = 8
_REMEDY = "Export it again."

# The tensors that are read: the statistics, and the coefficients for an import. The others only enter the checksum.
_COEFFICIENTS = ("coef", "intercept", "centre_prediction", "stored_centre")
_READ = (*_COEFFICIENTS, *STATISTICS_READ)


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    dtype: Literal["F64"]
    shape: Annotated[list[Annotated[int, Meta(ge=0, le=2**32)]], Meta(max_length=3)]
    data_offsets: tuple[Annotated[int, Meta(ge=0, le=2**53)], Annotated[int, Meta(ge=0, le=2**53)]]


class _Metadata(msgspec.Struct):
    card: str
    sha256: str


# A header: a place for each tensor that a version may have, and nothing else.
_NAMES = [*(tensor.name for tensor in TENSORS), *FOLD_TENSORS]
_Header = msgspec.defstruct(
    "_Header",
    [("metadata", _Metadata), *((name.replace(".", "_"), _Entry | None, None) for name in _NAMES)],
    rename={"metadata": "__metadata__", **{name.replace(".", "_"): name for name in _NAMES}},
    forbid_unknown_fields=True,
)


@dataclass(frozen=True, eq=False)
class ForeignVersion:
    """The checked content of a version file from elsewhere."""

    card: ForeignCard
    tensors: dict[str, NDArray[np.float64]]  # those that are read
    known_statistics: SufficientStatistics | None  # None if the version was imported there without statistics

    @property
    def statistics(self) -> SufficientStatistics:
        """The statistics of a version that has some, as every version for a merge has."""
        assert self.known_statistics is not None
        return self.known_statistics


def header_bytes(file: BinaryIO, offset: int) -> int:
    """Return the length of the header of a file, as the file states it."""
    file.seek(offset)
    return int.from_bytes(file.read(_LENGTH_BYTES), "little")


class ForeignFile:
    """A version file from elsewhere, inside a larger file."""

    def __init__(self, file: BinaryIO, offset: int, size: int, label: str) -> None:
        """Read and check the header. `label` names the file in messages. Raises InvalidInput."""
        self.label = label
        self._file = file
        if not _LENGTH_BYTES < size <= MAX_FILE_BYTES:
            raise self._invalid(f"has {size} bytes; a version has at most {MAX_FILE_BYTES}, and more than 8")
        length = header_bytes(file, offset)
        if length > min(MAX_HEADER_BYTES, size - _LENGTH_BYTES):
            raise self._invalid("is truncated, or not a version of this service: its header is too long")
        self._begin = offset + _LENGTH_BYTES + length  # of the tensors
        metadata, self._entries = self._parse(self._read(length), size - _LENGTH_BYTES - length)
        self._text, self.checksum = metadata.card, metadata.sha256
        self.card = self._decode_card()
        self._check_shapes()

    def read(self) -> ForeignVersion:
        """Read the tensors, and check everything. Raises InvalidInput."""
        tensors: dict[str, NDArray[np.float64]] = {}
        digest = hashlib.sha256(self._text.encode())
        for name in sorted(self._entries):
            entry = self._entries[name]
            digest.update(f"\0{name} float64 {tuple(entry.shape)}\0".encode())
            self._file.seek(self._begin + entry.data_offsets[0])
            size = entry.data_offsets[1] - entry.data_offsets[0]
            if name in _READ:
                content = self._read(size)
                digest.update(content)
                tensors[name] = np.frombuffer(content, dtype="<f8").astype(np.float64, copy=False).reshape(entry.shape)
            else:
                for start in range(0, size, CHUNK_BYTES):
                    digest.update(self._read(min(CHUNK_BYTES, size - start)))
        if digest.hexdigest() != self.checksum:
            raise self._invalid("is altered: its checksum is wrong")
        return ForeignVersion(self.card, tensors, self._statistics(tensors) if self.has_statistics else None)

    @property
    def has_statistics(self) -> bool:
        """True if the file has the statistics of rows, or those that follow from a covariance."""
        return self.card.imported is None or self.card.imported.given != "coefficients"

    def check_has_rows(self) -> None:
        """Raise InvalidInput if the statistics are not those of rows."""
        imported = self.card.imported
        if imported is not None and imported.given != "statistics":
            reason = reason_of(imported.given)
            raise InvalidInput(f"{self.label} has a version that was {reason}, so it cannot be merged.")

    @property
    def memory(self) -> int:
        """Bytes that `read` takes: the tensors that are read, and as much for checking them."""
        sizes = (self._entries[name].data_offsets for name in _READ if name in self._entries)
        return 2 * sum(end - start for start, end in sizes)

    def _read(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) < size:
            raise self._invalid("is truncated")
        return content

    def _parse(self, header: bytes, size: int) -> tuple[_Metadata, dict[str, _Entry]]:
        """Return the metadata and the tensors' places, which have to fill the `size` bytes after the header."""
        try:
            parts: Any = msgspec.json.decode(header, type=_Header)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise self._invalid("is not a version of this service: its header cannot be read") from None
        found = {name: getattr(parts, name.replace(".", "_")) for name in _NAMES}
        entries: dict[str, _Entry] = {name: entry for name, entry in found.items() if entry is not None}
        end = 0
        for entry in sorted(entries.values(), key=lambda entry: entry.data_offsets):
            if entry.data_offsets != (end, end + _NUMBER_BYTES * math.prod(entry.shape)):
                raise self._invalid("is not a version of this service: the places of its tensors are wrong")
            end = entry.data_offsets[1]
        if end != size:
            raise self._invalid("is truncated, or has bytes after its tensors")
        return parts.metadata, entries

    def _decode_card(self) -> ForeignCard:
        try:
            if self._text.count("{") > MAX_OBJECTS:
                raise self._invalid("has a card with too many parts")
            schema = msgspec.json.decode(self._text, type=_Schema).schema
            if not OLDEST_SCHEMA <= schema <= SCHEMA:
                raise self._invalid(f"has format {schema}; this service merges formats {OLDEST_SCHEMA} to {SCHEMA}")
            card = msgspec.json.decode(self._text, type=ForeignCard)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise self._invalid("has a card that cannot be read") from None
        if fault := next(card_faults(card), None):
            raise self._invalid(f"has a card that this service could not have written: {fault}")
        return card

    def _check_shapes(self) -> None:
        for name, dimensions, optional, _ in TENSORS:
            entry = self._entries.get(name)
            shape = shape_of(dimensions, p=len(self.card.columns), k=len(self.card.targets))
            needed = name.startswith(STATISTICS) and self.has_statistics
            if entry is None and needed and not optional:
                raise self._invalid(f"lacks {name}")
            if entry is not None and name.startswith(STATISTICS) and not self.has_statistics:
                raise self._invalid(f"has {name}, although it was imported without statistics")
            if entry is not None and tuple(entry.shape) != shape:
                raise self._invalid(f"has a tensor {name} of another shape than {shape}")

    def _statistics(self, tensors: dict[str, NDArray[np.float64]]) -> SufficientStatistics:
        try:
            return checked_statistics(self.card, tensors)
        except InvalidStatistics as error:
            raise self._invalid(f"has statistics that no rows have: {error}") from None

    def _invalid(self, fault: str) -> InvalidInput:
        return InvalidInput(f"{self.label} {fault}. {_REMEDY}")


class _Schema(msgspec.Struct):
    schema: int
