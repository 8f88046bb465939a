"""Clients that send or read too slowly, and clients that use too much memory meanwhile."""

import contextlib
import json
from collections.abc import Iterator

import httpx
import pytest
from raw_http import BODY, GOOD, HEAD, connect, count_connections, exchange, is_closed, read_response
from service import Service, wait_for


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with short timeouts. A client that sends everything at once keeps them on a busy machine too."""
    folder = tmp_path_factory.mktemp("strict")
    running = Service(
        folder,
        header_timeout="2",
        transfer_grace="2",
        max_connections="20",
        trainer_mode="external",
        environment={"UVICORN_TIMEOUT_KEEP_ALIVE": "1"},
    ).start()
    yield running
    running.stop()


def test_silent_connection_is_closed(strict: Service) -> None:
    with connect(strict) as connection:
        assert is_closed(connection)


@pytest.mark.parametrize("part", [GOOD[:40], HEAD])
def test_headers_that_do_not_end_in_time_get_a_408(strict: Service, part: bytes) -> None:
    response = exchange(strict, part)
    assert response is not None
    assert response.status == 408
    assert "headers" in response.problem["detail"]


@pytest.mark.parametrize(
    "request_line", [b"POST /predict", b"POST /predict?interval=0.5", b"POST /train", b"PUT /models/crop-yield/current"]
)
def test_body_that_does_not_end_in_time_gets_a_408(strict: Service, request_line: bytes) -> None:
    head = HEAD.replace(b"POST /predict", request_line).replace(b"here", b"localhost")
    response = exchange(strict, head + b"content-length: 1000\r\n\r\n" + BODY)
    assert response is not None
    assert response.status == 408
    assert "body" in response.problem["detail"]


def test_client_that_sends_a_byte_now_and_then_gains_no_time(strict: Service) -> None:
    with connect(strict) as connection:
        connection.settimeout(0.1)
        for byte in HEAD + b"x: " + b"x" * 1000:  # over 100 seconds
            connection.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                response = read_response(connection)
                break
        else:
            pytest.fail("The connection was never closed.")
        assert response is not None
        assert response.status == 408


def test_connection_whose_response_preceded_the_body_is_closed_at_the_keep_alive_timeout(strict: Service) -> None:
    with connect(strict) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n\r\n")
        response = read_response(connection)
        assert response is not None
        assert response.status == httpx.codes.NOT_FOUND
        with contextlib.suppress(OSError):  # It may be closed already.
            connection.sendall(b"late")
        assert is_closed(connection)


def test_fast_start_of_a_body_earns_no_time_for_the_rest(strict: Service) -> None:
    with connect(strict) as connection:
        connection.sendall(HEAD + b"content-length: 10000000\r\n\r\n" + b" " * 9_000_000)
        response = read_response(connection)  # At the lowest rate, all of it would have 900 s, and this waits 120 s.
    assert response is not None
    assert response.status == 408


def test_client_that_expects_100_continue_gets_connection_close(strict: Service) -> None:
    expecting = b"expect: 100-continue\r\ncontent-length: 4\r\n\r\n"
    with connect(strict) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nhost: here\r\n" + expecting)
        response = read_response(connection)
        assert response is not None
        assert (response.status, response.headers["connection"]) == (404, "close")
        assert is_closed(connection)


def test_response_that_is_not_read_is_aborted(strict: Service) -> None:
    # The response has more bytes than the kernel buffers.
    rows = json.dumps({"instances": [[75, 63, 44]] * 100_000, "interval": 0.9}).encode()
    with connect(strict) as connection:
        connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(rows) + rows)
        assert connection.recv(1)  # The response has begun.
        wait_for(lambda: count_connections(strict) == 0)
