"""The size of an Arrow IPC stream's rows, from the metadata of its messages, without decoding a message.

Fields are numbered as in the format's `Message.fbs` and `Schema.fbs`.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from app.data.batch import MAX_COLUMNS, Source
from app.data.limits.decode_limits import check_held, check_metadata, check_rows, refuse_damage, view_of
from app.data.limits.flatbuffer import Table
from app.errors import InvalidInput

MAX_BATCHES = 1_000_000  # Batches of a stream.

FILE_SIGNATURE = b"ARROW1"

_CONTINUATION = b"\xff\xff\xff\xff"
_SCHEMA, _DICTIONARY, _RECORDS = 1, 2, 3  # types of a message's header
_BUFFER_BYTES = 16  # Bytes of a buffer's offset and length in a batch's list.
_DAMAGED = "The file is not readable as an Arrow stream: it is damaged. Write it again, and send all of it."


class _Message(NamedTuple):
    header_type: int
    header: Table
    metadata: memoryview
    body: memoryview
    whole: memoryview  # with its length before it


def stream_of(view: memoryview) -> memoryview:
    """Return the Arrow stream in a body. An Arrow file has one between a padded signature and an index.

    The stream ends with a mark, so the index is not read.
    """
    return view[8:] if view[: len(FILE_SIGNATURE)] == FILE_SIGNATURE else view


@refuse_damage(_DAMAGED)
def check_arrow_schema(source: Source) -> None:
    """Raise InvalidInput if the stream has too many columns, or if their description is too long once it is decoded.

    Columns may share parts of their description, so a short one can decode to any length.
    """
    message = next(_messages(stream_of(view_of(source))), None)
    if message is not None and message.header_type == _SCHEMA:
        _check_fields(message.header)


@refuse_damage(_DAMAGED)
def arrow_batches(source: Source) -> list[tuple[int, int]]:
    """Return the rows and the bytes of each batch of the stream, or none if it has dictionaries.

    A dictionary may be replaced or extended at any place of a stream.
    """
    found = []
    for message in _messages(stream_of(view_of(source))):
        if message.header_type == _DICTIONARY:
            return []
        if message.header_type == _RECORDS:
            found.append((max(message.header.long(0), 0), len(message.body)))
        if len(found) > MAX_BATCHES:
            return []
    return found


@refuse_damage(_DAMAGED)
def stream_of_batches(source: Source, start: int, stop: int) -> memoryview:
    """Return a stream of the batches from `start` to `stop`. The source has no dictionaries."""
    view = stream_of(view_of(source))
    parts, batch = [], 0
    for message in _messages(view):
        is_wanted = message.header_type == _SCHEMA or start <= batch < stop
        batch += message.header_type == _RECORDS
        if is_wanted:
            parts.append(message.whole)
        if batch == stop:
            break
    return memoryview(b"".join(parts))


@refuse_damage(_DAMAGED)
def check_arrow_size(source: Source, columns: int, limit: int | None) -> int:
    """Return the bytes of a batch and of all dictionaries that are decoded at a time.

    Raises BodyTooLarge if `columns` columns are too large for an upload of `limit` bytes, if that is given, and
    InvalidInput if a batch takes too much memory, or if there are too many batches.
    """
    rows = held = dictionaries = 0
    view = stream_of(view_of(source))
    for batches, message in enumerate(_messages(view)):
        if message.header_type == _RECORDS:
            rows += max(message.header.long(0), 0)
            held = max(held, _decompressed_bytes(message, message.header))
        elif message.header_type == _DICTIONARY and (batch := message.header.table(1)):
            dictionaries += _decompressed_bytes(message, batch)
        if limit is not None:
            check_rows(rows, columns, limit)
        check_held(held + dictionaries, len(view))
        if batches > MAX_BATCHES:
            raise InvalidInput(f"The stream has more than {MAX_BATCHES} batches. Write fewer and larger ones.")
    return held + dictionaries


def _messages(view: memoryview) -> Iterator[_Message]:
    """Yield the messages up to the end of the stream, after a check of their metadata's length."""
    at = 0
    while at < len(view):
        start = at
        at += 4 * (view[at : at + 4] == _CONTINUATION)  # Older streams do not have it.
        (length,) = struct.unpack_from("<i", view, at)
        at += 4
        if length == 0:
            return
        check_metadata(length)
        metadata = view[at : at + length]
        if length < 0 or len(metadata) < length:
            raise struct.error("The metadata ends early.")
        root = Table.root(metadata)
        at += length
        size, header = root.long(3), root.table(2)
        body = view[at : at + size]
        if header is None or size < 0 or len(body) < size:
            raise struct.error("The body ends early.")
        check_metadata(_strings(root, 4))
        at += size
        yield _Message(root.byte(1), header, metadata, body, view[start:at])


def _check_fields(schema: Table) -> None:
    described = _strings(schema, 2)
    count = 0
    open_ = [schema.tables(1)]
    while open_:
        for field in open_.pop():
            count += 1
            if count > MAX_COLUMNS:
                raise InvalidInput(f"The file has more than {MAX_COLUMNS} columns.")
            described += field.vector(0)[1] + _strings(field, 6)
            check_metadata(described)
            open_.append(field.tables(5))


def _strings(table: Table, field: int) -> int:
    """Return the length of all keys and values in a table's own metadata."""
    length = 0
    for pair in table.tables(field):
        length += 1 + pair.vector(0)[1] + pair.vector(1)[1]
        check_metadata(length)
    return length


def _decompressed_bytes(message: _Message, batch: Table) -> int:
    """Return the bytes of the decompressed buffers of a batch, or 0 if it is not compressed, and is read in place."""
    if batch.table(3) is None:
        return 0
    size = 0
    start, count = batch.vector(2)
    for place in range(start, start + _BUFFER_BYTES * count, _BUFFER_BYTES):
        offset, length = struct.unpack_from("<Qq", message.metadata, place)
        if length:
            # A compressed buffer begins with its decompressed length, or with -1 if it is not compressed after all.
            size += max(struct.unpack_from("<q", message.body, offset)[0], 0)
    return size
