"""The memory that the requests of one worker may take, counted in one place.

Bodies, answers and the work between them are reserved here before they take memory, so that no number and no kind of
requests takes more than the operator set.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

from starlette.requests import Request
from starlette.types import Scope

from app.errors import BodyTooLarge, WorkerBusy

# Bytes of a body from which decoding it would hold up other requests for milliseconds.
LARGE_BODY = 1 << 16

# Shares of the budget, in sixteenths:
VERSIONS_SHARE = 2  # For versions of models that are kept in memory.
REQUESTS_SHARE = 14  # For requests and connections.
LONG_SHARE = 12  # Of these, for long bodies and answers and for work on them, so that short ones have room in any case.
SPILLING_SHARE = 4  # Of these, for what can also be in a file.

MOST_TURNS = 2  # Long bodies decoded, and tables predicted for, at a time.
MOST_WAITING = 64  # Requests that wait for a turn; each may have its body in memory or in a file.
TURN_SECONDS = 5.0  # Longest wait for a turn.


def share_of(total: int, share: int) -> int:
    """Return that many sixteenths of `total` bytes."""
    return total * share // 16


class MemoryBudget:
    """Bytes that are reserved for requests and connections of this worker. Threads share it."""

    def __init__(self, total: int) -> None:
        """Allow `total` bytes beyond what the idle worker has, the cached versions included."""
        self._requests = share_of(total, REQUESTS_SHARE)
        self._long = share_of(total, LONG_SHARE)
        self._spilling = share_of(total, SPILLING_SHARE)
        self._reserved = 0
        self._lock = threading.Lock()

    def reserve(self, count: int, most: int) -> bool:
        """Reserve `count` bytes, and return True, unless more than `most` bytes would then be reserved in all."""
        with self._lock:
            if self._reserved + count > most:
                return False
            self._reserved += count
            return True

    def free(self, count: int) -> None:
        """Give back `count` reserved bytes."""
        with self._lock:
            self._reserved -= count

    def hold(self, request: Request, count: int) -> None:
        """Reserve `count` bytes more until the request has its answer.

        Raises WorkerBusy if other requests have them, BodyTooLarge if this request needs more than any may have.
        """
        state = request.scope["state"]
        held = state.get("held", 0) + count
        if not self.reserve(count, self._requests if held <= LARGE_BODY else self._long):
            if held > self._long:
                raise BodyTooLarge(
                    f"This request needs about {held} bytes of memory, and a request may have {self._long} in this "
                    "service. Send fewer rows or columns at once."
                )
            raise WorkerBusy(
                f"Other requests use the memory of this worker: this one needs about {count} bytes more of the "
                f"{self._long} that all may have. Send it again later."
            )
        state["held"] = held

    def may_hold(self, request: Request, count: int) -> bool:
        """Reserve them likewise, and return True, if enough is left; for what can also be in a file."""
        if not self.reserve(count, self._spilling):
            return False
        request.scope["state"]["held"] = request.scope["state"].get("held", 0) + count
        return True

    def release(self, request: Request, count: int) -> None:
        """Give back `count` of the bytes that the request holds, unless it is answered and holds none."""
        if (held := request.scope["state"].get("held")) is not None:
            request.scope["state"]["held"] = held - count
            self.free(count)

    def release_all(self, scope: Scope) -> None:
        """Give back all that the request holds: it is answered."""
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

    def buffered(self, before: int, now: int) -> bool:
        """Change what is reserved for a connection's buffers; return False, and leave it, if there is no room."""
        if now > before:
            return self.reserve(now - before, self._requests)
        self.free(before - now)
        return True


class Turns:
    """Lets at most MOST_TURNS requests decode long bodies or predict for tables at a time; others wait in turn."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MOST_TURNS)
        self._waiting = 0

    def check(self) -> None:
        """Raise WorkerBusy if no more requests may wait, before their bodies are received."""
        if self._waiting >= MOST_WAITING:
            raise WorkerBusy(
                f"{MOST_TURNS} long requests are being computed in this worker and {self._waiting} wait, which is the "
                "most. Send this one again later."
            )

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, which lasts as long as the block. Raises WorkerBusy if too many wait, or for too long."""
        self.check()
        self._waiting += 1
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise WorkerBusy(
                f"This worker computes {MOST_TURNS} long requests at a time, and this one waited {TURN_SECONDS:g} s "
                "for its turn. Send it again later."
            ) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
