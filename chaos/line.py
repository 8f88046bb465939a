"""One kept connection that asks for predictions, and the versions that its answers are held against."""

import json
import re
import socket
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.errors import LinserveError
from app.registry.version_file import read

ANSWER_SECONDS = 30.0
ROWS = [[75.0, 63.0, 44.0], [91.0, 88.0, 64.0], [87.0, 134.0, 58.0], [102.0, 43.0, 37.0], [69.0, 96.0, 70.0]]
TOLERANCE = 1e-9  # relative; versions differ by far more

Ending = Literal["refused", "unanswered", "cut"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Wrong(Exception):
    """An answer that should not have been given."""


class Ended(Exception):
    """There was no answer, because there is no connection any more."""

    def __init__(self, how: Ending) -> None:
        super().__init__(how)
        self.how: Ending = how


class Truth:
    """What each version in a models folder predicts, computed here from its file."""

    def __init__(self, models: Path, model: str = "crop-yield") -> None:
        """All versions that are there now are kept as they are, whatever happens to their files."""
        self._folder = models / model
        self._predictions: dict[int, NDArray[np.float64]] = {}
        self._seen: set[tuple[int, bytes]] = set()  # row and body of right answers: most are the same again
        for path in self._folder.glob("*.safetensors"):
            self._of(int(path.stem))

    def check(self, row: int, body: bytes) -> int:
        """The version that the answer states. Raises Wrong unless that version predicts so for that row."""
        if (row, body) not in self._seen:
            answer = json.loads(body)
            expected = self._of(answer["version"])[row]
            found = answer["predictions"][0]
            if not np.allclose(found, expected, rtol=TOLERANCE, atol=0):
                raise Wrong(f"mislabelled: version {answer['version']} predicts {expected}, not {found}")
            self._seen.add((row, body))
        return int(re.search(rb'"version": ?(\d+)', body)[1])  # type: ignore[index]

    def _of(self, version: int) -> NDArray[np.float64]:
        if version not in self._predictions:
            try:
                model = read(self._folder / f"{version:06d}.safetensors").model
            except (LinserveError, FileNotFoundError) as error:
                raise Wrong(f"an answer states version {version}, which is not intact: {error}") from None
            self._predictions[version] = np.array(ROWS) @ model.weights.T + model.intercept
        return self._predictions[version]


def request_of(content: Any, path: str = "/predict", host: str = "127.0.0.1") -> bytes:
    body = json.dumps(content).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_REQUESTS = [request_of({"instances": [row]}) for row in ROWS]


class Line:
    """Asks one row after the other, over a new connection whenever the last has ended."""

    def __init__(self, port: int, truth: Truth) -> None:
        self._address = ("127.0.0.1", port)
        self._truth = truth
        self._socket: socket.socket | None = None
        self._answered = False  # on this connection
        self._row = 0

    def ask(self) -> None:
        """Send a request. Raises Ended."""
        self._row = (self._row + 1) % len(ROWS)
        if self._socket is None:
            try:
                self._socket = socket.create_connection(self._address, ANSWER_SECONDS)
            except OSError:
                raise Ended("refused") from None
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._answered = False
        self._exchange(lambda line: line.sendall(_REQUESTS[self._row]))

    def hear(self) -> int:
        """The version that answered. Raises Wrong or Ended."""
        head, body = self._exchange(receive)
        self._answered = True
        if _CLOSE.search(head):
            self.close()
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Wrong(f"answered {head.splitlines()[0].decode()}: {body[:300].decode(errors='replace')}")
        return self._truth.check(self._row, body)

    def predict(self) -> int:
        self.ask()
        return self.hear()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, with_socket: Any) -> Any:
        assert self._socket is not None
        try:
            return with_socket(self._socket)
        except TimeoutError:
            self.close()
            raise Wrong(f"no answer within {ANSWER_SECONDS:g} s") from None
        except OSError:
            self.close()
            raise Ended("cut" if self._answered else "unanswered") from None


def receive(line: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of one answer. Raises ConnectionResetError where it does not come whole."""
    data = b""
    while True:
        head, separator, body = data.partition(b"\r\n\r\n")
        if separator:
            length = _LENGTH.search(head)
            if length and len(body) >= int(length[1]):
                return head, body
        chunk = line.recv(1 << 16)
        if not chunk:
            raise ConnectionResetError("closed before the end of an answer")
        data += chunk
