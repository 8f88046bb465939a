"""What comes over a connection that is not a request, or too much of one, or too slow."""

import contextlib
import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httptools
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service import Service, wait_for

BODY = b'{"instances": [[75, 63, 44]]}'
HEAD = b"POST /predict HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
GOOD = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
OPTIONS = b'{"instances": [[75, 63, 44]], "interval": 0.9}'
UNUSUAL = HEAD + b"content-length: %d\r\n\r\n" % len(OPTIONS) + OPTIONS
HEADERS = b"\r\nx: " + b"x" * 300
PROBE = b"GET /health/live HTTP/1.1\r\nhost: here\r\n\r\n"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of little patience."""
    folder = tmp_path_factory.mktemp("strict")
    running = Service(
        folder,
        header_timeout="1",
        transfer_grace="1",
        max_connections="20",
        trainer_mode="external",
        environment={"UVICORN_TIMEOUT_KEEP_ALIVE": "1"},
    ).start()
    yield running
    running.stop()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        return json.loads(self.body)


class _Parsed:
    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


@contextlib.contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    host, _, port = service.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        yield connection


def answer_on(connection: socket.socket) -> Answer | None:
    """The next answer; None where the connection is closed without one."""
    parsed = _Parsed()
    parser = httptools.HttpResponseParser(parsed)
    while not parsed.is_complete:
        try:
            received = connection.recv(1 << 16)
        except ConnectionResetError:
            return None
        if not received:
            return None
        parser.feed_data(received)
    return Answer(parser.get_status_code(), parsed.headers, parsed.body)


def ask(service: Service, *pieces: bytes) -> Answer | None:
    with connected(service) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return answer_on(connection)


def received_to_the_end(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(1 << 20):
        received += part
    return received


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


CHUNKED = HEAD + b"transfer-encoding: chunked\r\n"
REFUSED = {
    "a length and chunks": (400, CHUNKED + b"content-length: 5\r\n\r\n0\r\n\r\n"),
    "an upgrade of a request with a body": (400, GOOD.replace(b"here", b"here\r\nconnection: upgrade\r\nupgrade: h2c")),
    "two lengths": (400, HEAD + b"content-length: 29\r\ncontent-length: 2\r\n\r\n" + BODY),
    "a negative length": (400, HEAD + b"content-length: -1\r\n\r\n"),
    "a length that is no number": (400, HEAD + b"content-length: 0x1d\r\n\r\n" + BODY),
    "a length beyond 64 bits": (400, HEAD + b"content-length: 99999999999999999999999\r\n\r\n"),
    "an encoding of transfer before chunks": (400, HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "two encodings of transfer": (400, HEAD + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"),
    "an encoding of transfer that is not the last": (400, HEAD + b"transfer-encoding: chunked, gzip\r\n\r\n"),
    "a chunk's length that is no number": (400, CHUNKED + b"\r\nx\r\n{}\r\n"),
    "no host": (400, GOOD.replace(b"host: here\r\n", b"")),
    "two hosts": (400, GOOD.replace(b"host: here\r\n", b"host: here\r\nhost: there\r\n")),
    "an empty host": (400, GOOD.replace(b"host: here", b"host:")),
    "a host with a path": (400, GOOD.replace(b"host: here", b"host: here/predict")),
    "a host with a user": (400, GOOD.replace(b"host: here", b"host: me@here")),
    "a host with a space": (400, GOOD.replace(b"host: here", b"host: he re")),
    "a space before a colon": (400, GOOD.replace(b"host: here", b"host : here")),
    "a folded header": (400, GOOD.replace(b"host: here", b"host: here\r\n and there")),
    "a zero byte in a header": (400, GOOD.replace(b"here", b"he\0re")),
    "lines that end without a carriage return": (400, GOOD.replace(b"\r\n", b"\n")),
    "no protocol": (400, b"GET /\r\n\r\n"),
    "another protocol": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a version that is none": (400, PROBE.replace(b"1.1", b"9.9")),
    "a method that is none": (400, PROBE.replace(b"GET", b"TRAIN")),
    "a tunnel": (400, b"CONNECT here:80 HTTP/1.1\r\nhost: here\r\n\r\n"),
    "a path that is not ASCII": (400, PROBE.replace(b"live", b"l\xc3\xb6ve")),
    "a long path": (414, PROBE.replace(b"live", b"x" * 9000)),
    "a long query": (414, PROBE.replace(b"live", b"live?x=" + b"x" * 9000)),
    "a large header": (431, PROBE.replace(b"here", b"here\r\nx: " + b"x" * 40_000)),
    "a large header of a prediction": (431, GOOD.replace(b"here", b"here\r\nx: " + b"x" * 40_000)),
    "many headers": (431, PROBE.replace(b"here", b"here" + b"\r\nx: y" * 101)),
    "headers without end": (431, PROBE.replace(b"here\r\n\r\n", b"here\r\nx: " + b"x" * 100_000)),
    "a path without end": (414, b"GET /" + b"x" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_proper_request_is_refused_with_a_problem_and_the_connection_closed(
    service: Service, name: str
) -> None:
    status, content = REFUSED[name]
    with connected(service) as connection:
        connection.sendall(content)
        answer = answer_on(connection)
        assert answer is not None
        assert answer.status == status
        assert answer.problem["status"] == status
        assert answer.problem["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["connection"] == "close"
        assert len(answer.body) < 500
        assert is_closed(connection)


def test_a_request_that_is_proper_is_answered_however_it_is_cut(service: Service) -> None:
    expected = ask(service, GOOD)
    assert expected is not None
    assert expected.status == 200
    for at in range(1, len(GOOD)):
        with connected(service) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(GOOD[:at])
            connection.sendall(GOOD[at:])
            answer = answer_on(connection)
            assert answer is not None
            assert (answer.status, answer.body) == (200, expected.body)


LARGE_HEADS = [PROBE.replace(b"here", b"here\r\nx: " + b"x" * 32_000), PROBE.replace(b"here", b"here" + HEADERS * 99)]


@pytest.mark.parametrize("head", LARGE_HEADS, ids=["one long header", "many headers"])
def test_headers_within_the_limits_are_taken_however_they_are_cut(service: Service, head: bytes) -> None:
    whole, halves = ask(service, head), ask(service, head[:16_000], head[16_000:])
    assert whole is not None
    assert halves is not None
    assert (whole.status, halves.status) == (200, 200)


@pytest.mark.parametrize("request_", [PROBE, GOOD, UNUSUAL], ids=["a probe", "a prediction", "one with options"])
def test_a_caller_that_says_nothing_more_is_answered(service: Service, request_: bytes) -> None:
    with connected(service) as connection:
        connection.sendall(request_ * 2 + HEAD)  # the last of which will never be whole
        connection.shutdown(socket.SHUT_WR)
        received = received_to_the_end(connection)
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_a_caller_that_says_nothing_more_in_the_middle_of_a_request_is_let_go(service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(UNUSUAL[:-5])
        connection.shutdown(socket.SHUT_WR)
        assert received_to_the_end(connection) == b""


PIECES = [GOOD, UNUSUAL, PROBE, CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)]


@st.composite
def damaged(draw: st.DrawFn) -> list[bytes]:
    """Requests one after another, with some bytes changed, in pieces."""
    content = bytearray(b"".join(draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3))))
    places = st.integers(0, len(content) - 1)
    for at, byte in draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=4)):
        content[at] = byte
    cuts = sorted({0, len(content), *draw(st.lists(places, max_size=3))})
    return [bytes(content[start:end]) for start, end in itertools.pairwise(cuts)]


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=damaged(), takes_answers=st.booleans())
def test_whatever_bytes_come_are_answered_with_http_and_are_no_fault_of_ours(
    service: Service, pieces: list[bytes], *, takes_answers: bool
) -> None:
    with connected(service) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # it may have been refused already
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            if takes_answers:
                received = received_to_the_end(connection)
                assert received[:9] in (b"HTTP/1.1 ", b"")
                assert not re.search(rb"HTTP/1\.1 5", received)
    assert "request failed" not in service.log.read_text()


def test_trailers_are_no_headers(service: Service) -> None:
    smuggled = b"%x\r\n%b\r\n0\r\nx-request-id: smuggled\r\ncontent-type: text/csv\r\n\r\n" % (len(BODY), BODY)
    for accept in (b"*/*", b"application/json;q=0.5"):  # ordinary, and not
        answer = ask(service, CHUNKED + b"accept: %b\r\n\r\n" % accept + smuggled)
        assert answer is not None
        assert answer.status == 200
        assert answer.headers["x-request-id"] != "smuggled"


def test_an_offer_to_upgrade_is_passed_over(service: Service) -> None:
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    with connected(service) as connection:
        connection.sendall(PROBE.replace(b"host: here\r\n", b"host: here\r\n" + upgrade))
        answer = answer_on(connection)
        assert answer is not None
        assert answer.status == 200
        assert is_closed(connection)


def test_an_answer_under_way_is_not_cut_by_what_comes_after_it(service: Service) -> None:
    long = json.dumps({"instances": [[75, 63, 44]] * 5000}).encode()
    request = HEAD + b"content-length: %d\r\n\r\n" % len(long) + long
    with connected(service) as connection:
        connection.sendall(request + b"nonsense\r\n\r\n")
        received = received_to_the_end(connection)
    head, _, rest = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert length is not None
    assert len(json.loads(rest[: int(length[1])])["predictions"]) == 5000
    assert rest[int(length[1]) :].startswith(b"HTTP/1.1 400 ")


def test_a_million_chunks_of_one_byte_take_no_memory(service: Service) -> None:
    def in_chunks(body: bytes) -> bytes:
        return CHUNKED + b"\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"

    body = b" " * (1_000_000 - len(BODY)) + BODY
    ask(service, HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    service.client.get("/jobs")  # now all is loaded that ever will be
    with service.growing_by_less_than(8 << 20):
        answer = ask(service, in_chunks(body))
    assert answer is not None
    assert answer.status == 200


def test_a_silent_connection_is_closed(strict: Service) -> None:
    with connected(strict) as connection:
        assert is_closed(connection)


@pytest.mark.parametrize("part", [GOOD[:40], HEAD])
def test_headers_that_do_not_end_in_time_are_refused(strict: Service, part: bytes) -> None:
    answer = ask(strict, part)
    assert answer is not None
    assert answer.status == 408
    assert "headers" in answer.problem["detail"]


@pytest.mark.parametrize(
    "request_line", [b"POST /predict", b"POST /predict?interval=0.5", b"POST /train", b"PUT /models/crop-yield/current"]
)
def test_a_body_that_does_not_end_in_time_is_refused(strict: Service, request_line: bytes) -> None:
    head = HEAD.replace(b"POST /predict", request_line).replace(b"here", b"localhost")
    answer = ask(strict, head + b"content-length: 1000\r\n\r\n" + BODY)
    assert answer is not None
    assert answer.status == 408
    assert "body" in answer.problem["detail"]


def test_a_caller_gains_no_time_by_sending_a_byte_now_and_then(strict: Service) -> None:
    with connected(strict) as connection:
        started = time.monotonic()
        connection.settimeout(0.1)
        for byte in HEAD:
            connection.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                answer = answer_on(connection)
                break
        else:
            pytest.fail("It was never cut.")
        assert answer is not None
        assert answer.status == 408
        assert time.monotonic() - started < 5  # and all of it would take over 7 s


def test_a_connection_whose_answer_came_before_the_body_does_not_stay_open_for_ever(strict: Service) -> None:
    with connected(strict) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n\r\n")
        answer = answer_on(connection)
        assert answer is not None
        assert answer.status == httpx.codes.NOT_FOUND
        connection.sendall(b"late")
        assert connection.recv(1) == b""


def test_long_bodies_that_do_not_end_leave_room_for_others(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_mode="external", worker_memory=str(256 << 20)).start()
    longest = 16 << 20
    long = json.dumps({"instances": [[75, 63, 44]] * 10_000}).encode()

    def status() -> int:
        return service.client.post("/predict", content=long, headers={"content-type": "application/json"}).status_code

    try:
        with contextlib.ExitStack() as held:
            for size in [longest - 1] * 11 + [10 << 20]:  # of 192 MiB, too few are left for the next one
                connection = held.enter_context(connected(service))
                connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % longest + b" " * size)
            wait_for(lambda: unread_bytes(service) == 0)
            assert status() == httpx.codes.SERVICE_UNAVAILABLE
            assert service.predict([75, 63, 44])["version"] == 1  # a short one, and one that does not take the lane:
            assert service.predict([75, 63, 44], interval=0.9)["version"] == 1
        wait_for(lambda: status() == httpx.codes.OK)
    finally:
        service.stop()


def test_much_of_a_body_at_once_buys_no_time_for_the_rest(strict: Service) -> None:
    started = time.monotonic()
    with connected(strict) as connection:
        connection.sendall(HEAD + b"content-length: 10000000\r\n\r\n" + b" " * 9_000_000)
        answer = answer_on(connection)
    assert answer is not None
    assert answer.status == 408
    assert time.monotonic() - started < 10  # and at the least rate all of it would have had 900 s


def test_a_caller_that_asks_before_it_sends_is_told_to_close(strict: Service) -> None:
    expecting = b"expect: 100-continue\r\ncontent-length: 4\r\n\r\n"
    with connected(strict) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nhost: here\r\n" + expecting)
        answer = answer_on(connection)
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (404, "close")
        assert is_closed(connection)


def test_an_answer_that_nobody_takes_is_given_up(strict: Service) -> None:
    rows = json.dumps({"instances": [[75, 63, 44]] * 100_000}).encode()
    request = HEAD + b"content-length: %d\r\n\r\n" % len(rows) + rows
    with connected(strict) as connection:
        for _ in range(4):
            connection.sendall(request)
        deadline = time.monotonic() + 20
        # The kernel's buffers hold some of it; the rest is dropped, which shows in the end of the connection.
        while connections_of(strict) > 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def connections_of(service: Service) -> int:
    """How many connections the service has open, by the kernel's account."""
    sockets = {columns[9] for columns in sockets_of(service) if columns[3] == "01"}  # established
    links = []
    for descriptor in Path(f"/proc/{service.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(descriptor.readlink()))
    return sum(f"socket:[{inode}]" in links for inode in sockets)


def unread_bytes(service: Service) -> int:
    """How many bytes wait on their way to the service and from it, by the kernel's account."""
    return sum(int(count, 16) for columns in sockets_of(service) for count in columns[4].split(":"))


def sockets_of(service: Service) -> Iterator[list[str]]:
    """Both ends of the service's connections, as columns of /proc/net/tcp."""
    port = f":{int(service.url.rpartition(':')[2]):04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1].endswith(port) or columns[2].endswith(port):
            yield columns


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for few."""
    running = Service(tmp_path_factory.mktemp("small"), max_connections="20", trainer_mode="external").start()
    yield running
    running.stop()


def test_beyond_the_most_connections_requests_are_refused_and_probes_answered(small: Service) -> None:
    small.client.close()
    with contextlib.ExitStack() as flood:
        held = [flood.enter_context(connected(small)) for _ in range(20)]
        for connection in held:
            connection.sendall(PROBE)
            assert answer_on(connection) is not None
        answer = ask(small, GOOD)
        assert answer is not None
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.problem["type"].endswith("too-many-connections")
        probe = ask(small, PROBE)
        assert probe is not None
        assert probe.status == 200
        held[0].sendall(GOOD)  # who was there before is served
        known = answer_on(held[0])
        assert known is not None
        assert known.status == 200
    wait_for(lambda: connections_of(small) == 0)
    again = ask(small, GOOD)
    assert again is not None
    assert again.status == 200


def test_however_many_connections_there_are_a_new_one_is_answered(small: Service) -> None:
    small.client.close()
    with contextlib.ExitStack() as flood:
        silent = [flood.enter_context(connected(small)) for _ in range(400)]
        probe = ask(small, PROBE)
        assert probe is not None
        assert probe.status == 200
        refused = answer_on(silent[20])  # the first beyond the limit
        assert refused is None or refused.status == 503
    wait_for(lambda: connections_of(small) == 0)


def test_refusals_are_logged_and_counted(service: Service) -> None:
    answer = ask(service, b"nonsense\r\n\r\n")
    assert answer is not None
    assert answer.headers["x-request-id"] in service.log.read_text()
    metrics = httpx.get(f"{service.url}/metrics").text
    assert 'linserve_requests_total{method="other",route="none",status="400"}' in metrics


def test_requests_without_end_that_come_at_once_wait_outside(service: Service) -> None:
    service.client.get("/jobs")
    with connected(service) as connection:
        connection.settimeout(0.5)
        with service.growing_by_less_than(20 << 20), contextlib.suppress(TimeoutError):
            for _ in range(2000):  # 100 MB, and nobody reads an answer
                connection.sendall(PROBE * 1000)
        assert service.client.get("/health/live").status_code == httpx.codes.OK


def test_all_of_many_requests_that_come_at_once_are_answered(service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(PROBE * 3000 + PROBE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        received = received_to_the_end(connection)
    assert received.count(b"HTTP/1.1 200 OK") == 3001
    assert received.count(b'{"status":"live"}') == 3001


@pytest.mark.parametrize("count", [1, 2, 5])
def test_answers_come_before_the_refusal_of_what_came_after_their_requests(service: Service, count: int) -> None:
    broken = CHUNKED + b"\r\nno length\r\n"
    for last in (b"nonsense\r\n\r\n", broken):
        with connected(service) as connection:
            connection.sendall(PROBE * count + GOOD + last)
            received = received_to_the_end(connection)
        assert received.count(b"HTTP/1.1 200 OK") == count + 1
        assert received.count(b"HTTP/1.1 400 Bad Request") == 1
        assert received.rindex(b"200 OK") < received.rindex(b"400 Bad Request")


@pytest.mark.parametrize("part", [b"0\r\nx: " + b"x" * 200_000, b"1;" + b"x" * 200_000])
def test_trailers_and_extensions_without_end_are_refused(service: Service, part: bytes) -> None:
    answer = ask(service, CHUNKED + b"\r\n" + part)
    assert answer is not None
    assert answer.status == 431


def test_nothing_is_upgraded_to_a_websocket(service: Service) -> None:
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    answer = ask(service, PROBE.replace(b"host: here\r\n", b"host: here\r\n" + upgrade))
    assert answer is not None
    assert answer.status == 200
