"""A TCP proxy in front of a service that breaks connections at chosen points, in the order of the connections."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

# refuse: close at once. cut: pass on the beginning of the request only. swallow: close when the response comes.
# half: close after a part of the response.
Break = Literal["refuse", "cut", "swallow", "half"]

CUT_BYTES = 400  # Bytes of a request, or of a response, that pass before the line breaks.
_CHUNK = 1 << 16


class BreakingLine:
    """Connections break as `breaks` says, and those after them do not."""

    def __init__(self, url: str, *breaks: Break) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        self._breaks = list(breaks)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @staticmethod
    def _run(work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                broken = self._breaks.pop(0) if self._breaks else None
                self._run(lambda client=client, broken=broken: self._serve(client, broken))  # type: ignore[misc]

    def _serve(self, client: socket.socket, broken: Break | None) -> None:
        if broken == "refuse":
            client.close()
            return
        service = socket.create_connection(self._upstream)
        with client, service, contextlib.suppress(OSError):
            self._run(lambda: self._copy(client, service, CUT_BYTES if broken == "cut" else None))
            limit = {"swallow": 0, "half": CUT_BYTES}.get(broken or "")
            self._copy(service, client, limit)
            for end in (client, service):
                end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket, limit: int | None) -> None:
        """Copy until the end, or until `limit` bytes have passed and there are more. Then close the target."""
        passed = 0
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                part = chunk if limit is None else chunk[: limit - passed]
                target.sendall(part)
                passed += len(part)
                if len(part) < len(chunk):
                    source.shutdown(socket.SHUT_RDWR)
                    break
            target.shutdown(socket.SHUT_RDWR)
