"""Steps of a plan: an operation as a generator that yields requests and pauses, and does no I/O itself.

The synchronous and the asynchronous client run the same plans.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar
from urllib.parse import quote

from linserve.errors import Problem, ServiceError

T = TypeVar("T")

JSON = "application/json"


class Body(Protocol):
    """The body of a request, which can be sent again."""

    @property
    def media_type(self) -> str | None: ...

    @property
    def encoding(self) -> str | None:
        """The Content-Encoding of the bytes."""

    @property
    def length(self) -> int | None: ...

    @property
    def replayable(self) -> bool:
        """Return False if the bytes that were read cannot be read again."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the beginning."""


class Sink(Protocol):
    """Receives the body of a successful response."""

    @property
    def restartable(self) -> bool:
        """Return False if the bytes that were received cannot be taken back."""

    def start(self) -> None:
        """Forget the bytes of an earlier attempt."""

    def feed(self, chunk: bytes) -> bool:
        """Take a part of the body. Return True if no more is needed."""

    def close(self, *, succeeded: bool) -> None: ...


@dataclass(frozen=True)
class Call:
    """One request. `path` is relative to the address of the service."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    sink: Sink | None = None
    repeatable: bool = True  # False if a retry could repeat the effect of the request
    read_timeout: float | None = None  # seconds; None: the client's timeout
    proof: str | None = None  # header that every success from Linserve has

    @property
    def is_large(self) -> bool:
        """True if checking the body before the response may take the service minutes."""
        body = self.body
        if body is None:
            return False
        return body.encoding is not None or body.length is None or body.length > _LARGE_BYTES


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Answer:
    """A response. `content` is empty if it went to the sink of the call. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self, *names: str) -> Any:
        """Return the content. Raises ServiceError if it is not JSON, or not an object with these members."""
        try:
            content = json.loads(self.content)
        except ValueError:
            raise self.foreign() from None
        if names and not (isinstance(content, dict) and content.keys() >= set(names)):
            raise self.foreign()
        return content

    def foreign(self) -> ServiceError:
        """Return the error for a response that did not come from Linserve."""
        to = self.headers.get("location")
        moved = f" It redirects to {to}." if to else ""
        sentence = (
            f"The response has status {self.status} and is not from Linserve.{moved} Check the address and proxies."
        )
        return ServiceError(Problem("", "HTTP error", self.status, sentence))


Step: TypeAlias = Call | Pause
# Yields steps, is sent the answer to each call, and returns the result. ConnectionFailed is thrown into it.
Plan: TypeAlias = Generator[Step, Answer | None, T]
Make: TypeAlias = Callable[[], Plan[T]]


@dataclass(frozen=True)
class BytesBody:
    content: bytes
    media_type: str | None = JSON
    encoding: str | None = None

    @property
    def length(self) -> int:
        return len(self.content)

    @property
    def replayable(self) -> bool:
        return True

    def chunks(self) -> Iterator[bytes]:
        view = memoryview(self.content)
        for start in range(0, len(view), CHUNK_BYTES):
            yield bytes(view[start : start + CHUNK_BYTES])


CHUNK_BYTES = 1 << 18  # Bytes of a body that are sent at a time.
_LARGE_BYTES = 1 << 20  # Longest body that a service checks within a second.


def path_of(*parts: str | int) -> str:
    """Return the path with these parts."""
    return "".join(f"/{segment(part)}" for part in parts)


def segment(part: object) -> str:
    """Return a name as one segment of a path. Clients and proxies would resolve the names `.` and `..`."""
    text = quote(str(part), safe="")
    return text.replace(".", "%2E") if text in (".", "..") else text
