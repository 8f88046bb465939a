"""A local server of S3 buckets, and a proxy before it that fails as networks and buckets do."""

import atexit
import contextlib
import functools
import http.client
import io
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, TypeAlias

import httpx
from ports import hold_port

ACCESS_KEY, SECRET_KEY = "AKIALINSERVETEST", "secret-that-no-log-may-contain"  # pragma: allowlist secret
HOP_HEADERS = {"connection", "transfer-encoding", "content-length", "date", "server"}


def serve() -> None:
    """Serve S3's API, and print the port.

    Writes are handled one at a time, because moto checks a condition and writes in two steps.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    moto = DomainDispatcherApplication(create_backend_app)
    writing = threading.Lock()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        # A client that sends only a part of its body holds up nobody else.
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        with contextlib.nullcontext() if environ["REQUEST_METHOD"] in {"GET", "HEAD"} else writing:
            return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    server.serve_forever()


@functools.cache
def endpoint() -> str:
    """Return the URL of a server of S3's API. It starts with the first call, and ends with this process."""
    command = [sys.executable, "-W", "ignore", __file__]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    atexit.register(server.wait)
    atexit.register(server.kill)
    assert server.stdout is not None
    with server.stdout:
        port = server.stdout.readline().decode().strip()
    assert port, "moto did not start"
    return f"http://127.0.0.1:{port}"


def environment(url: str | None = None) -> dict[str, str]:
    """Return the variables for clients of the server, or of a proxy before it."""
    return {
        "AWS_ENDPOINT_URL": url or endpoint(),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
    }


def bucket_url() -> str:
    """Return the URL of a new bucket. This process and those that it starts later have the endpoint and the keys."""
    name = f"bucket-{uuid.uuid4().hex}"
    httpx.put(f"{endpoint()}/{name}", timeout=60).raise_for_status()
    os.environ.update(environment())
    return f"s3://{name}/linserve"


Fault: TypeAlias = Literal["ok", "throttle", "hang", "refuse", "lose the answer"]


class FaultyProxy:
    """An HTTP proxy before the server of buckets. `fault` is what happens to requests from now on.

    ok                forwards a request
    throttle          answers 503
    hang              does not answer
    refuse            closes the connection, and accepts none
    lose the answer   forwards a request, and closes the connection without an answer
    """

    def __init__(self) -> None:
        self._fault: Fault = "ok"
        self._remaining = 0
        self._changed = threading.Condition()
        self._server: ThreadingHTTPServer | None = None
        self.requests: list[str] = []  # the methods and paths of all requests, as they came
        self.sent = 0  # bytes of content in all responses
        self.port = hold_port(self)  # also while it refuses connections
        self.url = f"http://127.0.0.1:{self.port}"
        self._listen()

    def set(self, fault: Fault, *, times: int = sys.maxsize) -> None:
        """Let the next `times` requests meet this fault."""
        with self._changed:
            self._fault, self._remaining = fault, times
            self._changed.notify_all()
        if fault == "refuse":
            self._close()
        elif self._server is None:
            self._listen()

    def answer(self, status: int, body: bytes) -> None:
        """Answer all requests with this status and body from now on."""
        self._answer = (status, body)
        self.set("throttle")

    def next_fault(self) -> Fault:
        with self._changed:
            if self._fault == "ok" or not self._remaining:
                return "ok"
            self._remaining -= 1
            return self._fault

    def wait_while_it_hangs(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._fault != "hang")

    def stop(self) -> None:
        self.set("ok")
        self._close()

    def _listen(self) -> None:
        self._answer = (503, b"<Error><Code>SlowDown</Code></Error>")
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", self.port), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def _close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """Do not print that a client closed its connection, because it was killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.proxy.requests.append(f"{self.command} {self.path}")
        fault = self.proxy.next_fault()
        if fault == "throttle":
            status, content = self.proxy._answer
            self._respond(status, [], content)
        elif fault in {"ok", "lose the answer"}:
            self._forward(body, answer=fault == "ok")
        else:
            if fault == "hang":
                self.proxy.wait_while_it_hangs()
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any  # noqa: N815 - http.server's names

    def _forward(self, body: bytes, *, answer: bool) -> None:
        connection = http.client.HTTPConnection(endpoint().removeprefix("http://"), timeout=30)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            content = response.read()
            if answer:
                length = response.headers.get("Content-Length")
                self._respond(response.status, response.getheaders(), content, length)
            else:
                self.close_connection = True

    def _respond(self, status: int, headers: list[tuple[str, str]], content: bytes, length: str | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP_HEADERS:
                self.send_header(name, value)
        if status != http.HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.proxy.sent += len(content)
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Do not print."""


@contextlib.contextmanager
def faulty_proxy() -> Iterator[FaultyProxy]:
    """Yield a proxy before the server of buckets, which forwards until it is told otherwise."""
    proxy = FaultyProxy()
    try:
        yield proxy
    finally:
        proxy.stop()


if __name__ == "__main__":
    serve()
