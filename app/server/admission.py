"""Which connections of a worker are served when there are too many."""

from collections.abc import Set as AbstractSet
from typing import Protocol

# Connections accepted above the limit, so probes get through and other clients get a 503. Above these, the oldest are
# evicted.
SPARE_CONNECTIONS = 256


class Evictable(Protocol):
    """A connection, as far as admission concerns it."""

    def is_answering(self) -> bool: ...

    def evict(self) -> None:
        """Reject the client and close the connection."""


class ConnectionAdmission:
    """The connection limit of a worker, shared by all its connections."""

    def __init__(self, limit: int, probes: AbstractSet[bytes]) -> None:
        """Serve `limit` connections, and requests for the paths of `probes` on connections above the limit."""
        self._limit = limit
        self._probes = probes
        self._excess: dict[Evictable, None] = {}  # oldest first

    def accept(self, connection: Evictable, count: int) -> bool:
        """Return True if a new connection, which brings their number to `count`, is within the limit.

        If no spare place is left, evict the oldest idle connection above the limit. Probes send their request at once,
        so they are rarely among those.
        """
        excess = count - self._limit
        if excess <= 0:
            return True
        self._excess[connection] = None
        if excess > SPARE_CONNECTIONS:
            oldest = next((other for other in self._excess if not other.is_answering()), connection)
            del self._excess[oldest]
            oldest.evict()
        return False

    def admits(self, target: bytes, count: int) -> bool:
        """Return True if a connection above the limit may send a request for `target` while `count` are open."""
        return count <= self._limit or target in self._probes

    def forget(self, connection: Evictable) -> None:
        """Remove a closed connection."""
        self._excess.pop(connection, None)
