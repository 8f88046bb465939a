"""Binary tensors get equal responses on the fast path and by the route."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from both_ways import Answer, Running, both, connect, started, written_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import publish, version_of_table
from service import INPUTS, copy_models

from app.storage.memory_budget import LARGE_BODY, MemoryBudget
from app.web.connection_hooks import ServiceHooks
from app.web.fast_path import MAX_BINARY, MAX_HEAD, fast_paths

PATH = b"/v2/models/crop-yield/infer"
LENGTH = b"inference-header-content-length"
DTYPES = {"FP64": "<f8", "FP32": "<f4"}

LONG = INPUTS * (3000 // len(INPUTS))

Head = list[tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("binary")
    copy_models(folder)
    yield from started(folder)


def with_length(document: Any, values: bytes) -> tuple[list[bytes], Head]:
    """Return a body, and the header with the length of its JSON."""
    text = json.dumps(document).encode()
    return [text + values], [(LENGTH, b"%d" % len(text))]


def tensor(rows: Any, datatype: str = "FP64", **members: Any) -> tuple[list[bytes], Head]:
    x = np.asarray(rows, DTYPES[datatype])
    one = {"name": "x", "shape": x.shape, "datatype": datatype, "parameters": {"binary_data_size": x.nbytes}}
    return with_length({"inputs": [one], **members}, x.tobytes())


BINARY_OUTPUT: dict[str, Any] = {"parameters": {"binary_data_output": True}}
ELIGIBLE = {
    "one row": tensor(INPUTS[:1]),
    "one row of float32": tensor([[75.1, 63.2, 44.3]], "FP32"),
    "few rows": tensor(INPUTS),
    "many rows": tensor(INPUTS * 50),
    "many rows of float32": tensor(INPUTS * 50, "FP32"),
    "longer than JSON may be": tensor(LONG),
    "one row, binary output": tensor(INPUTS[:1], **BINARY_OUTPUT),
    "few rows, binary output": tensor(INPUTS, **BINARY_OUTPUT),
    "many rows, binary output": tensor(LONG, **BINARY_OUTPUT, id='b6"c1'),
    "as tritonclient asks": tensor(INPUTS, id="", outputs=[{"name": "predict", "parameters": {"binary_data": True}}]),
    "JSON output": tensor(INPUTS, outputs=[{"name": "predict", "parameters": {"binary_data": False}}], **BINARY_OUTPUT),
    "the default of the output": tensor(INPUTS, outputs=[{"name": "predict"}], **BINARY_OUTPUT),
    "empty lists and nulls": tensor(INPUTS, outputs=[], parameters=None, id=None),
}
JSON_INPUT = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [75, 63, 44]}]}


@pytest.mark.parametrize("name", ELIGIBLE)
def test_a_binary_tensor_is_answered_by_the_fast_path_itself(running: Running, name: str) -> None:
    ((with_fast_path, without, by_fast_path),) = both(running, ELIGIBLE[name], path=PATH)
    assert by_fast_path
    assert with_fast_path == without
    assert with_fast_path.status == "HTTP/1.1 200 OK"


def test_values_in_json_can_have_binary_results(running: Running) -> None:
    body = json.dumps(JSON_INPUT | BINARY_OUTPUT).encode()
    ((with_fast_path, without, by_fast_path),) = both(running, ([body], []), path=PATH)
    assert by_fast_path
    assert with_fast_path == without
    assert dict(with_fast_path.headers)["content-type"] == "application/octet-stream"


def test_the_values_are_those_of_json(running: Running) -> None:
    parts, head = tensor(INPUTS * 100, **BINARY_OUTPUT)
    as_json = json.dumps({"instances": INPUTS * 100}).encode()
    ((binary, _, _),) = both(running, (parts, head), path=PATH)
    ((text, _, _),) = both(running, ([as_json], []), path=b"/v1/models/crop-yield:predict")
    length = int(dict(binary.headers)["inference-header-content-length"])
    found = np.frombuffer(binary.body[length:], "<f8").reshape(-1, 2)
    assert found.tolist() == json.loads(text.body)["predictions"]


def mostly(usual: st.SearchStrategy[Any], *others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda number: st.one_of(*others) if number == 0 else usual)


ODD = st.one_of(st.none(), st.booleans(), st.integers(-1, 100), st.text(max_size=2), st.floats())
FLAGS = mostly(st.booleans(), ODD)
OUTPUT = st.fixed_dictionaries(
    {"name": mostly(st.just("predict"), st.sampled_from(["apples", "x"]), ODD)},
    optional={"parameters": st.fixed_dictionaries({"binary_data": FLAGS}) | st.just({}) | st.none()},
)
PARAMETERS: st.SearchStrategy[Any] = st.fixed_dictionaries({"binary_data_output": FLAGS}) | st.just({}) | st.none()
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "id": mostly(st.text(max_size=3), ODD),
        "outputs": mostly(st.lists(OUTPUT, max_size=1), st.lists(OUTPUT, max_size=2), ODD),
        "parameters": mostly(PARAMETERS, st.sampled_from([{"interval": 0.9}, {"missing": "null"}]), ODD),
    },
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 6, -1, 2**40]), max_size=3)
LENGTHS = [(LENGTH, value) for value in (b"0", b"1", b"020", b"99999", b"x", b"", b"-1", b"1" * 21, b"\xb2")]


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[bytes], Head]:
    """Return a request that is valid or nearly so."""
    datatype = draw(
        mostly(st.sampled_from(["FP64", "FP32"]), st.sampled_from(["FP16", "INT64", "UINT8", "BYTES", "x"]))
    )
    width, rows = 8 if datatype == "FP64" else 4, draw(st.sampled_from([1, 2, 40]))
    numbers = np.random.default_rng(draw(st.integers(0, 99))).normal(80, 20, rows * 3)
    values = bytearray(numbers.astype(f"<f{width}").tobytes())
    if draw(mostly(st.just(False), st.just(True))):  # Any bits: also NaN, infinity and very large numbers.
        values[-width:] = draw(st.binary(max_size=width + 1))
    size = draw(mostly(st.just(len(values)), st.just(float(len(values))), st.just(str(len(values))), ODD))
    one = {"name": draw(st.text(max_size=2)), "shape": draw(mostly(st.just([rows, 3]), SHAPES)), "datatype": datatype}
    one |= draw(mostly(st.just({"parameters": {"binary_data_size": size}}), st.just({"parameters": None})))
    one |= draw(mostly(st.just({}), st.sampled_from([{"data": [1, 2, 3]}, {"data": None}, {"x": 1}])))
    inputs = draw(mostly(st.just([one]), st.sampled_from([[one, {**one, "name": "more"}], []])))
    members = draw(MEMBERS) | draw(mostly(st.just({}), st.just({"x": 1})))
    parts, head = with_length({"inputs": inputs, **members}, bytes(values))
    return parts, draw(mostly(st.just(head), st.lists(st.sampled_from(LENGTHS), max_size=2)))


@settings(max_examples=40)
@given(st.lists(requests(), min_size=1, max_size=6))
def test_any_binary_body_is_answered_the_same_with_the_fast_path_and_without_it(
    running: Running, sent: list[tuple[list[bytes], Head]]
) -> None:
    for with_fast_path, without, _ in both(running, *sent, path=PATH):
        assert with_fast_path == without


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308])
@pytest.mark.parametrize("rows", [1, 50])
def test_values_that_are_missing_or_too_large_are_left_to_the_route(running: Running, value: float, rows: int) -> None:
    sent = tensor([[75, 63, 44]] * (rows - 1) + [[value, value, -value]])
    ((with_fast_path, without, by_fast_path),) = both(running, sent, path=PATH)
    assert not by_fast_path
    assert with_fast_path == without


def test_a_long_head_of_json_is_left_to_the_route(running: Running) -> None:
    sent = tensor(INPUTS, id="x" * MAX_HEAD)
    ((with_fast_path, without, by_fast_path),) = both(running, sent, path=PATH)
    assert not by_fast_path
    assert with_fast_path == without
    assert with_fast_path.status == "HTTP/1.1 200 OK"


@pytest.mark.parametrize(("rows", "by_fast_path"), [(3300, True), (6000, False)])
def test_a_body_in_parts_is_joined_or_passed_on_complete(running: Running, rows: int, by_fast_path: bool) -> None:
    (body,), head = tensor([INPUTS[0]] * rows, **BINARY_OUTPUT)
    assert len(body) > LARGE_BODY
    parts = [body[start : start + 5000] for start in range(0, len(body), 5000)]
    ((with_fast_path, without, found),) = both(running, (parts, head), path=PATH)
    assert found == by_fast_path
    assert with_fast_path == without
    assert with_fast_path.status == "HTTP/1.1 200 OK"


def test_a_long_body_of_json_without_a_length_is_left_to_the_route(running: Running) -> None:
    data = [value + 0.015625 for row in LONG for value in row]
    one = {"name": "x", "shape": [len(LONG), 3], "datatype": "FP64", "data": data}
    body = json.dumps({"inputs": [one]}).encode()
    assert LARGE_BODY < len(body) < MAX_BINARY
    ((with_fast_path, without, by_fast_path),) = both(running, ([body], []), path=PATH)
    assert not by_fast_path
    assert with_fast_path == without
    assert with_fast_path.status == "HTTP/1.1 200 OK"


def test_a_model_of_words_and_dates_leaves_binary_numbers_to_the_route(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    publish(tmp_path / "models", version_of_table(), "crop-yield")
    for running in started(tmp_path):
        ((with_fast_path, without, by_fast_path),) = both(running, tensor([[1, 2, 3, 4, 5]]), path=PATH)
        assert not by_fast_path
        assert with_fast_path == without


SMALL_BUDGET = 1 << 20  # Bytes, of which connections may have 14 sixteenths.


def test_incomplete_binary_bodies_count_until_their_connections_end(running: Running) -> None:
    services = replace(running.state["services"], memory=MemoryBudget(SMALL_BUDGET))
    hooks = ServiceHooks(services, header_timeout=600, transfer_grace=600)
    state = {**running.state, "services": services, "hooks": hooks, "fast_paths": fast_paths(services)}
    small = running._replace(state=state)
    most = SMALL_BUDGET * 14 // 16

    async def flood() -> list[bytes]:
        head, part, *_ = written_of([b" " * 160_000, b" "], [(LENGTH, b"100")], PATH)
        opened = [connect(small, fast_path=True) for _ in range(12)]
        for connection, _ in opened:
            connection.data_received(head)
            for start in range(0, len(part), 64 << 10):
                connection.data_received(part[start : start + (64 << 10)])
        await asyncio.sleep(0)
        written = [wire.written for _, wire in opened]
        for connection, _ in opened:
            connection.connection_lost(None)
        return written

    written = small.runner.run(flood())
    fit = most // 160_000
    assert written[:fit] == [b""] * fit
    assert {Answer(text).status for text in written[fit + 1 :]} == {"HTTP/1.1 503 Service Unavailable"}
    assert {dict(Answer(text).headers)["retry-after"] for text in written[fit + 1 :]} == {"5"}
    assert all(json.loads(Answer(text).body)["error"].startswith("Other requests use") for text in written[fit + 1 :])
    assert services.memory.try_reserve(most, most)
