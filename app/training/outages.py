"""Continue a training after the store was unavailable for a while.

A job that was acknowledged must not fail because a bucket throttles or restarts.
"""

import io
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from app.errors import SpoolFull, StoreUnavailable, Unavailable
from app.training.progress import ProgressReporter

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_OUTAGE_SECONDS = 900.0  # Time since the first of several failures in a row after which a job fails.
FIRST_PAUSE_SECONDS = 0.25  # before the second try. Each later pause is twice as long.
MAX_PAUSE_SECONDS = 5.0
CHECK_SECONDS = 0.25  # Time between two checks for a cancellation.
READ_BYTES = 1 << 20  # Bytes read ahead from a file in a store.

T = TypeVar("T")

_log = logging.getLogger(__name__)


def pause(progress: ProgressReporter, seconds: float) -> None:
    """Wait. Raises JobCancelled and TimeExceeded as the job's progress does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        progress.check_cancelled()
        time.sleep(min(left, CHECK_SECONDS))
    progress.check_cancelled()


def outlast(
    call: Callable[[], T],
    wait: Callable[[float], None],
    outages: tuple[type[Unavailable], ...] = (StoreUnavailable,),
) -> T:
    """Return the result of `call`, after calling it again for as long as it raises one of `outages`.

    `wait` is called with the seconds before the next try. Raises the last error MAX_OUTAGE_SECONDS after the first one.
    """
    failed, seconds = None, FIRST_PAUSE_SECONDS
    while True:
        try:
            return call()
        except outages as error:
            now = time.monotonic()
            if failed is None:
                failed = now
                waiting = "waiting for room on the disk" if isinstance(error, SpoolFull) else "waiting for the store"
                _log.warning(waiting, extra={"reason": error.message})
            elif now - failed > MAX_OUTAGE_SECONDS:
                raise
        wait(seconds)
        seconds = min(2 * seconds, MAX_PAUSE_SECONDS)


class PatientFile(io.RawIOBase):
    """A file in a store whose reads outlast an outage. After one, it is opened again at the same place."""

    def __init__(self, opener: Callable[[], BinaryIO], wait: Callable[[float], None]) -> None:
        self._opener, self._wait = opener, wait
        self._file: BinaryIO | None = outlast(opener, wait)
        self._at = 0

    @classmethod
    def open(cls, opener: Callable[[], BinaryIO], wait: Callable[[float], None]) -> BinaryIO:
        """Return a buffered reader of the file that `opener` opens."""
        return cast("BinaryIO", io.BufferedReader(cls(opener, wait), READ_BYTES))

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        content = outlast(lambda: self._read(len(view)), self._wait)
        view[: len(content)] = content
        self._at += len(content)
        return len(content)

    def _read(self, size: int) -> bytes:
        if self._file is None:
            self._file = self._opener()
        try:
            self._file.seek(self._at)
            return self._file.read(size)
        except StoreUnavailable:
            self._file.close()
            self._file = None
            raise

    def _end(self) -> int:
        if self._file is None:
            self._file = self._opener()
        return self._file.seek(0, io.SEEK_END)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence == io.SEEK_END:
            offset += outlast(self._end, self._wait)
        self._at = offset
        return offset

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()
