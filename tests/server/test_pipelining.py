"""Requests that arrive before the response to the one before them: HTTP pipelining is not supported."""

import contextlib
import json
import re
import socket

import httpx
import pytest
from raw_http import (
    BODY,
    CHUNKED,
    GOOD,
    HALF_CLOSED,
    HEAD,
    OPTIONED,
    PROBE,
    connect,
    count_connections,
    is_closed,
    read_response,
    read_to_end,
)
from service import NOTEBOOK, Service, wait_for
from threaded_service import ThreadedService

START, REST = b'{"instances"', b': [[75, 63, 44]], "explain": true}'
FIRST = {
    "on the fast path": GOOD,
    "in chunks on the fast path": CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    "with options": OPTIONED,
    "in chunks with options": CHUNKED + b"\r\nc\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (START, len(REST), REST),
    "without a body": PROBE,
    "HEAD": PROBE.replace(b"GET", b"HEAD"),
    "rejected by the route": GOOD.replace(b"application/json", b"image/png"),
}  # fmt: skip
SECOND = {
    "the same": b"",
    "a prediction": GOOD,
    "a probe": PROBE,
    "half a request": HEAD,
    "not HTTP": b"nonsense\r\n\r\n",
    "many": (GOOD + PROBE) * 5000,
}


def received(service: Service, content: bytes, *more: bytes) -> bytes:
    """Return everything that the service sends until it closes the connection, without ids and times."""
    with connect(service) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(content)
        for part in more:
            with contextlib.suppress(OSError):  # The service may have closed the connection.
                connection.sendall(part)
        return re.sub(rb"(x-request-id|date): .*\r\n", b"", read_to_end(connection))


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", FIRST)
def test_first_of_several_requests_is_answered_whole_and_the_connection_closed(
    service: Service, first: str, second: str
) -> None:
    request = FIRST[first]
    last = request.replace(b"host: here", b"host: here\r\nconnection: close")
    expected = received(service, last)
    assert expected.startswith(b"HTTP/1.1 415 " if first == "rejected by the route" else b"HTTP/1.1 200 ")

    def headers_and_body(response: bytes) -> tuple[list[bytes], bytes]:
        head, _, body = response.partition(b"\r\n\r\n")
        return sorted(head.split(b"\r\n")), re.sub(rb'"request_id":"\w+"', b"", body)

    both = received(service, request + (SECOND[second] or request))
    assert headers_and_body(both) == headers_and_body(expected)
    assert b"\r\nconnection: close\r\n" in both


def test_requests_in_their_turn_keep_the_connection(service: Service) -> None:
    with connect(service) as connection:
        for request in FIRST.values():
            if not request.startswith(b"HEAD"):  # The parser would wait for the body.
                connection.sendall(request)
                response = read_response(connection)
                assert response is not None
                assert "connection" not in response.headers


def test_empty_lines_between_requests_are_not_a_second_request(service: Service) -> None:
    with connect(service) as connection:
        for _ in range(2):
            connection.sendall(GOOD + b"\r\n\r\n")
            response = read_response(connection)
            assert response is not None
            assert "connection" not in response.headers


@pytest.mark.parametrize("options", [{}, {"interval": 0.9}], ids=["on the fast path", "with options"])
def test_long_response_is_not_cut_by_requests_behind_it(service: Service, options: dict[str, float]) -> None:
    rows = json.dumps({"instances": [[75, 63, 44]] * 20_000, **options}).encode()
    with connect(service) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)  # so that most of it waits in the service
        connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(rows) + rows + GOOD * 1000)
        response = read_response(connection)
        assert response is not None
        assert response.status == httpx.codes.OK
        assert response.headers["connection"] == "close"
        assert len(json.loads(response.body)["predictions"]) == 20_000
        assert is_closed(connection)


def test_flood_of_pipelined_requests_gets_one_response_and_does_not_grow_memory(service: Service) -> None:
    service.client.get("/jobs")
    with connect(service) as connection:
        connection.settimeout(0.5)
        with service.growing_by_less_than(20 << 20), contextlib.suppress(OSError):
            for _ in range(2000):  # 100 MB
                connection.sendall(PROBE * 1000)
        assert service.client.get("/health/live").status_code == httpx.codes.OK


def test_request_that_arrives_after_a_response_has_begun_is_answered_after_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    service = ThreadedService(tmp_path_factory.mktemp("external")).start()
    try:
        job = service.submit(**NOTEBOOK)  # Nobody trains it.
        with connect(service) as connection:
            connection.sendall(b"GET /jobs/%b/events HTTP/1.1\r\nhost: here\r\n\r\n" % job.encode())
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            connection.sendall(GOOD)
            service.client.post(f"/jobs/{job}/cancel")
            content = b""
            while not content.endswith(b"]]}"):
                content += connection.recv(1 << 16)
        events, _, prediction = content.partition(b"\r\n0\r\n\r\n")
        assert b'"cancelled"' in events
        assert prediction.startswith(b"HTTP/1.1 200 ")
    finally:
        service.stop()


@pytest.mark.parametrize("request_", [PROBE, GOOD, OPTIONED], ids=["a probe", "a prediction", "one with options"])
@pytest.mark.parametrize("more", [b"", GOOD + HEAD], ids=["alone", "with more behind it"])
def test_client_that_half_closes_gets_its_response(service: Service, request_: bytes, more: bytes) -> None:
    with connect(service) as connection:
        connection.sendall(request_ + more)
        connection.shutdown(socket.SHUT_WR)
        content = read_to_end(connection)
    assert content.count(b"HTTP/1.1 200 OK") == 1


def test_half_close_in_the_middle_of_a_request_closes_the_connection(service: Service) -> None:
    with connect(service) as connection:
        connection.sendall(OPTIONED[:-5])
        connection.shutdown(socket.SHUT_WR)
        assert read_to_end(connection) == b""


def test_connection_that_the_client_does_not_close_is_closed_after_the_last_response(service: Service) -> None:
    with connect(service) as connection:
        connection.sendall(GOOD * 2)
        assert read_to_end(connection).count(b"HTTP/1.1 200 OK") == 1
        wait_for(lambda: count_connections(service, HALF_CLOSED) == 0)
