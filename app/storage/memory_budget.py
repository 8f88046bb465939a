"""The memory budget for the requests of one worker.

Bodies, answers and the work on them reserve memory here before they allocate it, so that no number and no kind of
requests exceeds the limit that the operator set.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

from starlette.requests import Request
from starlette.types import Scope

from app.errors import BodyTooLarge, WorkerBusy

# Length of a body, in bytes, above which decoding it would delay other requests by milliseconds.
LARGE_BODY = 1 << 16

# Shares of the budget, in sixteenths:
VERSIONS_SHARE = 2  # For versions of models that are kept in memory.
REQUESTS_SHARE = 14  # For all requests and connections.
LONG_SHARE = 12  # Part of REQUESTS_SHARE for long bodies and answers; the rest is left to short ones.
SPILLING_SHARE = 4  # Bytes reserved in all, above which data that can be in a file is written to one.

MAX_TURNS = 2  # Long requests processed at a time.
MAX_WAITING = 64  # Requests waiting for a turn, each with its body in memory or in a file.
TURN_SECONDS = 5.0  # Longest wait for a turn.


def share_of(total: int, share: int) -> int:
    """Return `share` sixteenths of `total` bytes."""
    return total * share // 16


class MemoryBudget:
    """Counts the bytes that requests and connections of this worker have reserved. Thread-safe."""

    def __init__(self, total: int) -> None:
        """Allow `total` bytes in addition to the memory of the idle worker, including the cached versions."""
        self._requests = share_of(total, REQUESTS_SHARE)
        self._long = share_of(total, LONG_SHARE)
        self._spilling = share_of(total, SPILLING_SHARE)
        self._reserved = 0
        self._lock = threading.Lock()

    def try_reserve(self, count: int, most: int) -> bool:
        """Reserve `count` bytes and return True, or return False if the total would exceed `most` bytes."""
        with self._lock:
            if self._reserved + count > most:
                return False
            self._reserved += count
            return True

    def free(self, count: int) -> None:
        """Release `count` reserved bytes."""
        with self._lock:
            self._reserved -= count

    def hold(self, request: Request, count: int) -> None:
        """Reserve `count` more bytes until the response is sent.

        Raises WorkerBusy if other requests have reserved the memory; BodyTooLarge if no request may have that much.
        """
        state = request.scope["state"]
        held = state.get("held", 0) + count
        if not self.try_reserve(count, self._requests if held <= LARGE_BODY else self._long):
            if held > self._long:
                raise BodyTooLarge(
                    f"This request needs about {held} bytes of memory, and a request may have {self._long} in this "
                    "service. Send fewer rows or columns at once, or raise LINSERVE_WORKER_MEMORY if the model itself "
                    "is wide."
                )
            raise WorkerBusy(
                f"Other requests use the memory of this worker: this one needs about {count} bytes more of the "
                f"{self._long} that all may have. Send it again later."
            )
        state["held"] = held

    def may_hold(self, request: Request, count: int) -> bool:
        """Reserve `count` more bytes for data that can spill to a file. Return False if there is too little left."""
        if not self.try_reserve(count, self._spilling):
            return False
        request.scope["state"]["held"] = request.scope["state"].get("held", 0) + count
        return True

    def release(self, request: Request, count: int) -> None:
        """Release `count` bytes of the request, unless all of its bytes are released already."""
        if (held := request.scope["state"].get("held")) is not None:
            request.scope["state"]["held"] = held - count
            self.free(count)

    def release_all(self, scope: Scope) -> None:
        """Release all bytes of an answered request."""
        if held := scope["state"].pop("held", 0):
            self.free(held)

    @contextlib.contextmanager
    def working(self, request: Request, count: int) -> Iterator[None]:
        """Hold `count` bytes in the block. Raises as `hold` does."""
        self.hold(request, count)
        try:
            yield
        finally:
            self.release(request, count)

    def resize(self, before: int, now: int) -> bool:
        """Change a connection's reservation from `before` to `now` bytes. Return False if there is too little left."""
        if now > before:
            return self.try_reserve(now - before, self._requests)
        self.free(before - now)
        return True


class LargeBodyLimiter:
    """Semaphore for long requests: MAX_TURNS are processed at a time, and others wait in order."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MAX_TURNS)
        self._waiting = 0

    def check(self) -> None:
        """Raise WorkerBusy if the queue is full. Called before the body is received."""
        if self._waiting >= MAX_WAITING:
            raise WorkerBusy(
                f"{MAX_TURNS} long requests are being computed in this worker and {self._waiting} wait, which is the "
                "limit. Send this one again later."
            )

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a turn for the block. Raises WorkerBusy if the queue is full or TURN_SECONDS have passed."""
        self.check()
        self._waiting += 1
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise WorkerBusy(
                f"This worker computes {MAX_TURNS} long requests at a time, and this one waited {TURN_SECONDS:g} s "
                "for its turn. Send it again later."
            ) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
