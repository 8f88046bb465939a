"""Blobs under keys, in a folder or in a bucket.

Everything that replicas and trainers on different machines share is in one store: versions, the pointers to current
versions, uploads, checkpoints and, if the operator chooses so, the API keys.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol


class BlobNotFound(Exception):
    """There is no blob with this key."""


class BlobChanged(Exception):
    """A conditional write found another blob, or one where none was expected."""


@dataclass(frozen=True)
class Blob:
    """The content of a key, and the tag that changes with it."""

    content: bytes
    etag: str


@dataclass(frozen=True)
class BlobInfo:
    key: str
    size: int  # bytes
    modified: datetime  # by the store's clock
    etag: str


class Store(Protocol):
    """Blobs under keys such as `models/crop-yield/current`. Any number of processes may use a store at once.

    A blob is complete or absent, also after a crash, and durable once a write has returned. Every method may raise
    StoreUnavailable and StoreMisconfigured.
    """

    url: str  # without credentials, for logs and messages

    def get(self, key: str) -> Blob:
        """Return a blob. Raises BlobNotFound."""

    def get_if_changed(self, key: str, etag: str) -> Blob | None:
        """Return a blob, or None if it still has this tag. Raises BlobNotFound."""

    def info(self, key: str) -> BlobInfo:
        """Return the size and the tag of a blob. Raises BlobNotFound."""

    def put(self, key: str, content: bytes) -> str:
        """Write a blob, whether or not there is one. Return its tag."""

    def put_if_absent(self, key: str, content: bytes) -> str:
        """Write a blob if there is none, and return its tag. Raises BlobChanged if there is one with other content.

        A write whose response was lost is repeated, so a blob that already has this content counts as written.
        """

    def put_if_match(self, key: str, content: bytes, etag: str) -> str:
        """Replace the blob that has this tag, and return the new tag. Raises BlobChanged if it has another, or is gone.

        A write whose response was lost is repeated, so a blob that already has this content counts as written.
        """

    def list_blobs(self, prefix: str, *, after: str = "") -> Iterator[BlobInfo]:
        """Yield the blobs whose keys begin with `prefix` and come after the key `after`, sorted by key."""

    def list_names(self, prefix: str) -> list[str]:
        """Return the distinct names that follow `prefix`, which ends with a slash, up to the next slash. Sorted."""

    def delete(self, key: str) -> None:
        """Remove a blob, if there is one."""

    def open_read(self, key: str, etag: str | None = None) -> BinaryIO:
        """Open a blob for reading in ranges. The file is seekable, and is never read as a whole. Raises BlobNotFound.

        With a tag, opening or reading raises BlobChanged if the blob has another one by then.
        """

    def open_write(self, key: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """Yield a file to write a blob of any length. The blob appears at the end of the block, unless it raises."""
