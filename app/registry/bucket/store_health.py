"""Record whether the store can be reached, and log changes, so that callers can do without it meanwhile."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from app.errors import StoreMisconfigured, StoreUnavailable

LOG_INTERVAL_SECONDS = 10.0  # Interval between two records that the store is not reached.

T = TypeVar("T")

_log = logging.getLogger(__name__)


class StoreHealth:
    """The outcome of the last call to a store. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._error: StoreUnavailable | None = None
        self._logged = -LOG_INTERVAL_SECONDS
        self._is_logged = False  # True from the record of a failure until the store is reached again
        self._lock = threading.Lock()

    @property
    def failing(self) -> bool:
        """True if the last call failed."""
        return self._error is not None

    def check(self) -> None:
        """Raise the error of the last call if it failed."""
        error = self._error
        if error is not None:
            raise type(error)(error.message)

    def reach(self, call: Callable[[], T], timeout: float | None = None, *, is_usual: bool = True) -> T:
        """Return the result of a call to the store, and record whether it succeeded.

        A call that is not usual may lack a permission that other calls do not need, so StoreMisconfigured is not
        recorded for it. Raises StoreUnavailable, also if the call takes longer than `timeout` seconds. The call then
        continues in its thread.
        """
        try:
            result = call() if timeout is None else self._within(call, timeout)
        except StoreUnavailable as error:
            if is_usual or not isinstance(error, StoreMisconfigured):
                self._failed(error)
            raise
        except Exception:
            self._succeeded()  # such as BlobNotFound
            raise
        self._succeeded()
        return result

    def _within(self, call: Callable[[], T], timeout: float) -> T:
        outcome: queue.SimpleQueue[tuple[bool, T | Exception]] = queue.SimpleQueue()

        def run() -> None:
            try:
                outcome.put((True, call()))
            except Exception as error:
                outcome.put((False, error))

        threading.Thread(target=run, name="store-call", daemon=True).start()
        try:
            succeeded, result = outcome.get(timeout=timeout)
        except queue.Empty:
            raise StoreUnavailable(f"{self._url} did not answer within {timeout:g} s.") from None
        if succeeded:
            return result  # type: ignore[return-value]  # the pair says which one it is
        raise result  # type: ignore[misc]

    def _failed(self, error: StoreUnavailable) -> None:
        now = time.monotonic()
        with self._lock:
            self._error = error
            if self._is_logged or now - self._logged < LOG_INTERVAL_SECONDS:
                return
            self._logged, self._is_logged = now, True
        _log.error("store not reached", extra={"store": self._url, "reason": error.message})

    def _succeeded(self) -> None:
        if self._error is None:
            return
        with self._lock:
            was_logged, self._error, self._is_logged = self._is_logged, None, False
        if was_logged:
            _log.warning("store reached again", extra={"store": self._url})
