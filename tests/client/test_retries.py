"""When a call is sent again, and after which pause. The plans are run without a service."""

import email.utils
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from linserve import ConnectionFailed, QueueFull, Retries, ServiceError, Unavailable
from linserve._bodies import FileBody, body_of_source
from linserve._retries import send
from linserve._sinks import StreamSink
from linserve._steps import Answer, BytesBody, Call, Pause

OK = Answer(200, {}, b"{}")
LOST = ConnectionFailed("lost", sent=True)
NOT_SENT = ConnectionFailed("refused")
GET = Call("GET", "/models")
UNSAFE = Call("POST", "/x", repeatable=False)
KEYED = Call("POST", "/train", headers={"idempotency-key": "k"})
DELETE = Call("DELETE", "/models/m/versions/1")


class Fixed:
    """A generator that draws the longest pause."""

    @staticmethod
    def uniform(_least: float, most: float) -> float:
        return most


LONGEST = Retries(generator=Fixed())  # type: ignore[arg-type]


def status(number: int, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    body = b'{"type": "urn:linserve:problem:queue-full", "title": "t", "status": 429, "detail": "Full."}'
    return Answer(number, {"content-type": "application/problem+json", **names}, body)


def run(call: Call, *outcomes: Answer | ConnectionFailed, retries: Retries = LONGEST) -> tuple[Answer, list[float]]:
    """Return the answer and the pauses, if the attempts have these outcomes. Raises as the plan does."""
    plan, left, pauses = send(call, retries), iter(outcomes), []
    step = next(plan)
    try:
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = plan.send(None)
            elif isinstance(outcome := next(left), ConnectionFailed):
                step = plan.throw(outcome)
            else:
                step = plan.send(outcome)
    except StopIteration as done:
        assert next(left, None) is None, "fewer attempts than outcomes"
        return done.value, pauses


def test_pauses_double_up_to_the_longest() -> None:
    retries = Retries(7, base=0.5, longest=4.0, generator=Fixed())  # type: ignore[arg-type]

    assert run(GET, *[LOST] * 7, OK, retries=retries)[1] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0]


def test_pauses_are_drawn_between_zero_and_the_longest() -> None:
    pauses = [Retries().pause(3) for _ in range(200)]

    assert 0 <= min(pauses) < 0.2
    assert 1.8 < max(pauses) <= 2.0


@pytest.mark.parametrize("number", [429, 502, 503, 504, 507])
def test_a_temporary_status_is_tried_again(number: int) -> None:
    assert run(GET, status(number), OK)[0] == OK


@pytest.mark.parametrize("number", [400, 401, 403, 404, 409, 412, 413, 415, 422, 500])
def test_another_status_is_an_error_at_once(number: int) -> None:
    with pytest.raises(ServiceError):
        run(GET, status(number))


def test_retry_after_is_waited_for_and_not_less() -> None:
    assert run(GET, status(503, retry_after="7"), OK)[1] == [7.5]


def test_retry_after_may_be_a_date() -> None:
    moment = int(time.time()) + 30
    before = time.time()
    (pause,) = run(GET, status(503, retry_after=email.utils.formatdate(moment, usegmt=True)), OK)[1]
    after = time.time()

    assert moment - after <= pause - LONGEST.base <= moment - before


def test_a_long_retry_after_is_an_error_with_the_seconds() -> None:
    with pytest.raises(QueueFull) as caught:
        run(GET, status(429, retry_after="3600"))

    assert caught.value.retry_after == 3600


def test_the_last_error_is_raised_after_all_retries() -> None:
    with pytest.raises(QueueFull, match=r"Full\."):
        run(GET, LOST, status(503), status(429), retries=Retries(2, base=0))


def test_a_call_that_may_not_be_repeated_is_repeated_only_if_it_did_not_arrive() -> None:
    assert run(UNSAFE, NOT_SENT, status(503), OK)[0] == OK
    with pytest.raises(ConnectionFailed):
        run(UNSAFE, LOST)
    with pytest.raises(ServiceError):
        run(UNSAFE, Answer(502, {}, b"Bad gateway"))


def test_a_conflict_with_an_earlier_attempt_of_the_same_key_is_tried_again() -> None:
    assert run(KEYED, LOST, status(409), OK)[0] == OK
    with pytest.raises(ServiceError):
        run(KEYED, status(409))


def test_a_deleted_version_that_is_gone_on_the_second_attempt_was_deleted_by_the_first() -> None:
    assert run(DELETE, LOST, status(404))[0].status == 404
    with pytest.raises(ServiceError):
        run(DELETE, status(404))


def test_a_stream_that_was_read_is_not_sent_again() -> None:
    class Pipe:
        def __init__(self) -> None:
            self.parts = [b"rows", b""]

        def read(self, count: int = -1) -> bytes:
            return b"" if count == 0 else self.parts.pop(0)

    body = FileBody(Pipe(), "text/csv")  # type: ignore[arg-type]
    call = Call("POST", "/predict", body=body)
    assert run(call, NOT_SENT, OK)[0] == OK
    assert b"".join(body.chunks()) == b"rows"
    with pytest.raises(ConnectionFailed):
        run(call, LOST)


def test_a_response_that_was_passed_on_in_part_is_not_asked_for_again() -> None:
    class Out:
        def write(self, data: bytes) -> int:
            return len(data)

    sink = StreamSink(Out())  # type: ignore[arg-type]
    call = Call("GET", "/x", sink=sink)
    assert run(call, LOST, OK)[0] == OK
    sink.feed(b"a part")
    with pytest.raises(ConnectionFailed):
        run(call, LOST)


def test_a_response_of_a_proxy_is_an_error_of_its_own() -> None:
    with pytest.raises(Unavailable, match="status 503 and is not from Linserve"):
        run(GET, Answer(503, {"content-type": "text/html"}, b"<h1>No</h1>"), retries=Retries(0))


def test_a_body_is_sent_in_parts() -> None:
    def chunks() -> Iterator[int]:
        yield from map(len, BytesBody(bytes(600_000)).chunks())

    assert list(chunks()) == [262144, 262144, 75712]


def test_bytes_that_are_appended_to_a_file_while_it_is_sent_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a\n1\n")
    body = body_of_source(path)
    path.write_bytes(b"a\n1\n2\n")

    assert body.length == 4
    assert b"".join(body.chunks()) == b"a\n1\n"
