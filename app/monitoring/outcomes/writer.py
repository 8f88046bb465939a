"""One thread that writes the predictions of many requests together, because each commit waits for the disk."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from app.monitoring.outcomes.records import NotRecorded, RecordedRows

WAIT_SECONDS = 8.0  # Longest wait of a request for its commit.
MAX_WAITING_ROWS = 200_000  # Rows that wait to be written. More are not recorded.
MAX_GROUP_ROWS = 10_000  # Rows after which a commit takes no further request.
CLEAN_SECONDS = 60.0  # Seconds between two searches for expired records.
MORE_SECONDS = (
    0.5  # The same if there were more than could be removed at once. New predictions are recorded in between.
)

_log = logging.getLogger(__name__)


class Writer:
    """Writes groups of requests. The thread starts with the first request."""

    def __init__(
        self, write: Callable[[Sequence[RecordedRows]], Sequence[NotRecorded | None]], clean: Callable[[], bool]
    ) -> None:
        """Pass groups to `write`, which returns for each request why it is not recorded, or None if it is.

        `clean` is called at the beginning, and then every CLEAN_SECONDS. It returns True if it has more to do.
        """
        self._write, self._clean = write, clean
        self._changed = threading.Condition()
        self._waiting: deque[tuple[RecordedRows, Future[None]]] = deque()
        self._rows = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    def record(self, rows: RecordedRows) -> None:
        """Write rows, and wait until they are committed. Raises NotRecorded."""
        future: Future[None] = Future()
        with self._changed:
            if self._closed:
                raise NotRecorded("The service stops.")
            if self._rows + len(rows.ids) > MAX_WAITING_ROWS:
                raise NotRecorded("Too many predictions wait to be recorded.")
            self._rows += len(rows.ids)
            self._waiting.append((rows, future))
            self._start()
            self._changed.notify()
        try:
            future.result(WAIT_SECONDS)
        except FutureTimeout:
            future.cancel()  # If it is being written, nobody knows yet whether it will be recorded.
            raise NotRecorded(f"The database did not accept it within {WAIT_SECONDS:g} seconds.") from None

    def start(self) -> None:
        """Start the thread, which also removes what has expired."""
        with self._changed:
            if not self._closed:
                self._start()

    def close(self) -> None:
        """Write what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(WAIT_SECONDS)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="record-predictions", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        clean_at = time.monotonic()
        while True:
            with self._changed:
                while not self._waiting and not self._closed and (left := clean_at - time.monotonic()) > 0:
                    self._changed.wait(left)
                if self._closed and not self._waiting:
                    return
                group = self._take()
            if group:
                self._write_group(group)
            if time.monotonic() >= clean_at:
                clean_at = time.monotonic() + (MORE_SECONDS if self._has_more_to_clean() else CLEAN_SECONDS)

    def _has_more_to_clean(self) -> bool:
        try:
            return self._clean()
        except Exception:
            _log.exception("old predictions not removed")
            return False

    def _take(self) -> list[tuple[RecordedRows, "Future[None]"]]:
        """Return the requests to write next. Those that nobody waits for are left out."""
        group = []
        rows = 0
        while self._waiting and rows < MAX_GROUP_ROWS:
            request, future = self._waiting.popleft()
            self._rows -= len(request.ids)
            if future.set_running_or_notify_cancel():
                group.append((request, future))
                rows += len(request.ids)
        return group

    def _write_group(self, group: Sequence[tuple[RecordedRows, "Future[None]"]]) -> None:
        try:
            refusals = self._write([rows for rows, _ in group])
        except NotRecorded as error:
            refusals = [error] * len(group)
        except Exception:
            _log.exception("predictions not recorded")
            refusals = [NotRecorded("The service has a bug. Its log has the details.")] * len(group)
        for (_, future), refusal in zip(group, refusals, strict=True):
            if refusal is None:
                future.set_result(None)
            else:
                future.set_exception(refusal)
