"""A store in memory, for tests that need thousands of them."""

import contextlib
import hashlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO

from app.storage.store import Blob, BlobChanged, BlobInfo, BlobNotFound

EPOCH = datetime.fromtimestamp(0, UTC)


class MemoryStore:
    url = "memory://"

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def get(self, key: str) -> Blob:
        if key not in self.blobs:
            raise BlobNotFound
        return Blob(self.blobs[key], _etag(self.blobs[key]))

    def get_if_changed(self, key: str, etag: str) -> Blob | None:
        blob = self.get(key)
        return None if blob.etag == etag else blob

    def info(self, key: str) -> BlobInfo:
        blob = self.get(key)
        return BlobInfo(key, len(blob.content), EPOCH, blob.etag)

    def put(self, key: str, content: bytes) -> str:
        self.blobs[key] = content
        return _etag(content)

    def put_if_absent(self, key: str, content: bytes) -> str:
        if self.blobs.get(key, content) != content:
            raise BlobChanged
        return self.put(key, content)

    def put_if_match(self, key: str, content: bytes, etag: str) -> str:
        if key not in self.blobs or (_etag(self.blobs[key]) != etag and self.blobs[key] != content):
            raise BlobChanged
        return self.put(key, content)

    def list_blobs(self, prefix: str, *, after: str = "") -> Iterator[BlobInfo]:
        # All at once, as in a bucket: others may delete blobs while the caller takes them.
        yield from [self.info(key) for key in sorted(self.blobs) if key.startswith(prefix) and key > after]

    def list_names(self, prefix: str) -> list[str]:
        return sorted({key[len(prefix) :].partition("/")[0] for key in self.blobs if key.startswith(prefix)})

    def delete(self, key: str) -> None:
        self.blobs.pop(key, None)

    def open_read(self, key: str, etag: str | None = None) -> BinaryIO:
        if etag not in (None, self.get(key).etag):
            raise BlobChanged
        return io.BytesIO(self.get(key).content)

    @contextlib.contextmanager
    def open_write(self, key: str) -> Iterator[BinaryIO]:
        file = io.BytesIO()
        yield file
        self.put(key, file.getvalue())


def _etag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
