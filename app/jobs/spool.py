"""Uploaded rows on disk, from their arrival until their job ends."""

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Container, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from app.errors import Unavailable
from app.failpoints import reach

ORPHAN_SECONDS = 3600  # an upload this old that no job names was cut off by a crash


class Spool:
    """A folder of uploads. A name is handed out once and says nothing of who sent it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new(self) -> str:
        """A name for an upload."""
        return uuid.uuid4().hex

    def path(self, upload: str) -> Path:
        return self._folder / upload

    @contextlib.contextmanager
    def writing(self, upload: str) -> Iterator[BinaryIO]:
        """The upload's file, open for writing; `seal` it before the block is left. Left by an error, nothing stays.

        Raises Unavailable where the folder cannot be written, or is full.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self.path(upload).open("xb") as file, self.kept(upload):
                yield file
        except OSError as error:
            raise Unavailable(f"The rows cannot be stored: {error.strerror}.") from error

    def scratch(self) -> BinaryIO:
        """A nameless file for reading and writing, gone when it is closed or the process ends."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return cast(BinaryIO, tempfile.TemporaryFile(dir=self._folder))
        except OSError as error:
            raise Unavailable(f"The rows cannot be stored: {error.strerror}.") from error

    def seal(self, file: BinaryIO) -> None:
        """Make what was written outlive a power cut. This waits for the disk."""
        file.flush()
        os.fsync(file.fileno())
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        reach("spooled")

    @contextlib.contextmanager
    def kept(self, upload: str) -> Iterator[None]:
        """Remove the upload if the block is left by an error."""
        try:
            yield
        except BaseException:
            self.remove(upload)
            raise

    def remove(self, upload: str) -> None:
        self.path(upload).unlink(missing_ok=True)

    def sweep(self, wanted: Container[str], ended: Container[str] = ()) -> None:
        """Remove the uploads of ended jobs, and old ones that no job wants: those of requests that were cut off."""
        if not self._folder.is_dir():
            return
        before = time.time() - ORPHAN_SECONDS
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.name in ended or (path.name not in wanted and path.stat().st_mtime < before):
                    path.unlink()
