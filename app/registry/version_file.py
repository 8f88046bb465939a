"""One version as one immutable safetensors file, with a checksum over its card and tensors."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from app.data.columns.schema import TableSchema
from app.data.json_encoder import JsonEncoder
from app.errors import ModelFileInvalid
from app.registry.card_diagnostics import diagnostics_faults
from app.registry.migrations import SINCE_FORMAT_1, convert_format_1, decode_card, rename_tensors
from app.registry.model_card import SCHEMA, ModelCard
from app.registry.tensors import (
    FOLDS,
    Tensors,
    fold_faults,
    fold_tensors,
    folds_of,
    model_of,
    model_tensors,
    tensor_faults,
)
from app.regression.errors import InvalidTerms
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.terms import parse_terms

# Bytes of the largest file. 2,000 columns and 2,000 targets take 160 MB, another 128 MB for rows that were taken out,
# and the card. Stored folds take up to 64 MiB more.
MAX_FILE_BYTES = 384 << 20

# Flags that follow no symlink, and do not wait for the other end of a pipe.
_OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK

# Errors that safetensors, numpy and msgspec raise for foreign bytes.
_UNREADABLE = (
    SafetensorError,
    msgspec.MsgspecError,
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    MemoryError,
    RecursionError,
)

# Last sentence of each message about a file that cannot be read.
_REMEDY = "Restore it from a backup, train the model again, or promote another version."


class _Schema(msgspec.Struct):
    schema: int


class _Header(msgspec.Struct):
    """The part of a safetensors header that is not about tensors."""

    metadata: dict[str, str] = msgspec.field(name="__metadata__", default_factory=dict)


@dataclass(frozen=True)
class FileContent:
    """The bytes of a version's file that is not in a folder."""

    content: bytes
    place: str  # for messages
    read_other: Callable[[int], ModelCard | None] = lambda _number: None  # returns the card of a version of this model


@dataclass(frozen=True, eq=False)
class Version:
    """A published model: the card and the model that predicts."""

    card: ModelCard
    model: LinearModel
    size: int = 0  # bytes of the file it was read from, without those of the folds

    @cached_property
    def ignored(self) -> frozenset[str]:
        """Columns of the training rows that are not features. Rows to predict for may have them."""
        return self.card.ignored

    @cached_property
    def table(self) -> TableSchema:
        """The columns of the training rows."""
        return self.card.schema_of_rows

    @cached_property
    def encoder(self) -> JsonEncoder:
        """The encoder of features in JSON rows."""
        return JsonEncoder(self.table.features)


def encode(
    card: ModelCard,
    model: LinearModel,
    folds: Mapping[int, SufficientStatistics] | None = None,
    *,
    nonce: str | None = None,
) -> bytes:
    """Return the bytes of a file. It holds the model's statistics, for intervals, updates and warnings.

    The statistics of the folds of a cross-validation are stored if there are any. A `nonce` makes the file differ from
    others of the same model.
    """
    tensors = model_tensors(model) | (fold_tensors(folds) if folds else {})
    text = msgspec.json.encode(card).decode()
    metadata = {"card": text, "sha256": checksum(text, tensors)}
    return save(tensors, metadata=metadata if nonce is None else metadata | {"nonce": nonce})


def read(source: Path | FileContent) -> Version:
    """Read and check a version's file. Its folds are checked and not kept.

    Raises FileNotFoundError; ModelFileInvalid if the file is truncated, altered or not a model of this service.
    """
    with _checked(source) as (card, tensors, size):
        fold_size = sum(tensors.pop(name).nbytes for name in list(tensors) if name.startswith(FOLDS))
        if card.schema != 1:
            return Version(card, model_of(card, tensors), size - fold_size)
        converted = convert_format_1(card, tensors, lambda number: _other_card(source, number))
        return Version(converted[0], model_of(*converted), size - fold_size)


def read_folds(source: Path | FileContent) -> dict[int, SufficientStatistics]:
    """Read the statistics of a version's folds by their numbers; none if it has none. Raises as `read` does."""
    with _checked(source) as (card, tensors, _):
        return folds_of(card, tensors) if card.validation is not None and card.validation.stored else {}


def read_card(source: Path | FileContent) -> ModelCard:
    """Read the card, without checking the tensors. Raises as `read` does."""
    with _opened(source) as (stored, _):
        text = (stored.metadata() or {}).get("card", "")
        return decode_card(text, _known_schema(text, source))


def open_file(path: Path) -> BinaryIO:
    """Open a version's file for reading. The open file stays complete, even if its name is removed.

    Raises FileNotFoundError; ModelFileInvalid if it is not a regular file, is not readable for this user, or is larger
    than any model.
    """
    try:
        file = open(path, "rb", 0, opener=lambda name, flags: os.open(name, flags | _OPEN_FLAGS))  # noqa: SIM115 - the caller closes it, and Path's has no opener
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelFileInvalid(f"{_place(path)} cannot be opened: {error.strerror}.") from None
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE_BYTES:
        return file
    file.close()
    fault = "larger than any model can be" if stat.S_ISREG(status.st_mode) else "not a regular file"
    raise _invalid(path, f"is {fault}.")


def file_length(file: BinaryIO) -> int:
    """Return the bytes of a file that can be sought, and go back to its beginning."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    return length


def checksum(card: str, tensors: Tensors) -> str:
    """Return the SHA-256 of the card's text and of the names, types, shapes and values of the tensors."""
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name} {tensor.dtype} {tensor.shape}\0".encode())
        digest.update(tensor.reshape(-1).view(np.uint8).data)  # neither copied nor under the GIL
    return digest.hexdigest()


class _Stored(Protocol):
    """The part of `safetensors.safe_open` that is used here."""

    def metadata(self) -> dict[str, str] | None: ...

    def keys(self) -> list[str]: ...

    def get_tensor(self, name: str) -> np.ndarray: ...


class _InMemory:
    """Bytes in the safetensors format. They are as good as those of a file, which `safe_open` takes by its path."""

    def __init__(self, content: bytes) -> None:
        self._tensors = load(content)  # checks the header
        length = int.from_bytes(content[:8], "little")
        self._header = msgspec.json.decode(memoryview(content)[8 : 8 + length], type=_Header)

    def metadata(self) -> dict[str, str]:
        return self._header.metadata

    def keys(self) -> list[str]:
        return list(self._tensors)

    def get_tensor(self, name: str) -> np.ndarray:
        return self._tensors[name]


@contextlib.contextmanager
def _checked(source: Path | FileContent) -> Iterator[tuple[ModelCard, Tensors, int]]:
    """Yield the card, the tensors and the size of a file, after checking its checksum and shapes."""
    with _opened(source) as (stored, size):
        metadata = stored.metadata() or {}
        text = metadata.get("card", "")
        schema = _known_schema(text, source)
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
        if metadata.get("sha256") != checksum(text, tensors):
            raise _invalid(source, "is altered or not a model of this service: its checksum is wrong.")
        if schema == 1 and SINCE_FORMAT_1 not in tensors:
            raise _invalid(source, f"has an early form of format 1, without {SINCE_FORMAT_1}, which is not read.")
        card, tensors = decode_card(text, schema), rename_tensors(tensors, schema)
        if faults := "; ".join((*_card_faults(card), *tensor_faults(card, tensors), *fold_faults(card, tensors))):
            place = f"{_place(source)}, of format {schema},"
            raise ModelFileInvalid(f"{place} is not a model that this service could have made: {faults}. {_REMEDY}")
        yield card, tensors, size


@contextlib.contextmanager
def _opened(source: Path | FileContent) -> Iterator[tuple[_Stored, int]]:
    """Open a file with safetensors, and yield it with its size. Raises as `read` does."""
    if isinstance(source, FileContent):
        with _refusing(source):
            yield _InMemory(source.content), len(source.content)
        return
    # `safe_open` takes only paths. This one leads to the open file. If the file were mapped into memory, truncating it
    # would kill the process.
    with (
        open_file(source) as file,
        _refusing(source),
        safe_open(f"/dev/fd/{file.fileno()}", framework="np", backend="pread") as stored,
    ):
        yield stored, os.fstat(file.fileno()).st_size


@contextlib.contextmanager
def _refusing(source: Path | FileContent) -> Iterator[None]:
    """Turn whatever is raised for foreign bytes into ModelFileInvalid."""
    try:
        yield
    except _UNREADABLE:
        raise _invalid(source, "is truncated, altered or not a model of this service.") from None


def _known_schema(text: str, source: Path | FileContent) -> int:
    """Return the number of the format of a file with this card. Raises ModelFileInvalid if it cannot be read."""
    schema = msgspec.json.decode(text, type=_Schema).schema
    if 1 <= schema <= SCHEMA:
        return schema
    remedy = "A newer service wrote it: install that one, or promote another version." if schema > SCHEMA else _REMEDY
    raise _invalid(source, f"has format {schema}; this service reads formats 1 to {SCHEMA}.", remedy)


def _other_card(source: Path | FileContent, number: int) -> ModelCard | None:
    """Return the card of another version of the same model, or None if it cannot be read."""
    if isinstance(source, FileContent):
        return source.read_other(number)
    with contextlib.suppress(FileNotFoundError, ModelFileInvalid):
        return read_card(source.with_name(f"{number:06d}{source.suffix}"))
    return None


def _card_faults(card: ModelCard) -> Iterator[str]:
    names = (*card.features, *card.targets)
    if not card.features or not card.targets or len(set(names)) < len(names):
        yield "its features and targets are none, or not distinct"
    table = card.schema_of_rows
    if tuple(column.name for column in (*table.features, *table.targets)) != names:
        yield "its table has other features or targets"
    if len(set(table.encoded_features)) < len(table.encoded_features):
        yield "the columns of its design are not distinct"
    try:
        parse_terms(card.encoded_terms, card.encoded_features)
    except InvalidTerms:
        yield "its terms cannot be made from its features"
    without = card.imported is not None and card.imported.given == "coefficients"
    if (card.rows < 1) != without:
        yield f"it has {card.rows} rows"
    yield from diagnostics_faults(card.diagnostics, card.targets)


def _invalid(source: Path | FileContent, fault: str, remedy: str = _REMEDY) -> ModelFileInvalid:
    return ModelFileInvalid(f"{_place(source)} {fault} {remedy}")


def _place(source: Path | FileContent) -> str:
    """Return the path below the models folder, of which messages contain no more, or the place in the store."""
    return f"{source.parent.name}/{source.name}" if isinstance(source, Path) else source.place
