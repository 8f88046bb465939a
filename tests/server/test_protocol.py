"""Malformed, oversized and unusual requests."""

import contextlib
import itertools
import json
import re
import socket
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_http import (
    BODY,
    CHUNKED,
    GOOD,
    HEAD,
    OPTIONED,
    PROBE,
    connect,
    count_unread_bytes,
    exchange,
    is_closed,
    read_response,
    read_to_end,
)
from service import Service, wait_for

HEADERS = b"\r\nx: " + b"x" * 300


MALFORMED = {
    "a length and chunks": (400, CHUNKED + b"content-length: 5\r\n\r\n0\r\n\r\n"),
    "an upgrade of a request with a body": (400, GOOD.replace(b"here", b"here\r\nconnection: upgrade\r\nupgrade: h2c")),
    "two lengths": (400, HEAD + b"content-length: 29\r\ncontent-length: 2\r\n\r\n" + BODY),
    "a negative length": (400, HEAD + b"content-length: -1\r\n\r\n"),
    "a length that is not a number": (400, HEAD + b"content-length: 0x1d\r\n\r\n" + BODY),
    "a length beyond 64 bits": (400, HEAD + b"content-length: 99999999999999999999999\r\n\r\n"),
    "an encoding of transfer before chunks": (400, HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "two encodings of transfer": (400, HEAD + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"),
    "an encoding of transfer that is not the last": (400, HEAD + b"transfer-encoding: chunked, gzip\r\n\r\n"),
    "a chunk's length that is not a number": (400, CHUNKED + b"\r\nx\r\n{}\r\n"),
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
    "an unknown version": (400, PROBE.replace(b"1.1", b"9.9")),
    "an unknown method": (400, PROBE.replace(b"GET", b"TRAIN")),
    "a tunnel": (400, b"CONNECT here:80 HTTP/1.1\r\nhost: here\r\n\r\n"),
    "a path that is not ASCII": (400, PROBE.replace(b"live", b"l\xc3\xb6ve")),
    "a long path": (414, PROBE.replace(b"live", b"x" * 9000)),
    "a long query": (414, PROBE.replace(b"live", b"live?x=" + b"x" * 9000)),
    "a large header": (431, PROBE.replace(b"here", b"here\r\nx: " + b"x" * 40_000)),
    "a large header of a prediction": (431, GOOD.replace(b"here", b"here\r\nx: " + b"x" * 40_000)),
    "many headers": (431, PROBE.replace(b"here", b"here" + b"\r\nx: y" * 101)),
    "endless headers": (431, PROBE.replace(b"here\r\n\r\n", b"here\r\nx: " + b"x" * 100_000)),
    "an endless path": (414, b"GET /" + b"x" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_request_gets_a_problem_and_the_connection_closes(service: Service, name: str) -> None:
    status, content = MALFORMED[name]
    with connect(service) as connection:
        connection.sendall(content)
        response = read_response(connection)
        assert response is not None
        assert response.status == status
        assert response.problem["status"] == status
        assert response.problem["request_id"] == response.headers["x-request-id"]
        assert response.headers["connection"] == "close"
        assert len(response.body) < 500
        assert is_closed(connection)


@pytest.mark.parametrize(
    ("target", "place"),
    [
        (b"/v2/models/crop-yield/infer?x=1", ("error",)),
        (b"/v1/models/nothing:predict", ("error",)),
        (b"/invocations", ("message",)),
        (b"/vertex/predict", ("error", "message")),
        (b"/predict", ("detail",)),
    ],
)
def test_a_rejection_has_the_form_of_errors_on_its_path(service: Service, target: bytes, place: tuple[str]) -> None:
    response = exchange(service, MALFORMED["a large header of a prediction"][1].replace(b"/predict", target))
    assert response is not None
    assert response.status == 431
    found = json.loads(response.body)
    for name in place:
        found = found[name]
    assert found.startswith("A request has at most 100 headers")
    assert response.headers["x-request-id"]


def test_request_split_at_any_byte_gets_the_same_response(service: Service) -> None:
    expected = exchange(service, GOOD)
    assert expected is not None
    assert expected.status == 200
    for at in range(1, len(GOOD)):
        with connect(service) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(GOOD[:at])
            connection.sendall(GOOD[at:])
            response = read_response(connection)
            assert response is not None
            assert (response.status, response.body) == (200, expected.body)


LARGE_HEADS = [PROBE.replace(b"here", b"here\r\nx: " + b"x" * 32_000), PROBE.replace(b"here", b"here" + HEADERS * 99)]


@pytest.mark.parametrize("head", LARGE_HEADS, ids=["one long header", "many headers"])
def test_headers_within_the_limits_are_accepted_whole_and_split(service: Service, head: bytes) -> None:
    whole, halves = exchange(service, head), exchange(service, head[:16_000], head[16_000:])
    assert whole is not None
    assert halves is not None
    assert (whole.status, halves.status) == (200, 200)


PIECES = [GOOD, OPTIONED, PROBE, CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)]


@st.composite
def damaged(draw: st.DrawFn) -> list[bytes]:
    """Draw several requests with some bytes changed, in pieces."""
    content = bytearray(b"".join(draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3))))
    places = st.integers(0, len(content) - 1)
    for at, byte in draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=4)):
        content[at] = byte
    cuts = sorted({0, len(content), *draw(st.lists(places, max_size=3))})
    return [bytes(content[start:end]) for start, end in itertools.pairwise(cuts)]


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(pieces=damaged(), takes_answers=st.booleans())
def test_any_bytes_get_an_http_response_without_a_server_error(
    service: Service, pieces: list[bytes], *, takes_answers: bool
) -> None:
    with connect(service) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # It may have been rejected already.
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            if takes_answers:
                received = read_to_end(connection)
                assert received[:9] in (b"HTTP/1.1 ", b"")
                assert not re.search(rb"HTTP/1\.1 5", received)
    service.request_record(service.client.get("/health/live"))  # The bytes sent before have arrived.
    assert "request failed" not in service.log.read_text()


def test_trailers_are_not_taken_for_headers(service: Service) -> None:
    smuggled = b"%x\r\n%b\r\n0\r\nx-request-id: smuggled\r\ncontent-type: text/csv\r\n\r\n" % (len(BODY), BODY)
    for accept in (b"*/*", b"application/json;q=0.5"):  # on the fast path, and not
        response = exchange(service, CHUNKED + b"accept: %b\r\n\r\n" % accept + smuggled)
        assert response is not None
        assert response.status == 200
        assert response.headers["x-request-id"] != "smuggled"


def test_offer_to_upgrade_is_ignored(service: Service) -> None:
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    with connect(service) as connection:
        connection.sendall(PROBE.replace(b"host: here\r\n", b"host: here\r\n" + upgrade))
        response = read_response(connection)
        assert response is not None
        assert response.status == 200
        assert is_closed(connection)


def test_a_million_chunks_of_one_byte_do_not_grow_memory(service: Service) -> None:
    def in_chunks(body: bytes) -> bytes:
        return CHUNKED + b"\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"

    body = b" " * (1_000_000 - len(BODY)) + BODY
    exchange(service, HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    service.client.get("/jobs")  # All modules are loaded now.
    with service.growing_by_less_than(8 << 20):
        response = exchange(service, in_chunks(body))
    assert response is not None
    assert response.status == 200


@pytest.mark.slow
def test_long_incomplete_bodies_leave_memory_for_other_requests(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_mode="external", worker_memory=str(256 << 20), transfer_grace="600").start()
    longest = 16 << 20
    long = json.dumps({"instances": [[75, 63, 44]] * 10_000}).encode()

    def status() -> int:
        return service.client.post("/predict", content=long, headers={"content-type": "application/json"}).status_code

    try:
        with contextlib.ExitStack() as held:
            for size in [longest - 1] * 11 + [10 << 20]:  # The rest of 192 MiB is too small for the next one.
                connection = held.enter_context(connect(service))
                connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % longest + b" " * size)
            wait_for(lambda: count_unread_bytes(service) == 0)
            assert status() == httpx.codes.SERVICE_UNAVAILABLE
            assert service.predict([75, 63, 44])["version"] == 1  # on the fast path, and not:
            assert service.predict([75, 63, 44], interval=0.9)["version"] == 1
        wait_for(lambda: status() == httpx.codes.OK)
    finally:
        service.stop()


def test_rejections_are_logged_and_counted(service: Service) -> None:
    response = exchange(service, b"nonsense\r\n\r\n")
    assert response is not None
    wait_for(lambda: response.headers["x-request-id"] in service.log.read_text())
    metrics = service.client.get("/metrics").text
    assert 'linserve_requests_total{method="other",protocol="",route="none",status="400"}' in metrics


@pytest.mark.parametrize("part", [b"0\r\nx: " + b"x" * 200_000, b"1;" + b"x" * 200_000])
def test_endless_trailers_and_chunk_extensions_get_a_431(service: Service, part: bytes) -> None:
    response = exchange(service, CHUNKED + b"\r\n" + part)
    assert response is not None
    assert response.status == 431


def test_websocket_upgrade_is_ignored(service: Service) -> None:
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    response = exchange(service, PROBE.replace(b"host: here\r\n", b"host: here\r\n" + upgrade))
    assert response is not None
    assert response.status == 200
