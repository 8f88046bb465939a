"""Read version files from elsewhere, which may be damaged or made to do harm.

Sizes are checked before anything is read, and everything is checked before anything is computed. Only the columns and
the statistics of a file are used: its coefficients, metrics and warnings are not.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from app.data.columns.schema import PLAIN, Column, TableSchema
from app.data.columns.terms import encoded_terms, term_blocks
from app.data.columns.text_profile import MAX_LEVEL_LENGTH, MAX_LEVELS
from app.data.names import MAX_NAME_LENGTH, MAX_NAMES, check_names, shown
from app.errors import InvalidInput
from app.registry.foreign_statistics import statistics_faults
from app.registry.model_card import SCHEMA
from app.registry.tensors import FOLD_TENSORS, STATISTICS, TENSORS, shape_of
from app.registry.version_file import MAX_FILE_BYTES
from app.regression.errors import InvalidTerms
from app.regression.sufficient_statistics import SufficientStatistics, WeightKind
from app.regression.terms import parse_terms

MAX_HEADER_BYTES = 16 << 20  # Bytes of the header of a file, which has the card.
MAX_OBJECTS = 100_000  # JSON objects in a card. Decoded, a column takes thirty times the bytes of a short text.
MAX_TEXTS = 100  # Texts that mark a gap, or signs, of one column.
MAX_COEFFICIENTS = 200_000  # Most coefficients of a model.
OLDEST_SCHEMA = 3  # Oldest format that is read. Earlier ones have other tensors.
CHUNK_BYTES = 1 << 20  # Bytes hashed at a time.
_LENGTH_BYTES = 8  # Bytes of the length of the header.
_NUMBER_BYTES = 8
_REMEDY = "Export it again."

# The tensors that are read. The others only enter the checksum.
_READ = tuple(tensor.name for tensor in TENSORS if tensor.name.startswith(STATISTICS))


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


class _Solver(msgspec.Struct, frozen=True):
    l2: Annotated[float, Meta(ge=0)] = 0.0
    fit_intercept: bool = True


class ForeignCard(msgspec.Struct, frozen=True, dict=True):
    """The fields of a card that are used. All others are ignored."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    rows: Annotated[int, Meta(ge=1, le=2**53)]
    schema: int
    table: TableSchema | None = None
    terms: tuple[str, ...] = ()
    weight_kind: WeightKind = "precision"
    discounted: bool = False
    untracked: bool = False
    solver: _Solver = _Solver()

    @cached_property
    def schema_of_rows(self) -> TableSchema:
        """The columns, as they are described in any file: without the dialect and the columns that were left out."""
        table = self.table or TableSchema.of_numbers(self.features, self.targets)
        return replace(table, dialect=PLAIN, left_out=(), rows=0, incomplete_rows=0)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the model: terms or features, encoded."""
        return encoded_terms(self.terms, self.schema_of_rows) or self.schema_of_rows.encoded_features

    @property
    def blocks(self) -> tuple[slice, ...]:
        """The places of the indicator columns in `columns`."""
        return term_blocks(self.terms, self.schema_of_rows)


@dataclass(frozen=True, eq=False)
class ForeignVersion:
    """The checked content of a version file from elsewhere."""

    card: ForeignCard
    statistics: SufficientStatistics


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
        return ForeignVersion(self.card, self._statistics(tensors))

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
        if fault := next(_card_faults(card), None):
            raise self._invalid(f"has a card that this service could not have written: {fault}")
        return card

    def _check_shapes(self) -> None:
        for name, dimensions, optional, _ in TENSORS:
            entry = self._entries.get(name)
            shape = shape_of(dimensions, p=len(self.card.columns), k=len(self.card.targets))
            if entry is None and not (optional or not name.startswith(STATISTICS)):
                raise self._invalid(f"lacks {name}")
            if entry is not None and tuple(entry.shape) != shape:
                raise self._invalid(f"has a tensor {name} of another shape than {shape}")

    def _statistics(self, tensors: dict[str, NDArray[np.float64]]) -> SufficientStatistics:
        values: dict[str, Any] = {name.removeprefix(STATISTICS): tensors.get(name) for name in _READ}
        for name in ("effective_rows", "log_weights", "operations"):
            values[name] = values[name].item()
        counts = values.pop("indicator_rows")
        card = self.card
        statistics = SufficientStatistics(
            features=len(card.columns),
            rows=card.rows,
            weight_kind=card.weight_kind,
            discounted=card.discounted,
            untracked=card.untracked,
            **values,
        )
        with np.errstate(all="ignore"):  # the checks expect any value
            fault = next(statistics_faults(statistics, counts, card.blocks), None)
        if fault:
            raise self._invalid(f"has statistics that no rows have: {fault}")
        return replace(
            statistics,
            operations=int(statistics.operations),
            indicator_rows=None if counts is None else counts.astype(np.int64),
        )

    def _invalid(self, fault: str) -> InvalidInput:
        return InvalidInput(f"{self.label} {fault}. {_REMEDY}")


class _Schema(msgspec.Struct):
    schema: int


def _card_faults(card: ForeignCard) -> Iterator[str]:
    """Yield what is wrong with a card. Later checks rely on the earlier ones."""
    if max(len(card.features), len(card.targets), len(card.terms)) > MAX_NAMES:
        yield f"it has more than {MAX_NAMES} features, targets or terms"
    try:
        check_names(card.features, card.targets)
    except InvalidInput as error:
        yield error.details[0].message.rstrip(".")
    table = card.schema_of_rows
    if tuple(column.name for column in (*table.features, *table.targets)) != (*card.features, *card.targets):
        yield "its table has other features or targets"
    for column in table.numbers:
        yield from (f"the column {shown(column.name)} {fault}" for fault in _column_faults(column))
    for column in table.targets:
        if column.kind not in ("number", "boolean") or column.missing not in ("drop", "refuse"):
            yield f"the target {shown(column.name)} is not a number"
    yield from _design_faults(card, table)
    if not math.isfinite(card.solver.l2):
        yield "its penalty is not finite"


def _design_faults(card: ForeignCard, table: TableSchema) -> Iterator[str]:
    encoded = sum(len(column.levels) + 1 for column in table.features)
    if encoded > 2 * MAX_NAMES + len(card.features):
        yield f"it has more than {MAX_NAMES} columns"
    if len(set(table.encoded_features)) < len(table.encoded_features):
        yield "the columns of its design are not distinct"
    try:
        parse_terms(encoded_terms(card.terms, table), table.encoded_features)
    except InvalidTerms:
        yield "its terms cannot be made from its features"
    if not 0 < len(card.columns) <= MAX_NAMES or len(card.columns) * len(card.targets) > MAX_COEFFICIENTS:
        yield "it has no columns or too many"


def _column_faults(column: Column) -> Iterator[str]:
    if not 0 < len(column.name) <= MAX_NAME_LENGTH:
        yield "has a name that is too long"
    if bool(column.levels) != (column.kind == "category"):
        yield "has levels and is no category, or is a category without levels"
    if len(column.levels) > MAX_LEVELS or len(set(column.levels)) < len(column.levels):
        yield "has too many levels, or one twice"
    if any(len(level) > MAX_LEVEL_LENGTH for level in column.levels):
        yield "has a level that is too long"
    texts = (*column.na, *column.strip)
    if len(texts) > MAX_TEXTS or any(len(text) > MAX_LEVEL_LENGTH for text in texts):
        yield "has too many texts that mark gaps"
    if isinstance(column.fill, str) and len(column.fill) > MAX_LEVEL_LENGTH:
        yield "has a constant that is too long"
    if isinstance(column.fill, str) and column.kind != "category":
        yield "has a constant of another kind"
    if isinstance(column.fill, float | int) and not math.isfinite(column.fill):
        yield "has a constant that is not finite"
    if column.kind != "category" and column.missing in ("fill", "indicator") and column.fill is None:
        yield "has no constant for its gaps"
