"""One persistent connection that requests predictions, and the versions to compare the answers with."""

import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from app.errors import LinserveError
from app.registry.version_file import Version, read
from app.regression.linear_model import LinearModel
from app.storage.store import BlobNotFound

ANSWER_SECONDS = 60.0
ROWS = [[75.0, 63.0, 44.0], [91.0, 88.0, 64.0], [87.0, 134.0, 58.0], [102.0, 43.0, 37.0], [69.0, 96.0, 70.0]]
TOLERANCE = 1e-9  # Relative difference of equal predictions. Those of two versions differ by far more.

Ending = Literal["refused", "unanswered", "cut"]

_VERSION = re.compile(rb'"version": ?(\d+)|\r\nlinserve-version: *(\d+)', re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Wrong(Exception):
    """An answer that is wrong."""


class Ended(Exception):
    """The connection ended before the answer."""

    def __init__(self, how: Ending) -> None:
        super().__init__(how)
        self.how: Ending = how


@dataclass(frozen=True)
class Form:
    """A form of request for the prediction of a row, and the function that reads the prediction from the answer."""

    request: bytes
    row: list[float]
    read: Callable[[bytes], list[float]]


class Truth:
    """The predictions of each version, computed here from its file."""

    def __init__(self, read_version: Callable[[int], Version]) -> None:
        self._read = read_version
        self._models: dict[int, LinearModel] = {}
        self._seen: set[tuple[int, int, bytes]] = set()  # checked answers (form, version, body), because they repeat

    @classmethod
    def of_folder(cls, models: Path, model: str = "crop-yield") -> Self:
        """Read all versions in a models folder that are there now; later changes of their files have no effect."""
        folder = models / model
        truth = cls(lambda number: read(folder / f"{number:06d}.safetensors"))
        for path in folder.glob("*.safetensors"):
            truth._of(int(path.stem))
        return truth

    def check(self, number: int, head: bytes, body: bytes) -> int:
        """Return the version that the answer names. Raises Wrong if that version predicts something else."""
        stated = _VERSION.search(head) or _VERSION.search(body)
        if stated is None:
            raise Wrong(f"no version named: {body[:300].decode(errors='replace')}")
        version = int(stated[1] or stated[2])
        if (number, version, body) not in self._seen:
            form = FORMS[number]
            model = self._of(version)
            expected = model.coef @ form.row + model.intercept
            found = form.read(body)
            if not np.allclose(found, expected, rtol=TOLERANCE, atol=0):
                raise Wrong(f"mislabelled: version {version} predicts {expected}, not {found}")
            self._seen.add((number, version, body))
        return version

    def _of(self, version: int) -> LinearModel:
        if version not in self._models:
            try:
                self._models[version] = self._read(version).model
            except (LinserveError, FileNotFoundError, BlobNotFound) as error:
                raise Wrong(f"an answer names version {version}, which is not intact: {error}") from None
        return self._models[version]


def http_request(content: Any, path: str = "/predict", kind: str = "application/json") -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _forms() -> list[Form]:
    """Return the forms in the order of their use. Most take the fast path."""
    names = ("temp", "rainfall", "humidity")
    row = ROWS[0]
    as_object = dict(zip(names, row, strict=True))
    table = f"{','.join(names)}\n{','.join(map(str, row))}\n".encode()

    def first(body: bytes) -> list[float]:
        prediction = json.loads(body)["predictions"][0]
        return [prediction["apples"], prediction["oranges"]] if isinstance(prediction, dict) else list(prediction)

    def second_line(body: bytes) -> list[float]:
        return [float(word) for word in body.splitlines()[1].split(b",")]

    return [
        *(Form(http_request({"instances": [row]}), row, first) for row in ROWS),
        Form(http_request({"instances": [as_object]}), row, first),
        Form(http_request({"instances": [as_object], "interval": 0.9, "explain": True}), row, first),
        *(Form(http_request({"instances": [row]}), row, first) for row in ROWS),
        Form(http_request(table, kind="text/csv"), row, second_line),
    ]


FORMS = _forms()


class Line:
    """Sends the forms of requests in turn. Opens a new connection when the last one has ended."""

    def __init__(self, port: int, truth: Truth) -> None:
        self._address = ("127.0.0.1", port)
        self._truth = truth
        self._socket: socket.socket | None = None
        self._answered = False  # on this connection
        self._form = 0

    def ask(self) -> None:
        """Send a request. Raises Ended."""
        self._form = (self._form + 1) % len(FORMS)
        if self._socket is None:
            try:
                self._socket = socket.create_connection(self._address, ANSWER_SECONDS)
            except OSError:
                raise Ended("refused") from None
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._answered = False
        self._exchange(lambda line: line.sendall(FORMS[self._form].request))

    def hear(self) -> int:
        """Read the answer and return its version. Raises Wrong or Ended."""
        head, body = self._exchange(receive)
        self._answered = True
        if _CLOSE.search(head):
            self.close()
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Wrong(f"answered {head.splitlines()[0].decode()}: {body[:300].decode(errors='replace')}")
        return self._truth.check(self._form, head, body)

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
    """Return head and body of one answer. Raises ConnectionResetError if it is cut off."""
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
