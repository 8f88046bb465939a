"""Responses that are not from Linserve, and those that come late: an error of the client, and no wrong result."""

import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from service import wait_for

from linserve import Client, ConnectionFailed, Retries, ServiceError
from linserve._plans.training import follow
from linserve._steps import Answer, Pause

PAGE, DOCUMENT = b"<h1>It works!</h1>", b'{"status": "ok"}'


class Page(BaseHTTPRequestHandler):
    """Answers every request with 200 and a page, as the application of another team does."""

    protocol_version = "HTTP/1.1"
    content = PAGE

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that http.server wants

    def log_message(self, *_: object) -> None: ...


class Document(Page):
    """Answers every request with 200 and JSON."""

    content = DOCUMENT


class Silent(BaseHTTPRequestHandler):
    """Reads requests, and answers none until the test ends."""

    requests: list[str]
    over: threading.Event

    def do_POST(self) -> None:
        self.requests.append(self.path)
        self.over.wait(30)

    def log_message(self, *_: object) -> None: ...


def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    yield from serve(Page)


@pytest.fixture(scope="module")
def document() -> Iterator[str]:
    yield from serve(Document)


@pytest.fixture
def silent() -> Iterator[str]:
    Silent.requests, Silent.over = [], threading.Event()
    running = serve(Silent)
    yield next(running)
    Silent.over.set()
    next(running, None)


@pytest.mark.parametrize(
    "work",
    [
        lambda client: client.models(),
        lambda client: client.versions("rents"),
        lambda client: client.predict([[1]]),
        lambda client: client.predict(pd.DataFrame({"a": [1]})),
        lambda client: client.predict(b"a\n1\n"),
        lambda client: client.export("rents", 1),
        lambda client: client.train([{"a": 1, "y": 2}], targets="y"),
        lambda client: client.inspect([{"a": 1, "y": 2}], targets="y"),
        lambda client: client.evaluate([{"a": 1, "y": 2}], "rents"),
        lambda client: client.jobs(),
        lambda client: client.promote("rents", 1),
        lambda client: client.rollback("rents"),
        lambda client: client.import_model({"features": ["a"]}, "rents"),
        lambda client: client.delete("rents"),
        lambda client: client.delete("rents", 1),
    ],
)
def test_a_success_of_another_server_is_an_error(page: str, document: str, work: Callable[[Client], Any]) -> None:
    for url in (page, document):
        with Client(url) as client, pytest.raises(ServiceError, match="status 200 and is not from Linserve"):
            work(client)


def test_a_response_that_is_not_json_is_an_error_of_the_client(page: str) -> None:
    with Client(page) as client, pytest.raises(ServiceError, match="not from Linserve"):
        client.request("GET", "/models")


def test_a_page_of_another_server_replaces_no_file(page: str, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old")
    stream = io.BytesIO()
    for output in (tmp_path / "out.csv", stream):
        with Client(page) as client, pytest.raises(ServiceError, match="not from Linserve"):
            client.predict(b"a\n1\n", output=output)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out.csv": "old"}
    assert stream.getvalue() == b""


@pytest.mark.parametrize(("rows", "attempts"), [(b"a\n" + b"1\n" * 600_000, 1), (b"a\n1\n", 3)])
def test_a_large_file_is_sent_once_if_the_response_does_not_come(silent: str, rows: bytes, attempts: int) -> None:
    with (
        Client(silent, timeout=0.05, retries=Retries(2, base=0)) as client,
        pytest.raises(ConnectionFailed, match="did not respond") as caught,
    ):
        client.predict(rows)

    assert caught.value.timed_out
    wait_for(lambda: len(Silent.requests) >= attempts)  # Its threads may be later than the client.
    assert Silent.requests == ["/predict"] * attempts


def test_a_wait_pauses_if_a_proxy_sends_no_events() -> None:
    job = {"id": "1", "status": "running", "finished_at": None}
    changes: list[dict[str, Any]] = []
    plan = follow(Retries(), job, changes.append, None)
    step, pauses = next(plan), 0
    with contextlib.suppress(StopIteration):
        while pauses < 100:
            if isinstance(step, Pause):
                pauses += 1
                step = plan.send(None)
            else:
                found = job | {"finished_at": "now"} if pauses == 3 else job
                step = plan.send(Answer(200, {}, b"" if "events" in step.path else json.dumps(found).encode()))

    assert pauses == 3
    assert [change["finished_at"] for change in changes] == ["now"]
