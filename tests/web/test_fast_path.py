"""The fast path and the route give equal responses to any request."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import FEATURES, TABLE, publish, version_of_table
from service import INPUTS, copy_models
from uvicorn import Config
from uvicorn.server import ServerState

from app.main import create_app
from app.server.protocol import BoundedHttpProtocol
from app.storage.memory_budget import LARGE_BODY, MemoryBudget
from app.web.connection_hooks import ServiceHooks
from app.web.fast_path import PredictFastPath

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
        {"instances": INSTANCES}, optional=dict.fromkeys(("interval", "explain", "instance_weights", "x"), ANYTHING)
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
    """The started app, on an event loop that the tests share."""

    config: Config
    state: dict[str, Any]
    runner: asyncio.Runner


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("fast-path")
    copy_models(folder)
    yield from started(folder)


@pytest.fixture(scope="module", params=["drop", "indicator", "terms", "many columns"])
def with_kinds(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Running]:
    """Yield an app whose default model has words, booleans and dates."""
    folder = tmp_path_factory.mktemp("fast-path-kinds")
    version = version_of_table()
    if request.param == "indicator":
        fills = {"age": 40.0, "wild": 0.0, "seen": 14000.0}
        features = [replace(each, missing="indicator", fill=fills.get(each.name)) for each in FEATURES]
        version = version_of_table(replace(TABLE, features=tuple(features)), gaps=9)
    elif request.param == "terms":
        version = version_of_table(terms=["species", "age^2", "age:wild", "seen"])
    elif request.param == "many columns":
        levels = ("Dream", *(f"island {n}" for n in range(150)), "Torgersen")
        features = [replace(each, levels=levels) if each.name == "island" else each for each in FEATURES]
        version = version_of_table(replace(TABLE, features=tuple(features)), rows=900)
    (folder / "models").mkdir()
    publish(folder / "models", version, "crop-yield")
    yield from started(folder)


def started(folder: Path) -> Iterator[Running]:
    app = create_app()
    config = Config(app, log_config=None, access_log=False)
    config.load()
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("LINSERVE_MODELS_DIR", str(folder / "models"))
            environment.setenv("LINSERVE_STATE_DIR", str(folder / "state"))
            environment.setenv("LINSERVE_TRAINER_MODE", "external")
            state = runner.run(lifespan.__aenter__())
        yield Running(config, dict(state or {}), runner)
        runner.run(lifespan.__aexit__(None, None, None))


class Wire(asyncio.Transport):
    """Keeps the bytes that are written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 80)})
        self.written = b""
        self.unread = 0
        self.on_write: Callable[[], None] | None = None
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        if self.on_write is not None:
            self.on_write()

    def close(self) -> None:
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self._closing = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Answer:
    """A response without its request id."""

    def __init__(self, written: bytes) -> None:
        head, _, body = written.partition(b"\r\n\r\n")
        self.status, *fields = head.decode().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        assert headers.pop("x-request-id")
        assert int(headers["content-length"]) == len(body)
        self.headers = list(headers.items())  # in their order
        if self.status == "HTTP/1.1 200 OK" and headers["content-type"] == "application/json":
            assert int(headers["linserve-version"]) == json.loads(body)["version"]
        problem = headers["content-type"] == "application/problem+json"
        self.body: Any = {**json.loads(body), "request_id": None} if problem else body

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    def __repr__(self) -> str:
        return repr(vars(self))

    __hash__ = None  # type: ignore[assignment]


Request: TypeAlias = tuple[list[bytes], list[tuple[bytes, bytes]]]  # parts of the body, headers


def written_of(parts: list[bytes], headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Return a request in the parts in which it arrives."""
    head = b"POST /predict HTTP/1.1\r\nhost: here\r\n"
    head += b"".join(b"%b: %b\r\n" % header for header in headers)
    if len(parts) == 1:
        return [head + b"content-length: %d\r\n\r\n" % len(parts[0]) + parts[0]]
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part]
    return [head + b"transfer-encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"]


def connect(running: Running, *, fast_path: bool) -> tuple[BoundedHttpProtocol, Wire]:
    state = running.state if fast_path else {**running.state, "fast_path": None}
    connection = BoundedHttpProtocol(running.config, ServerState(), state)
    wire = Wire()
    connection.connection_made(wire)
    return connection, wire


async def ask(running: Running, pieces: list[bytes], *, fast_path: bool) -> tuple[Answer, bool]:
    """Return the response, and whether the fast path gave it."""
    connection, wire = connect(running, fast_path=fast_path)
    for piece in pieces:
        connection.data_received(piece)
    while tasks := list(connection.tasks):
        await asyncio.wait(tasks)
    by_fast_path = connection.cycle is None
    connection.connection_lost(None)
    return Answer(wire.written), by_fast_path


def both(running: Running, *requests: Request) -> list[tuple[Answer, Answer, bool]]:
    """Return the responses with and without the fast path, and whether the fast path gave the first."""

    async def answers() -> list[tuple[Answer, Answer, bool]]:
        found = []
        for parts, headers in requests:
            pieces = written_of(parts, headers)
            with_fast_path, by_fast_path = await ask(running, pieces, fast_path=True)
            without, _ = await ask(running, pieces, fast_path=False)
            found.append((with_fast_path, without, by_fast_path))
        return found

    return running.runner.run(answers())


@settings(max_examples=150)
@given(st.lists(st.one_of(BODIES, TEXTS), min_size=1, max_size=8))
def test_any_body_is_answered_the_same_with_the_fast_path_and_without_it(running: Running, bodies: list[bytes]) -> None:
    for with_fast_path, without, _ in both(running, *(([body], [JSON_TYPE]) for body in bodies)):
        assert with_fast_path == without


def test_eligible_bodies_are_answered_by_the_fast_path_itself(running: Running) -> None:
    objects = [dict(zip(["humidity", "temp", "rainfall"], row, strict=True)) for row in INPUTS]
    bodies = [
        json.dumps({"instances": rows}).encode()
        for rows in ([[75, 63, 44]], INPUTS, INPUTS * 50, objects, objects * 50)
    ]
    for with_fast_path, without, by_fast_path in both(running, *(([body], [JSON_TYPE]) for body in bodies)):
        assert by_fast_path
        assert with_fast_path == without
        assert with_fast_path.status == "HTTP/1.1 200 OK"


WORDS = st.sampled_from(["Adelie", "Gentoo", "Emperor", "", "NA", "Dream", "Torgersen", "2008-02-30", "yes", "12.5"])
DAYS = st.dates(date(2000, 1, 1), date(2030, 1, 1)).map(str) | st.datetimes().map(str) | WORDS
VALUES = [
    st.sampled_from(["Adelie", "Chinstrap", "Gentoo"]) | WORDS,
    NUMBERS | WORDS,
    st.booleans() | WORDS | st.integers(0, 2),
    st.sampled_from(["Dream", "Torgersen"]) | WORDS,
    DAYS,
]
NAMES_OF_KINDS = [column.name for column in FEATURES]
ROWS_OF_KINDS = st.one_of(
    st.tuples(*(values | ANYTHING for values in VALUES)).map(list),
    st.fixed_dictionaries(dict(zip(NAMES_OF_KINDS, (values | ANYTHING for values in VALUES), strict=True))),
    st.tuples(*VALUES).map(list),
    st.fixed_dictionaries(dict(zip(NAMES_OF_KINDS, VALUES, strict=True)), optional={"mass": NUMBERS}),
)
BODIES_OF_KINDS = st.lists(ROWS_OF_KINDS, max_size=3).map(lambda rows: json.dumps({"instances": rows}).encode())


@settings(max_examples=40)
@given(st.lists(BODIES_OF_KINDS, min_size=1, max_size=8))
def test_rows_of_any_kinds_are_answered_the_same_with_the_fast_path_and_without_it(
    with_kinds: Running, bodies: list[bytes]
) -> None:
    for with_fast_path, without, _ in both(with_kinds, *(([body], [JSON_TYPE]) for body in bodies)):
        assert with_fast_path == without


def test_words_booleans_and_dates_stay_on_the_fast_path(with_kinds: Running) -> None:
    row = {"seen": "2008-02-29", "species": "Gentoo", "island": "Torgersen", "age": 40.5, "wild": True}
    times = ["2008-02-29T12:30:00Z", "2008-02-29 12:30:00", "2008-02-29T12:30:00+02:00"]
    rows = [row, *({**row, "seen": time, "wild": False, "age": 3} for time in times)]
    arrays = [[each[name] for name in NAMES_OF_KINDS] for each in rows]
    bodies = [json.dumps({"instances": each}).encode() for each in (rows[:1], rows, rows * 20, arrays, arrays * 20)]
    for with_fast_path, without, by_fast_path in both(with_kinds, *(([body], [JSON_TYPE]) for body in bodies)):
        assert by_fast_path
        assert with_fast_path == without
        assert with_fast_path.status == "HTTP/1.1 200 OK"


def test_a_body_in_parts_is_joined_or_passed_on_complete(running: Running) -> None:
    body = json.dumps({"instances": INPUTS}).encode()
    few = [body[:10], b"", body[10:]]
    many = [body[i : i + 1] for i in range(len(body))]
    long = json.dumps({"instances": INPUTS * 500}).encode()
    assert len(long) > LARGE_BODY
    long_in_parts = [long[i : i + 1000] for i in range(0, len(long), 1000)]
    for (with_fast_path, without, by_fast_path), expected in zip(
        both(running, *((parts, [JSON_TYPE]) for parts in (few, many, [long], long_in_parts))),
        (True, True, False, False),
        strict=True,
    ):
        assert by_fast_path == expected
        assert with_fast_path == without
        assert with_fast_path.status == "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("headers", "by_fast_path"),
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
        ([JSON_TYPE, (b"linserve-min-version", b"1")], False),
        ([JSON_TYPE, (b"linserve-min-version", b"2")], False),
        ([JSON_TYPE, (b"linserve-min-version", b"one")], False),
    ],
)
def test_requests_with_other_headers_are_left_to_the_route(
    running: Running, headers: list[tuple[bytes, bytes]], by_fast_path: bool
) -> None:
    ((with_fast_path, without, found),) = both(running, ([b'{"instances": [[75, 63, 44]]}'], headers))
    assert found == by_fast_path
    assert with_fast_path == without


def test_a_client_that_disconnects_before_its_body_ends_does_no_harm(running: Running) -> None:
    async def leave() -> bytes:
        connection, wire = connect(running, fast_path=True)
        connection.data_received(b"".join(written_of([b"{", b"}"], [JSON_TYPE])[:2]))
        connection.connection_lost(None)
        return wire.written

    assert running.runner.run(leave()) == b""


def test_a_request_whose_body_is_under_way_when_the_service_stops_is_answered(running: Running) -> None:
    async def stop() -> tuple[bytes, bool]:
        connection, wire = connect(running, fast_path=True)
        first, *rest = written_of([b'{"instances"', b": [[75, 63, 44]]}"], [JSON_TYPE])
        connection.data_received(first)
        connection.shutdown()
        for piece in rest:
            connection.data_received(piece)
        while tasks := list(connection.tasks):
            await asyncio.wait(tasks)
        return wire.written, wire.is_closing()

    written, closed = running.runner.run(stop())
    assert Answer(written).status == "HTTP/1.1 200 OK"
    assert closed


SMALL_BUDGET = 1 << 20  # bytes, of which connections may have 14 sixteenths


def with_little_memory(running: Running) -> Running:
    services = replace(running.state["services"], memory=MemoryBudget(SMALL_BUDGET))
    hooks = ServiceHooks(services, header_timeout=600, transfer_grace=600)
    return running._replace(
        state={**running.state, "services": services, "hooks": hooks, "fast_path": PredictFastPath(services)}
    )


def is_all_free(running: Running) -> bool:
    """Return True if nothing is reserved, and that much could be."""
    memory: MemoryBudget = running.state["services"].memory
    everything = SMALL_BUDGET * 14 // 16
    return memory.try_reserve(everything, everything)


def test_incomplete_bodies_in_the_fast_path_count_until_their_connections_end(running: Running) -> None:
    small = with_little_memory(running)

    async def flood() -> list[bytes]:
        head, part, *_ = written_of([b" " * 60_000, b" "], [JSON_TYPE])
        opened = [connect(small, fast_path=True) for _ in range(30)]
        for connection, _ in opened:
            connection.data_received(head)
            connection.data_received(part)
        written = [wire.written for _, wire in opened]
        for connection, _ in opened:
            connection.connection_lost(None)
        return written

    written = small.runner.run(flood())
    assert written[:14] == [b""] * 14  # 14 bodies of 56 KiB, in whole pages
    assert {Answer(text).status for text in written[16:]} == {"HTTP/1.1 503 Service Unavailable"}
    assert all(Answer(text).body["title"] == "Worker busy" for text in written[16:])
    assert is_all_free(small)


def test_input_that_arrives_during_a_response_counts_until_the_response_ends(running: Running) -> None:
    small = with_little_memory(running)

    async def send_early() -> tuple[bool, bytes, list[bool]]:
        request = written_of([b'{"instances": [[75, 63, 44]], "interval": 0.9}'], [JSON_TYPE])[0]
        opened = [connect(small, fast_path=True) for _ in range(10)]
        for connection, wire in opened:
            begun = asyncio.Event()
            wire.on_write = begun.set
            connection.data_received(request)
            await begun.wait()
            connection.pause_writing()
            connection.data_received(request * 500)
        was_free = is_all_free(small)
        for connection, wire in opened:
            wire.on_write = None
            connection.resume_writing()
            while tasks := list(connection.tasks):
                await asyncio.wait(tasks)
        closed = [wire.is_closing() for _, wire in opened]
        for connection, _ in opened:
            connection.connection_lost(None)
        return was_free, opened[0][1].written, closed

    was_free, written, closed = small.runner.run(send_early())
    assert not was_free
    assert written.count(b"HTTP/1.1 200 OK") == 2
    assert written.count(b"connection: close") == 1
    assert all(closed)
    assert is_all_free(small)


def test_a_client_that_leaves_much_unread_is_cut_off_when_there_is_no_memory(running: Running) -> None:
    small = with_little_memory(running)

    async def leave_unread() -> list[bool]:
        opened = [connect(small, fast_path=True) for _ in range(4)]
        for connection, wire in opened:
            wire.unread = 280_000
            connection.pause_writing()
        closed = [wire.is_closing() for _, wire in opened]
        opened[0][1].unread = 0
        opened[0][0].resume_writing()
        for connection, _ in opened:
            connection.connection_lost(None)
        return closed

    assert small.runner.run(leave_unread()) == [False, False, False, True]
    assert is_all_free(small)
