"""The lane for ordinary predictions and the route answer the same, whatever comes."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service import INPUTS, copy_models
from starlette.types import Message, Scope

from app.main import create_app
from app.web.middleware import RequestContext
from app.web.predict import LARGE_BODY
from app.web.predict_lane import MOST_MESSAGES, PredictLane

JSON_TYPE = (b"content-type", b"application/json")

NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.floats(-200, 200))
ANYTHING = st.one_of(NUMBERS, st.none(), st.booleans(), st.text(max_size=3), st.lists(st.integers(), max_size=2))
NAMES = st.sampled_from(["temp", "rainfall", "humidity"])
ROWS = st.one_of(
    st.lists(NUMBERS, min_size=3, max_size=3),
    st.fixed_dictionaries(dict.fromkeys(("humidity", "temp", "rainfall"), NUMBERS)),
    st.lists(ANYTHING, max_size=4),
    st.dictionaries(st.one_of(NAMES, st.text(max_size=3)), ANYTHING, max_size=4),
    ANYTHING,
)
INSTANCES = st.one_of(st.lists(ROWS, max_size=4), st.lists(st.lists(NUMBERS, min_size=3, max_size=3), max_size=60))
BODIES = st.one_of(
    st.fixed_dictionaries({"instances": INSTANCES}),
    st.fixed_dictionaries(
        {"instances": INSTANCES}, optional={"interval": ANYTHING, "explain": ANYTHING, "x": ANYTHING}
    ),
    INSTANCES,
).map(lambda body: json.dumps(body).encode())
TEXTS = st.sampled_from(
    [
        b"",
        b" ",
        b"null",
        b'{"instances": [[1, 2, 3]]} x',
        b'{"instances": [[1, 2, 3]], "instances": [[4, 5, 6]]}',
        b'{"instances": [{"temp": 1, "temp": 2, "rainfall": 3, "humidity": 4}]}',
        b'{"instances": [[NaN, 2, 3]]}',
        b'{"instances": [[1e999, 2, 3]]}',
        b'{"instances": [[1e308, 1e308, -1e308]]}',
        b'{"instances": [[-0, -0.0, 0]]}',
        b'{"instances": [[1e-400, 5e-324, 0.1]]}',
        b'{"instances": [[1.0, 2, 3],]}',
        b'{"instances": [[01, 2, 3]]}',
        b'{"instances": [["\\ud800", 2, 3]]}',
        b'{"inst\\u0061nces": [[1, 2, 3]]}',
        b'{"instances": [{"te\\u006dp": 1, "rainfall": 3, "humidity": 4}]}',
        b'\xef\xbb\xbf{"instances": [[1, 2, 3]]}',
        b'{"instances": [[1, 2, 3]]}'.decode().encode("utf-16"),
        b'{"instances": [[1, 2, "\xff"]]}',
        b'{"instances": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"instances": [[' + b"9" * 400 + b", 2, 3]]}",
        b'{"instances": [[0.1000000000000000055511151231257827021181583404541015625, 2, 3]]}',
    ]
)


class Running(NamedTuple):
    """The app, started, on an event loop that the tests share."""

    app: FastAPI
    state: dict[str, Any]
    runner: asyncio.Runner


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("lane")
    app = create_app()
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("LINSERVE_MODELS", str(copy_models(folder)))
            environment.setenv("LINSERVE_STATE", str(folder / "state"))
            environment.setenv("LINSERVE_TRAINER", "external")
            state = runner.run(lifespan.__aenter__())
        yield Running(app, dict(state or {}), runner)
        runner.run(lifespan.__aexit__(None, None, None))


class Answer:
    """What was sent, but for the request's id."""

    def __init__(self, sent: list[Message]) -> None:
        self.status = sent[0]["status"]
        self.headers = {name: value for name, value in sent[0]["headers"] if name != b"x-request-id"}
        body = b"".join(message.get("body", b"") for message in sent[1:])
        problem = self.headers[b"content-type"] == b"application/problem+json"
        self.body: Any = {**json.loads(body), "request_id": None} if problem else body
        assert b"x-request-id" in dict(sent[0]["headers"])

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    def __repr__(self) -> str:
        return repr(vars(self))

    __hash__ = None  # type: ignore[assignment]


def scope_of(state: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> Scope:
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/predict", "raw_path": b"/predict", "root_path": "", "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": dict(state),
    }  # fmt: skip


async def ask(app: Any, state: dict[str, Any], parts: list[bytes], headers: list[tuple[bytes, bytes]]) -> Answer:
    messages = iter(
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1} for index, part in enumerate(parts)
    )
    sent: list[Message] = []

    async def receive() -> Message:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope_of(state, headers), receive, send)
    return Answer(sent)


Request: TypeAlias = tuple[list[bytes], list[tuple[bytes, bytes]]]  # parts of the body, headers


def both(running: Running, *requests: Request) -> list[tuple[Answer, Answer, bool]]:
    """For each request the answers with the lane and without it, and whether the lane gave its own."""
    handed_on: list[Scope] = []
    rest = RequestContext(super(type(running.app), running.app).__call__)

    async def counted(scope: Scope, receive: Any, send: Any) -> None:
        handed_on.append(scope)
        await rest(scope, receive, send)

    async def answers() -> list[tuple[Answer, Answer, bool]]:
        lane = PredictLane(counted)
        found = []
        for parts, headers in requests:
            handed_on.clear()
            with_lane = await ask(lane, running.state, parts, headers)
            by_lane = not handed_on
            found.append((with_lane, await ask(rest, running.state, parts, headers), by_lane))
        return found

    return running.runner.run(answers())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(BODIES, TEXTS), min_size=1, max_size=8))
def test_any_body_is_answered_the_same_with_the_lane_and_without_it(running: Running, bodies: list[bytes]) -> None:
    for with_lane, without, _ in both(running, *(([body], [JSON_TYPE]) for body in bodies)):
        assert with_lane == without


def test_ordinary_bodies_are_answered_by_the_lane_itself(running: Running) -> None:
    objects = [dict(zip(["humidity", "temp", "rainfall"], row, strict=True)) for row in INPUTS]
    bodies = [
        json.dumps({"instances": rows}).encode()
        for rows in ([[75, 63, 44]], INPUTS, INPUTS * 50, objects, objects * 50)
    ]
    for with_lane, without, by_lane in both(running, *(([body], [JSON_TYPE]) for body in bodies)):
        assert by_lane
        assert with_lane == without
        assert with_lane.status == 200


def test_a_body_in_parts_is_put_together_or_handed_on_whole(running: Running) -> None:
    body = json.dumps({"instances": INPUTS}).encode()
    few = [body[:10], b"", body[10:]]
    many = [body[i : i + 1] for i in range(len(body))]
    assert len(many) > MOST_MESSAGES
    long = json.dumps({"instances": INPUTS * 500}).encode()
    assert len(long) > LARGE_BODY
    for (with_lane, without, by_lane), expected in zip(
        both(running, *((parts, [JSON_TYPE]) for parts in (few, many, [long]))), (True, False, False), strict=True
    ):
        assert by_lane == expected
        assert with_lane == without
        assert with_lane.status == 200


@pytest.mark.parametrize(
    ("headers", "by_lane"),
    [
        ([JSON_TYPE, (b"accept", b"*/*"), (b"user-agent", b"x"), (b"x-request-id", b"mine")], True),
        ([(b"content-type", b"application/json; charset=utf-8")], True),
        ([(b"content-type", b"Application/JSON")], False),
        ([(b"content-type", b"text/plain")], False),
        ([], False),
        ([JSON_TYPE, (b"accept", b"text/csv")], False),
        ([JSON_TYPE, (b"accept", b"text/html")], False),
        ([JSON_TYPE, (b"content-encoding", b"gzip")], False),
        ([JSON_TYPE, (b"content-encoding", b"br")], False),
    ],
)
def test_headers_that_ask_for_something_else_are_left_to_the_route(
    running: Running, headers: list[tuple[bytes, bytes]], by_lane: bool
) -> None:
    ((with_lane, without, found),) = both(running, ([b'{"instances": [[75, 63, 44]]}'], headers))
    assert found == by_lane
    assert with_lane == without


def test_a_caller_that_leaves_before_its_body_ends_breaks_nothing(running: Running) -> None:
    sent: list[Message] = []
    messages: Iterator[Message] = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    running.runner.run(running.app(scope_of(running.state, [JSON_TYPE]), receive, send))
    assert sent[0]["status"] == 400
