"""Stored uploads have a size limit. An upload that exceeds it is rejected, if possible before its body is received."""

import contextlib
import errno
import http.client
import os
import select
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from backports import zstd
from service import MODELS, NOTEBOOK, Service, wait_for
from threaded_service import ThreadedService

from app.data.content import HEAD_BYTES
from app.errors import SpoolFull, Unavailable
from app.storage.spooled_output import SpooledOutput
from app.storage.temp import TempStorage
from app.training.uploads import UploadStore

ROOM = 20_000_000
ENDLESS = {"kind": "gradient_descent", "epochs": 10_000_000, "learning_rate": 1e-9}
CSV = MODELS.joinpath("crop-yield/yields.csv").read_bytes()
HEADERS = {"content-type": "text/csv"}
TARGETS = {"targets": "apples,oranges"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = ThreadedService(tmp_path_factory.mktemp("room"), max_spool_bytes=str(ROOM), transfer_grace="600").start()
    yield running
    running.stop()


def chunks(size: int) -> Iterator[bytes]:
    yield CSV
    for _ in range(size // 1_000_000):
        yield b"1,2,3,4,5\n" * 100_000


def test_an_upload_with_a_content_length_above_the_limit_is_rejected_before_its_body_is_received(
    small: Service,
) -> None:
    before = {*small.state.glob("spool/*"), *small.state.glob("scratch/*")}
    connection = http.client.HTTPConnection(small.url.removeprefix("http://"), timeout=60)
    for path in ("/train?targets=apples,oranges", "/predict"):
        connection.putrequest("POST", path)
        for name, value in {**HEADERS, "content-length": str(ROOM + 1)}.items():
            connection.putheader(name, value)
        # The rows of a prediction are stored only once they are many.
        connection.endheaders(b"" if path != "/predict" else b"0" * (1 << 23) + b"0")
        answer = connection.getresponse()
        assert answer.status == 507
        assert int(answer.headers["retry-after"]) > 0
        assert b"urn:linserve:problem:spool-full" in answer.read()
        connection.close()
    assert {*small.state.glob("spool/*"), *small.state.glob("scratch/*")} <= before


def test_an_upload_of_unknown_length_is_refused_once_it_is_too_long(small: Service) -> None:
    before = set(small.state.glob("spool/*"))
    answer = small.client.post("/train", params=TARGETS, content=chunks(2 * ROOM), headers=HEADERS)
    assert answer.status_code == 507
    assert set(small.state.glob("spool/*")) <= before


@pytest.mark.slow
def test_uploaded_rows_take_space_from_other_uploads_until_their_job_ends(tmp_path: Path) -> None:
    small = ThreadedService(tmp_path, trainer=True, max_spool_bytes=str(ROOM), transfer_grace="600").start()
    blocking = small.submit(**NOTEBOOK, solver=ENDLESS)
    next(job for job in small.follow(blocking) if job["status"] == "running")
    content = b"".join(chunks(ROOM * 2 // 3))
    waiting = small.client.post("/train", params=TARGETS, content=content, headers=HEADERS)
    assert waiting.status_code == 202
    refused = small.client.post("/train", params=TARGETS, content=content, headers=HEADERS)
    assert refused.status_code == 507
    assert "wait for their training" in refused.json()["detail"]

    small.client.post(f"/jobs/{waiting.json()['id']}/cancel")
    small.client.post(f"/jobs/{blocking}/cancel")
    accepted = small.client.post("/train", params=TARGETS, content=content, headers={**HEADERS, "prefer": "wait=60"})
    assert small.ended_job(accepted)["status"] == "succeeded", accepted.text
    small.stop()


def held_body(
    service: Service, body: bytes, headers: dict[str, str], path: str = "/predict"
) -> http.client.HTTPConnection:
    """Send a request except for its last byte."""
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", path)
    for name, value in {**headers, "content-length": str(len(body) + 1)}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    return connection


def stored(service: Service) -> int:
    size = 0
    for file in service.state.glob("scratch/*"):
        with contextlib.suppress(FileNotFoundError):  # it has just been removed
            size += file.stat().st_size
    return size


def test_rows_and_answers_of_predictions_have_room_of_their_own(small: Service) -> None:
    body = b"temp,rainfall,humidity\n" + b"1,1,1\n" * 1_500_000
    first = held_body(small, body, HEADERS)
    wait_for(lambda: stored(small) == len(body))
    refused = small.client.post("/predict", content=body, headers=HEADERS)
    assert refused.status_code == 507
    assert "space for temporary files is too small" in refused.json()["detail"]
    trained = small.client.post("/train", params=TARGETS, content=CSV, headers=HEADERS)
    assert trained.status_code == 202
    first.close()
    wait_for(lambda: stored(small) == 0)


def test_a_short_body_cannot_fill_the_disk_with_its_answer(small: Service) -> None:
    body = zstd.compress(b"temp,rainfall,humidity\n" + b"1,1,1\n" * 1_000_000)
    headers = {**HEADERS, "content-encoding": "zstd"}
    answer = small.client.post("/predict?interval=0.9&confidence=0.9", content=body, headers=headers)
    assert answer.status_code == 507, answer.text[:200]
    wait_for(lambda: stored(small) == 0)


@pytest.mark.slow
def test_short_bodies_that_become_long_ones_do_not_fill_the_memory(tmp_path: Path) -> None:
    service = Service(tmp_path, transfer_grace="600").start()
    # The first bytes do not compress well: the format is recognised only from HEAD_BYTES of the body.
    first = b"".join(b"%d,1,1\n" % number for number in np.random.default_rng(1).integers(10**9, size=2000))
    body = zstd.compress(b"temp,rainfall,humidity\n" + first + b"1,1,1\n" * 1_398_000, 19)[:-4]
    assert HEAD_BYTES < len(body) < 20_000
    headers = {**HEADERS, "content-encoding": "zstd"}
    before = service.memory("VmRSS")
    # Rows to predict for are inflated when all have come, and rows to train on as they come.
    path = "/train?targets=apples,oranges"
    connections = {(one := held_body(service, body, headers, path)).sock: one for _ in range(80)}
    answered, *_ = select.select(connections, [], [], 120)
    assert {connections[sock].getresponse().status for sock in answered} == {503}
    assert service.memory("VmHWM") - before < 640 << 20
    for connection in connections.values():
        connection.close()
    wait_for(lambda: not list((service.state / "spool").iterdir()))
    # The space is released, and long bodies are accepted again.
    assert len(service.predict(*[[75.0, 63.0, 44.0]] * 100_000, interval=0.9)["intervals"]) == 100_000
    service.stop()


def test_a_full_disk_is_distinguished_from_other_errors(tmp_path: Path) -> None:
    def refuse(number: int) -> None:
        spool = UploadStore(tmp_path)
        with spool.open_new(spool.new()):
            raise OSError(number, os.strerror(number))

    with pytest.raises(SpoolFull, match="No space left on device"):
        refuse(errno.ENOSPC)
    with pytest.raises(Unavailable, match="Input/output error") as other:
        refuse(errno.EIO)
    assert not isinstance(other.value, SpoolFull)
    assert list(tmp_path.iterdir()) == []


def test_a_response_that_does_not_fit_on_the_disk_is_distinguished_from_other_errors() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        file = SpooledOutput(lambda _: False, lambda: full, 1000)
        with pytest.raises(SpoolFull, match="The answer cannot be stored: No space left on device"):
            file.write(b"more than ten bytes")


def test_some_of_the_disk_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = UploadStore(tmp_path)
    spool.check_room(1)
    with pytest.raises(SpoolFull, match="on the disk"):
        spool.check_room(1 << 62)

    monkeypatch.setattr("app.storage.disk_space.RESERVED_BYTES", 1 << 62)
    monkeypatch.setattr("app.storage.disk_space.RESERVED_SHARE", 2.0)
    with pytest.raises(SpoolFull, match="on the disk"):
        spool.check_room()
    with pytest.raises(SpoolFull, match="no space for this request"):
        TempStorage(tmp_path, 1 << 62).open()


def test_an_upload_that_is_not_parquet_leaves_no_files(small: Service) -> None:
    headers = {"content-type": "application/vnd.apache.parquet"}
    before = set(small.state.glob("spool/*"))
    answer = small.client.post("/train?targets=a", content=b"a,b\n1,2\n" * 50_000, headers=headers)
    assert answer.status_code == 422
    assert set(small.state.glob("spool/*")) <= before
