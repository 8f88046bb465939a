"""A proxy that serves a service below a path prefix, removes the prefix, and names it in X-Forwarded-Prefix."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@contextlib.contextmanager
def stripping_proxy(url: str, prefix: str) -> Iterator[str]:
    """Run the proxy in front of the service at `url`. Yield its address, with the prefix."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            path = self.path.removeprefix(prefix) if self.path.startswith(f"{prefix}/") else None
            if path is None:
                self._respond(404, [], b"")
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            headers |= {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "http", "X-Forwarded-Prefix": prefix}
            response = client.request(self.command, f"{url}{path}", headers=headers, content=body)
            kept = [(name, value) for name, value in response.headers.multi_items() if name not in HOP_BY_HOP]
            self._respond(response.status_code, kept, b"" if self.command == "HEAD" else response.content)

        do_GET = do_POST = do_HEAD = do_DELETE = do_PUT = _forward  # noqa: N815 - names of http.server

        def _respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server
            """Write no log."""

    with httpx.Client(timeout=60, headers={"accept-encoding": "identity"}) as client:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
