"""A worker takes no more memory than its budget allows, and rejects requests that need more."""

import contextlib
import gzip
import io
import itertools
import json
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service import ROOT, Service, wait_for
from trained import model_of, version_of

from app.registry.folder.publisher import FolderPublisher

BUDGET = 128 << 20
MAX_OVER = 1.25
JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
FEATURES = ("temp", "rainfall", "humidity")
ROW = b'{"temp":1,"rainfall":1,"humidity":1}\n'
WORDY = ROW[:-2] + b',"word":"%b"}\n'
KEEP = "?keep=word"
ANSWERED = {200, 400, 413, 422, 503, 507}


@dataclass(frozen=True)
class Sent:
    """A request, and how its client behaves."""

    kind: str
    content: str  # a name in CONTENTS
    encoding: str
    accept: str
    manner: str  # the client's behaviour, one of MANNERS
    interval: bool = False


def table(rows: int, **columns: object) -> pa.Table:
    return pa.table({**{name: np.ones(rows) for name in FEATURES}, **columns})


def arrow(made: pa.Table, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, made.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as stream:
        stream.write_table(made)
    return sink.getvalue()


def parquet(made: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(made, sink, compression="zstd")
    return sink.getvalue()


def instances(rows: bytes) -> bytes:
    return b'{"instances":[' + rows + b"]}"


WORD = "w" * 5000
CONTENTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "rows as arrays": (NDJSON, lambda: b"[1,1,1]\n" * 1_000_000),
    "rows as objects": (NDJSON, lambda: ROW * 300_000),
    "arrays of nothing": (NDJSON, lambda: b"[1,1,1]\n" + b"[]\n" * 3_000_000),
    "an array of arrays": (NDJSON, lambda: b"[" + b"[]," * 300_000 + b"1]\n"),
    "lines of long words": (NDJSON + KEEP, lambda: WORDY % (b"\\u0001" * 800) * 3000),
    "lines without a value": (CSV, lambda: b"temp,rainfall,humidity\n" + b",,\n" * 1_000_000),
    "short rows": (CSV, lambda: b"temp,rainfall,humidity\n" + b"1,1,1\n" * 1_000_000),
    "rows in quotes": (CSV, lambda: b"temp,rainfall,humidity\n" + b'"1",1,1\n' * 500_000),
    "rows with words": (CSV + KEEP, lambda: b"temp,rainfall,humidity,word\n" + b"1,1,1,a\n" * 1_000_000),
    "ten thousand columns": (CSV, lambda: b",".join(b"c%d" % n for n in range(10_000)) + b"\n" + b"1," * 2_000_000),
    "a batch": (ARROW, lambda: arrow(table(1_000_000))),
    "a packed batch": (ARROW, lambda: arrow(table(2_000_000), "zstd")),
    "a batch of words": (ARROW + KEEP, lambda: arrow(table(2000, word=[WORD] * 2000), "zstd")),
    "a batch of booleans": (ARROW + KEEP, lambda: arrow(table(1_000_000, word=pa.array([True] * 1_000_000)))),
    "equal rows": (PARQUET, lambda: parquet(table(2_000_000))),
    "equal words": (PARQUET + KEEP, lambda: parquet(table(20_000, word=[WORD] * 20_000))),
    "a long word": (PARQUET + KEEP, lambda: parquet(table(10, word=["w" * 4_000_000] * 10))),
    "a row as JSON": (JSON, lambda: instances(b"[75,63,44]")),
    "many rows as JSON": (JSON, lambda: instances(b",".join([b"[75.5,63.25,44]"] * 100_000))),
    "a row of many numbers": (JSON, lambda: instances(b"[" + b"1," * 4_000_000 + b"1]")),
    "a row of many names": (JSON, lambda: instances(b"{" + b",".join(b'"%x":1' % n for n in range(900_000)) + b"}")),
    "nothing but blanks": (JSON, lambda: b" " * (15 << 20)),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "identity": lambda content: content,
    "gzip": lambda content: gzip.compress(content, 1),
    "zstd": zstd.compress,
}
MANNERS = ("asks", "asks", "asks twice at once", "does not read", "does not end")


@st.composite
def sent(draw: st.DrawFn) -> Sent:
    content = draw(st.sampled_from(sorted(CONTENTS)))
    kind = CONTENTS[content][0]
    accept = draw(st.sampled_from((JSON, NDJSON, CSV, ARROW, PARQUET)))
    return Sent(
        kind,
        content,
        draw(st.sampled_from(sorted(PACKED))),
        accept,
        draw(st.sampled_from(MANNERS)),
        interval=kind != JSON and draw(st.booleans()),
    )


class Bodies:
    """Bodies are made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], bytes] = {}

    def of(self, one: Sent) -> bytes:
        plain = self._made.setdefault((one.content, "identity"), b"") or CONTENTS[one.content][1]()
        self._made[one.content, "identity"] = plain
        key = one.content, one.encoding
        if key not in self._made:
            self._made[key] = PACKED[one.encoding](plain)
        return self._made[key]

    def request(self, one: Sent) -> bytes:
        kind, _, query = one.kind.partition("?")
        query = "&".join(filter(None, [query, "interval=0.9" if one.interval else ""]))
        body = self.of(one)
        head = f"POST /predict{'?' + query if query else ''} HTTP/1.1\r\nhost: here\r\ncontent-type: {kind}\r\n"
        head += f"accept: {one.accept}\r\ncontent-length: {len(body)}\r\n"
        if one.encoding != "identity":
            head += f"content-encoding: {one.encoding}\r\n"
        return f"{head}\r\n".encode() + body


class Flood:
    """Clients that all send at once, each on a connection of its own, and stay until all have their answers."""

    def __init__(self, service: Service, requests: list[tuple[Sent, bytes]]) -> None:
        self._address = "127.0.0.1", int(service.url.rpartition(":")[2])
        self._leave = threading.Event()
        self.statuses: set[int] = set()
        asking = [threading.Thread(target=self._ask, args=one) for one in requests if one[0].manner.startswith("asks")]
        rude = [threading.Thread(target=self._stay, args=one) for one in requests if "not" in one[0].manner]
        for thread in [*rude, *asking]:
            thread.start()
        for thread in asking:
            thread.join()
        self._leave.set()
        for thread in rude:
            thread.join()

    def _ask(self, one: Sent, request: bytes) -> None:
        with self._sending(request * (2 if "twice" in one.manner else 1)) as connection:
            answer = connection.makefile("rb")
            with contextlib.suppress(ConnectionError):
                status = answer.readline().split()
                if status:
                    self.statuses.add(int(status[1]))
                lines = iter(answer.readline, b"\r\n")
                length = next((int(line.split()[1]) for line in lines if line.startswith(b"content-length")), 0)
                while length and (taken := len(answer.read(min(length, 1 << 20)))):
                    length -= taken

    def _stay(self, one: Sent, request: bytes) -> None:
        with self._sending(request if one.manner == "does not read" else request[:-1]):
            self._leave.wait()

    @contextlib.contextmanager
    def _sending(self, data: bytes) -> Iterator[socket.socket]:
        with socket.create_connection(self._address, timeout=300) as connection:
            with contextlib.suppress(ConnectionError):  # refused before all of it came
                connection.sendall(data)
            yield connection


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(
        tmp_path_factory.mktemp("budget"),
        trainer_mode="external",
        worker_memory=str(BUDGET),
        transfer_grace="600",  # so that bodies that do not end stay in memory until the client leaves
    ).start()
    # Modules that are imported when first needed do not belong to one request.
    for kind, accept in itertools.product((ARROW, PARQUET), (CSV, NDJSON, ARROW, PARQUET)):
        content = arrow(table(1)) if kind == ARROW else parquet(table(1))
        answer = service.client.post(
            "/predict?interval=0.9", content=content, headers={"content-type": kind, "accept": accept}
        )
        assert answer.status_code == httpx.codes.OK
    yield service
    service.stop()


def stays_within(service: Service, requests: list[Sent], bodies: Bodies) -> None:
    idle = service.memory("VmRSS")
    with service.growing_by_less_than(int(MAX_OVER * BUDGET)):
        flood = Flood(service, [(one, bodies.request(one)) for one in requests])
    assert flood.statuses <= ANSWERED
    assert service.predict([75, 63, 44])["version"] == 1, idle


BODIES = Bodies()


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([Sent(NDJSON, "rows as arrays", "gzip", NDJSON, "asks")] * 10, marks=pytest.mark.slow),
        [
            Sent(CONTENTS[content][0], content, "zstd", NDJSON, manner)
            for content, manner in itertools.product(("many rows as JSON", "a batch of words"), MANNERS[1:])
        ],
        [Sent(JSON, "nothing but blanks", "identity", JSON, "does not end")] * 12
        + [Sent(JSON, "a row of many names", "gzip", JSON, "asks")],
    ],
    ids=["packed tables", "slow clients", "long bodies"],
)
def test_a_flood_stays_within_the_budget(bounded: Service, requests: list[Sent]) -> None:
    stays_within(bounded, requests, BODIES)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(sent(), min_size=1, max_size=24))
def test_the_worker_stays_within_its_budget_for_any_requests(bounded: Service, requests: list[Sent]) -> None:
    stays_within(bounded, requests, BODIES)


# Prints the bytes that a web worker keeps of 96 MiB that it has freed below a block that it still has.
FREED = """
import app.serve
from pathlib import Path

held = lambda: int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) << 10
grown = bytearray(24 << 20)
del grown  # From then on, glibc would place smaller blocks in the heap.
before = held()
blocks = [bytearray(12 << 20) for _ in range(8)]
above = bytearray(1 << 16)
assert held() - before > 90 << 20
del blocks
print(held() - before)
"""


# Prints the pages that a web worker gets from the system for 100 blocks of 3 MiB, each of which is freed at once.
REUSED = """
import app.serve
import resource

faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = bytearray(3 << 20)
del first
before = faults()
for _ in range(100):
    block = bytearray(3 << 20)
    del block
print(faults() - before)
"""
ONLY_GLIBC = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries do not move large blocks to the heap"
)


def output_of(program: str) -> int:
    return int(subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True).stdout)


@ONLY_GLIBC
def test_a_web_worker_returns_the_memory_of_large_bodies_when_they_are_freed() -> None:
    assert output_of(FREED) < 12 << 20


@ONLY_GLIBC
def test_a_web_worker_reuses_the_memory_of_smaller_bodies() -> None:
    assert output_of(REUSED) < 3 << 20 >> 12  # the pages of one block


def test_a_busy_worker_sends_a_time_to_retry_after(bounded: Service) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            body = CONTENTS["nothing but blanks"][1]()
            one = stack.enter_context(socket.create_connection(("127.0.0.1", int(bounded.url.rpartition(":")[2]))))
            head = b"POST /predict HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
            one.sendall(head + b"content-length: %d\r\n\r\n" % (len(body) + 1) + body[: 8 << 20])
        answers = []

        def is_refused() -> bool:
            content = json.dumps({"instances": [[75, 63, 44]] * 10_000})
            answers.append(bounded.client.post("/predict", content=content, headers={"content-type": JSON}))
            return answers[-1].status_code == httpx.codes.SERVICE_UNAVAILABLE

        wait_for(is_refused)
        assert int(answers[-1].headers["retry-after"]) > 1
        problem = answers[-1].json()
        assert problem["type"] == "urn:linserve:problem:worker-busy"
        assert "Send it again later" in problem["detail"]
        assert bounded.predict([75, 63, 44])["version"] == 1
        assert bounded.predict([75, 63, 44], interval=0.9)["version"] == 1
    many = CONTENTS["many rows as JSON"][1]()

    def is_accepted() -> bool:
        answer = bounded.client.post("/predict", content=many, headers={"content-type": JSON})
        return answer.status_code == httpx.codes.OK

    wait_for(is_accepted)


def test_a_request_that_needs_more_memory_than_one_request_may_have_is_rejected_for_good(bounded: Service) -> None:
    content = CONTENTS["a row of many numbers"][1]()
    answer = bounded.client.post("/predict", content=content, headers={"content-type": JSON})
    assert answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert "a request may have" in answer.json()["detail"]


def test_a_body_that_never_fits_is_rejected_for_good_also_if_the_worker_is_busy(bounded: Service) -> None:
    expanding = gzip.compress(b" " * BUDGET, 1)
    with socket.create_connection(("127.0.0.1", int(bounded.url.rpartition(":")[2]))) as busy:
        busy.sendall(b"POST /predict HTTP/1.1\r\nhost: here\r\ncontent-length: 9000000\r\n\r\n" + b" " * (8 << 20))
        with bounded.growing_by_less_than(BUDGET):
            answer = bounded.client.post(
                "/models/wide/versions", content=expanding, headers={"content-encoding": "gzip"}
            )
    assert answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE, answer.text
    assert "a request may have" in answer.json()["detail"]


@pytest.mark.slow
def test_cards_of_wide_models_that_are_read_at_once_stay_within_the_budget(bounded: Service) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(900, 800))
    made = version_of(model_of(x, x[:, :1] + random.normal(size=(900, 1))))
    names = [f"wide-{number}" for number in range(5)]
    for name in names:
        FolderPublisher(bounded.models).publish(replace(made.card, model=name), made.model, promote=True)

    with bounded.growing_by_less_than(int(MAX_OVER * BUDGET)), ThreadPoolExecutor(30) as readers:
        statuses = set(readers.map(lambda name: bounded.client.get(f"/models/{name}").status_code, names * 12))

    assert statuses <= {200, 503}
    assert 200 in statuses
