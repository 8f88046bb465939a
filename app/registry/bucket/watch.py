"""Polling of the pointers of served models, so that a promotion is seen within a second and no request waits for it."""

import logging
import queue
import random
import threading
import time
import weakref
from collections.abc import Callable

from app.errors import Unavailable
from app.registry.bucket.reader import BucketReader

POLL_SECONDS = 0.4  # Least interval between two reads of a pointer.
JITTER_SECONDS = 0.2  # Greatest random addition to it, so that replicas do not poll at the same time.
MAX_BACKOFF_SECONDS = 2.0  # Longest interval while the store cannot be reached.
FIRST_SECONDS = 5.0  # Least interval between two calls of `first`.
MAX_THREADS = 8  # Pointers read at the same time.

_JITTER = random.Random()  # noqa: S311 - of pauses. Not the global one, which other code may seed.
_log = logging.getLogger(__name__)


class PointerWatch:
    """A thread that polls, and up to MAX_THREADS that read pointers. All end with the process.

    While the store cannot be reached, only one request at a time tries it.
    """

    def __init__(self, reader: BucketReader, first: Callable[[], bool] | None = None) -> None:
        """Call `first` about every FIRST_SECONDS while the store is reached, until it returns True."""
        self._reader = weakref.ref(reader)
        self._first = first
        self._first_due = 0.0  # by the monotonic clock
        self._stopped = threading.Event()
        self._due: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._polled: set[str] = set()  # models that are queued or being read
        self._lock = threading.Lock()
        self._threads = 0
        self._backoff = 0.0  # seconds

    def start(self) -> None:
        """Start to poll, until nothing else refers to the reader. From now on, it serves the pointers that it knows."""
        reader = self._reader()
        assert reader is not None
        reader.watched = True
        threading.Thread(target=self._run, name="watch-pointers", daemon=True).start()

    def stop(self) -> None:
        """Stop polling. Reads that are in progress end later."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(max(POLL_SECONDS + JITTER_SECONDS * _JITTER.random(), self._backoff)):
            try:
                if not self._poll_all():
                    break
            except Exception:  # such as a thread that cannot be started
                _log.exception("pointer not polled")
                self._backoff = MAX_BACKOFF_SECONDS
        for _ in range(self._threads):
            self._due.put(None)

    def _poll_all(self) -> bool:
        """Queue each served model that is not being read already. Return False if the reader is no longer in use."""
        reader = self._reader()
        if reader is None:
            return False
        if reader.health.failing:
            try:
                reader.probe()
            except Unavailable:
                self._backoff = min(max(2 * self._backoff, POLL_SECONDS), MAX_BACKOFF_SECONDS)
                return True
        self._backoff = 0.0
        if self._first is not None and time.monotonic() >= self._first_due:
            if self._first():
                self._first = None
            self._first_due = time.monotonic() + FIRST_SECONDS
        for model in reader.served_models():
            with self._lock:
                is_due = model not in self._polled
                self._polled.add(model)
            if is_due:
                self._due.put(model)
            if self._threads < min(len(self._polled), MAX_THREADS):
                threading.Thread(target=self._read_due, name="read-pointers", daemon=True).start()
                self._threads += 1
        return True

    def _read_due(self) -> None:
        while (model := self._due.get()) is not None:
            self._poll(model)
            with self._lock:
                self._polled.discard(model)

    def _poll(self, model: str) -> None:
        reader = self._reader()
        if reader is None or reader.health.failing:
            return
        try:
            reader.poll(model)
        except Unavailable:
            pass  # `health` logs that the store is not reached. The memory for a version may also be in use.
        except Exception:
            _log.exception("pointer not polled", extra={"model": model})
