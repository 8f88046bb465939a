"""The memory budget for the requests of one worker.

Bodies, responses and the work on them reserve memory here before they allocate it, so that no number and no kind of
requests exceeds the limit that the operator set.
"""

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator

from app.errors import BodyTooLarge, WorkerBusy

# Length of a body, in bytes, above which decoding it would delay other requests by milliseconds.
LARGE_BODY = 1 << 16

# Shares of the budget, in sixteenths:
VERSIONS_SHARE = 2  # For the cache of versions.
REQUESTS_SHARE = 14  # For all requests and connections, and versions in use that are not in the cache.
LARGE_SHARE = 12  # Part of REQUESTS_SHARE for large bodies and responses; the rest is left to small ones.
SPILLING_SHARE = 4  # Total reservation above which bodies and responses spill to files.

MAX_SLOTS = 2  # Large requests processed at a time.
MAX_WAITING = 64  # Requests waiting for a slot, each with its body in memory or in a file.
SLOT_TIMEOUT = 5.0  # Longest wait for a slot, in seconds.


def share_of(total: int, share: int) -> int:
    """Return `share` sixteenths of `total` bytes."""
    return total * share // 16


class MemoryBudget:
    """Counts the bytes reserved in this worker. Thread-safe."""

    def __init__(self, total: int) -> None:
        """Allow `total` bytes in addition to the memory of the idle worker, including the cached versions."""
        self.request_limit = share_of(total, REQUESTS_SHARE)
        self.large_limit = share_of(total, LARGE_SHARE)
        self.spill_limit = share_of(total, SPILLING_SHARE)
        self._reserved = 0
        self._lock = threading.Lock()
        # Sizes of collected objects. Their finalizers may run while this thread has the lock, so they only append.
        self._collected: deque[int] = deque()
        self._tracked = 0  # objects that are counted until they are collected

    def try_reserve(self, count: int, limit: int) -> bool:
        """Reserve `count` bytes and return True, or return False if the total would exceed `limit` bytes."""
        with self._lock:
            self._forget_collected()
            if self._reserved + count > limit:
                return False
            self._reserved += count
            return True

    def free(self, count: int) -> None:
        """Release `count` reserved bytes."""
        with self._lock:
            self._reserved -= count

    def resize(self, before: int, now: int) -> bool:
        """Change a connection's reservation from `before` to `now` bytes. Return False if there is too little left."""
        if now > before:
            return self.try_reserve(now - before, self.request_limit)
        self.free(before - now)
        return True

    def check_room(self, count: int) -> None:
        """Raise WorkerBusy if `count` more bytes for a version do not fit next to the other versions that are tracked.

        A version that does not fit next to the requests alone is let in, because it would never fit otherwise.
        """
        with self._lock:
            self._forget_collected()
            if self._tracked and self._reserved + count > self.large_limit:
                raise WorkerBusy("Other versions in use take the memory of this worker. Send this one again later.")

    def track(self, version: object, size: int) -> None:
        """Count `size` bytes, above the limits if need be, until nothing refers to `version`."""
        with self._lock:
            self._reserved += size
            self._tracked += 1
        weakref.finalize(version, self._collected.append, size).atexit = False

    def _forget_collected(self) -> None:
        while self._collected:
            self._reserved -= self._collected.popleft()
            self._tracked -= 1


class Reservation:
    """The bytes that one request has reserved, until its response is sent."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._bytes = 0
        self._open = True

    def reserve(self, count: int) -> None:
        """Reserve `count` more bytes.

        Raises WorkerBusy if others have reserved the memory; BodyTooLarge if no request may have that much.
        """
        size, large = self._bytes + count, self._budget.large_limit
        if not self._budget.try_reserve(count, self._budget.request_limit if size <= LARGE_BODY else large):
            self.check_allowed(count)
            raise WorkerBusy(
                f"Other requests use the memory of this worker: this one needs about {count} bytes more of the "
                f"{large} that all may have. Send it again later."
            )
        self._bytes = size

    def check_allowed(self, count: int) -> None:
        """Raise BodyTooLarge if no request may have `count` more bytes than this one has now."""
        size, large = self._bytes + count, self._budget.large_limit
        if size > large:
            raise BodyTooLarge(
                f"This request needs about {size} bytes of memory, and a request may have {large} in this service. "
                "Send fewer rows or columns at once, or raise LINSERVE_WORKER_MEMORY if the model itself is wide."
            )

    def try_reserve(self, count: int) -> bool:
        """Reserve `count` more bytes for data that can spill to a file. Return False if there is too little left."""
        if not self._budget.try_reserve(count, self._budget.spill_limit):
            return False
        self._bytes += count
        return True

    def release(self, count: int) -> None:
        """Release `count` bytes, unless all are released already."""
        if self._open:
            self._bytes -= count
            self._budget.free(count)

    def release_all(self) -> None:
        """Release all bytes, once the response is sent."""
        self._budget.free(self._bytes)
        self._bytes = 0
        self._open = False

    @contextlib.contextmanager
    def reserved(self, count: int) -> Iterator[None]:
        """Reserve `count` bytes for the block. Raises as `reserve` does."""
        self.reserve(count)
        try:
            yield
        finally:
            self.release(count)


class LargeBodyLimiter:
    """Semaphore for large requests: MAX_SLOTS are processed at a time, and others wait in order."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MAX_SLOTS)
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Occupy a slot for the block. Raises WorkerBusy if the queue is full or SLOT_TIMEOUT has passed."""
        if self._waiting >= MAX_WAITING:
            raise WorkerBusy(
                f"{MAX_SLOTS} long requests are being computed in this worker and {self._waiting} wait, which is the "
                "limit. Send this one again later."
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(SLOT_TIMEOUT):
                await self._slots.acquire()
        except TimeoutError:
            raise WorkerBusy(
                f"This worker computes {MAX_SLOTS} long requests at a time, and this one waited {SLOT_TIMEOUT:g} s "
                "for its turn. Send it again later."
            ) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()
