"""The fast path and the route give equal responses to any request."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from both_ways import JSON_TYPE, Answer, Running, both, connect, started, written_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import FEATURES, TABLE, publish, version_of_table
from service import INPUTS, copy_models

from app.data.columns.schema import Column, TableSchema
from app.storage.memory_budget import LARGE_BODY, MemoryBudget
from app.web.connection_hooks import ServiceHooks
from app.web.fast_path import fast_paths

KSERVE, INFERENCE = b"/v1/models/crop-yield:predict", b"/v2/models/crop-yield/infer"

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


@settings(max_examples=50)
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


@settings(max_examples=15)
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
        ([JSON_TYPE, (b"content-encoding", b"x-gzip")], False),
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


MIXED_ROWS = st.one_of(ROWS, st.dictionaries(NAMES, st.lists(NUMBERS, max_size=2), min_size=3))
KSERVE_BODIES = st.fixed_dictionaries(
    {},
    optional={
        "instances": st.lists(MIXED_ROWS, max_size=4) | INSTANCES,
        "inputs": st.lists(ROWS, max_size=2) | st.dictionaries(NAMES, st.lists(ANYTHING, max_size=2)),
        "signature_name": st.text(max_size=3) | ANYTHING,
        "parameters": st.fixed_dictionaries({}, optional=dict.fromkeys(("interval", "explain", "missing"), ANYTHING)),
    },
).map(lambda body: json.dumps(body).encode())


@settings(max_examples=25)
@given(st.lists(st.one_of(KSERVE_BODIES, BODIES, TEXTS), min_size=1, max_size=8))
def test_any_body_of_kserve_v1_is_answered_the_same_with_the_fast_path_and_without_it(
    running: Running, bodies: list[bytes]
) -> None:
    for with_fast_path, without, _ in both(running, *(([body], []) for body in bodies), path=KSERVE):
        assert with_fast_path == without


@settings(max_examples=15)
@given(st.lists(BODIES_OF_KINDS, min_size=1, max_size=8))
def test_rows_of_any_kinds_in_kserve_v1_are_answered_the_same(with_kinds: Running, bodies: list[bytes]) -> None:
    for with_fast_path, without, _ in both(with_kinds, *(([body], []) for body in bodies), path=KSERVE):
        assert with_fast_path == without


SIZES = st.sampled_from([1, 2, 3, 6, 12, 0, -1, 2**40])
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["input", "temp", "predict", ""]) | st.text(max_size=3) | ANYTHING,
        "shape": st.sampled_from([[1, 3], [2, 3], [40, 3], [3], [3, 1]]) | st.lists(SIZES, max_size=3) | ANYTHING,
        "datatype": st.sampled_from(["FP64", "FP64", "FP32", "FP16", "INT64", "INT8", "BOOL", "BYTES", "fp64"]),
        "data": st.lists(NUMBERS, min_size=3, max_size=3)
        | st.lists(NUMBERS, min_size=6, max_size=6)
        | st.lists(ANYTHING, max_size=7)
        | st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=2)
        | st.just([1.5, 2, 3] * 40),
    },
    optional={"parameters": st.none() | st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(0, 30)})},
)
INFERENCES = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, min_size=1, max_size=1) | st.lists(TENSORS, max_size=3)},
    optional={
        "id": st.text(max_size=5) | ANYTHING,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["predict", "apples", "x"])}), max_size=2),
        "parameters": st.fixed_dictionaries(
            {}, optional={"interval": st.just(0.9), "binary_data_output": st.booleans()}
        ),
        "x": ANYTHING,
    },
).map(lambda body: json.dumps(body).encode())
INFERENCE_TEXTS = st.sampled_from(
    [
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": %b}]%b}' % (data, rest)
        for data in (b"[1, 2, 3]", b"[NaN, 2, 3]", b"[1e999, 2, 3]", b"[1e39, 2, 3]", b"[-0, -0.0, 0]", b"[1, 2, 3,]")
        for rest in (b"", b', "id": "\\ud800"', b', "id": null', b', "id": "\\u00e9\\"\\n"', b', "id": "1", "id": "2"')
    ]
).flatmap(lambda body: st.sampled_from([body, body.replace(b"FP64", b"FP32"), b"\xef\xbb\xbf" + body]))


@settings(max_examples=30)
@given(st.lists(st.one_of(INFERENCES, INFERENCE_TEXTS, TEXTS), min_size=1, max_size=8))
def test_any_body_of_the_open_inference_protocol_is_answered_the_same_with_the_fast_path_and_without_it(
    running: Running, bodies: list[bytes]
) -> None:
    for with_fast_path, without, _ in both(running, *(([body], []) for body in bodies), path=INFERENCE):
        assert with_fast_path == without


def tensor_of(rows: list[list[float]], **members: Any) -> bytes:
    """Return a body of the Open Inference Protocol with one tensor."""
    tensor = {"name": "input-0", "shape": [len(rows), len(rows[0])], "datatype": "FP64"}
    data = [value for row in rows for value in row]
    return json.dumps({"inputs": [tensor | {"data": data} | members.pop("tensor", {})], **members}).encode()


ELIGIBLE = [
    *((KSERVE, json.dumps({"instances": rows}).encode()) for rows in (INPUTS[:1], INPUTS, INPUTS * 50)),
    *((INFERENCE, tensor_of(rows)) for rows in (INPUTS[:1], INPUTS, INPUTS * 50)),
    (INFERENCE, tensor_of(INPUTS[:1], id="b6c1")),
    (INFERENCE, tensor_of([[75.1, 63.2, 44.3]], tensor={"datatype": "FP32"})),
    (INFERENCE, tensor_of(INPUTS * 50, tensor={"datatype": "FP32"})),
]


@pytest.mark.parametrize(
    "headers", [[], [JSON_TYPE], [(b"accept", b"text/html")], [(b"accept", b"*/*"), (b"user-agent", b"python-httpx")]]
)
@pytest.mark.parametrize(("path", "body"), ELIGIBLE)
def test_rows_in_other_formats_are_answered_by_the_fast_path_itself(
    running: Running, path: bytes, body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    ((with_fast_path, without, by_fast_path),) = both(running, ([body], headers), path=path)
    assert by_fast_path
    assert with_fast_path == without
    assert with_fast_path.status == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("target", ["mass", "predict"])
def test_a_model_of_one_column_has_the_output_that_the_route_names(tmp_path: Path, target: str) -> None:
    (tmp_path / "models").mkdir()
    version = version_of_table(TableSchema((Column("age"),), (Column(target),)))
    publish(tmp_path / "models", version, "crop-yield")
    bodies = [tensor_of([[40.5]], tensor={"name": name}) for name in ("age", "input")]
    rows = json.dumps({"instances": [[40.5]]}).encode()
    for running in started(tmp_path):
        for with_fast_path, without, _ in both(running, *(([body], []) for body in bodies), path=INFERENCE):
            assert with_fast_path == without
            assert with_fast_path.status == "HTTP/1.1 200 OK"
        ((with_fast_path, without, by_fast_path),) = both(running, ([rows], []), path=KSERVE)
        assert by_fast_path
        assert with_fast_path == without


HEADERS = st.lists(
    st.sampled_from(
        [
            JSON_TYPE,
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"content-type", b"text/csv"),
            (b"content-encoding", b"gzip"),
            (b"content-encoding", b"identity"),
            (b"accept", b"text/csv"),
            (b"linserve-min-version", b"1"),
            (b"linserve-min-version", b"9"),
            (b"linserve-sticky", b"a"),
            (b"inference-header-content-length", b"20"),
            (b"x-request-id", b"mine"),
            (b"x-request-id", b"not valid!"),
            (b"authorization", b"Bearer key"),
        ]
    ),
    max_size=4,
)


@settings(max_examples=25)
@given(st.sampled_from(ELIGIBLE), HEADERS)
def test_any_headers_are_answered_the_same_with_the_fast_path_and_without_it(
    running: Running, request_: tuple[bytes, bytes], headers: list[tuple[bytes, bytes]]
) -> None:
    path, body = request_
    ((with_fast_path, without, _),) = both(running, ([body], headers), path=path)
    assert with_fast_path == without


@pytest.mark.parametrize(
    "path", [b"/v1/models/other:predict", KSERVE + b"?x=1", b"/v2/models/crop-yield/versions/1/infer"]
)
def test_other_paths_are_left_to_the_route(running: Running, path: bytes) -> None:
    ((_, _, by_fast_path),) = both(running, ([b'{"instances": [[75, 63, 44]]}'], []), path=path)
    assert not by_fast_path


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
        state={**running.state, "services": services, "hooks": hooks, "fast_paths": fast_paths(services)}
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
