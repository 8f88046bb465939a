"""Uploaded rows, as a trainer sees them."""

from collections.abc import Container
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol


class Uploads(Protocol):
    """Rows that wait for their training, each under a name."""

    def new(self) -> str:
        """Return a name for an upload."""

    def path(self, upload: str) -> Path: ...

    def start(self, upload: str) -> str:
        """Return the name of the coefficients to start from that came with the upload."""

    def open_new(self, upload: str) -> AbstractContextManager[BinaryIO]: ...

    def sync(self, file: BinaryIO) -> None:
        """Bring the file to disk."""

    def remove(self, upload: str) -> None: ...

    def is_empty(self) -> bool: ...

    def sweep(self, wanted: Container[str], ended: Container[str] = ()) -> None:
        """Remove the uploads that no training needs any more."""
