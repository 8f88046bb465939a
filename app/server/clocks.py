"""Deadlines of a connection, without sockets or timers: callers pass the time, in seconds.

Deadlines are absolute, so a client that sends a byte now and then gains no time.
"""

import math
from dataclasses import dataclass
from enum import Enum, auto

# Lowest accepted rate of a request body or of a response that the client does not read, in bytes per second.
MIN_BYTES_PER_SECOND = 10_000
# Time to discard input after the last response, in seconds.
LINGER_SECONDS = 1.0


class Awaiting(Enum):
    """The part of a request that the client has to send next."""

    REQUEST = auto()
    HEADERS = auto()
    BODY = auto()
    NOTHING = auto()  # The server owes a response.
    END = auto()  # The last response is written.


@dataclass(slots=True, eq=False)
class RequestClock:
    """Deadlines for the next request, its headers, and the end of the connection."""

    keep_alive: float
    header_timeout: float
    since: float
    awaiting: Awaiting = Awaiting.HEADERS

    def start(self, awaiting: Awaiting, now: float) -> None:
        self.awaiting, self.since = awaiting, now

    def is_overdue(self, now: float) -> bool:
        limits = {
            Awaiting.REQUEST: self.keep_alive,
            Awaiting.HEADERS: self.header_timeout,
            Awaiting.END: LINGER_SECONDS,
        }
        return now - self.since > limits.get(self.awaiting, math.inf)


class TransferClock:
    """Measures how far a transfer is behind MIN_BYTES_PER_SECOND. A fast start earns no time for later."""

    def __init__(self, grace: float) -> None:
        """Accept transfers that are up to `grace` seconds behind."""
        self._grace = grace
        self._behind = 0.0
        self._since: float | None = None

    def restart(self, now: float | None) -> None:
        """Begin a transfer whose time counts from `now` on, or not yet if that is None."""
        self._behind, self._since = 0.0, now

    def start(self, now: float) -> None:
        """Count the time of the current transfer from `now` on."""
        self._since = now

    def advance(self, now: float, count: int) -> None:
        """Add the time since the last call, less the time that `count` bytes may take."""
        if self._since is not None:
            self._behind = max(0.0, self._behind + now - self._since - count / MIN_BYTES_PER_SECOND)
            self._since = now

    def stop(self) -> None:
        """Count no time until the next start."""
        self._since = None

    def is_late(self, now: float) -> bool:
        running = 0.0 if self._since is None else now - self._since
        return self._behind + running > self._grace
