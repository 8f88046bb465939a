"""Receive the body of a request into a file, and remove the file unless a job takes it over."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from starlette.concurrency import run_in_threadpool

from app.data.batch import Source
from app.errors import Unavailable
from app.storage.memory_budget import LARGE_BODY
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore

SLICE_BYTES = 1 << 18  # Bytes of a body that are hashed and written at a time, in a thread.

# Returns a context that is entered while a received file is inspected or planned, so that it sees the file and errors.
Watch: TypeAlias = Callable[[Source, TrainingRequest], contextlib.AbstractContextManager[None]]


def unwatched(source: Source, draft: TrainingRequest) -> contextlib.AbstractContextManager[None]:  # noqa: ARG001
    """Watch nothing."""
    return contextlib.nullcontext()


class ReceivedUpload:
    """An upload that belongs to its request until the call that submits its job takes it."""

    def __init__(self, uploads: UploadStore) -> None:
        self.name = uploads.new()
        self._uploads = uploads
        self._lock = threading.Lock()
        self._is_taken = self._is_discarded = False

    def take(self) -> None:
        """Make the caller the owner, who removes the upload after an error. Raises Unavailable if it is gone."""
        with self._lock:
            if self._is_discarded:
                raise Unavailable("The request ended before its job was recorded.")
            self._is_taken = True

    def discard(self) -> None:
        """Remove the upload unless it was taken."""
        with self._lock:
            if not self._is_taken:
                self._is_discarded = True
                self._uploads.discard(self.name)


@contextlib.contextmanager
def received_upload(uploads: UploadStore) -> Iterator[ReceivedUpload]:
    """Yield a new upload. It is removed if the block raises before its job takes it.

    A request can be cancelled while a thread records its job. The rows of that job have to stay.
    """
    upload = ReceivedUpload(uploads)
    try:
        yield upload
    except BaseException:
        upload.discard()
        raise


async def store_part(write: Callable[[bytearray], object], part: bytearray, digest: Any = None) -> None:
    """Hash and write a part of a body. Both release the GIL, so predictions run meanwhile if the part is long."""
    if len(part) <= LARGE_BODY:  # a thread would cost more than it saves
        _store(write, part, digest)
    else:
        await run_in_threadpool(_store, write, part, digest)


def _store(write: Callable[[bytearray], object], part: bytearray, digest: Any) -> None:
    if digest is not None:
        digest.update(part)
    write(part)
