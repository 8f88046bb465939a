"""What is stored is bounded: an upload that there is no room for is refused, before it is received where it can be."""

import errno
import http.client
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import MODELS, NOTEBOOK, Service

from app.data.table_writers import SpillingFile
from app.errors import SpoolFull, Unavailable
from app.jobs.scratch import Scratch
from app.jobs.spool import Spool

ROOM = 20_000_000
ENDLESS = {"kind": "gradient_descent", "epochs": 10_000_000, "learning_rate": 1e-9}
CSV = MODELS.joinpath("crop-yield/yields.csv").read_bytes()
HEADERS = {"content-type": "text/csv"}
TARGETS = {"targets": "apples,oranges"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("room"), max_spool_bytes=str(ROOM)).start()
    yield running
    running.stop()


def chunks(size: int) -> Iterator[bytes]:
    yield CSV
    for _ in range(size // 1_000_000):
        yield b"1,2,3,4,5\n" * 100_000


def test_an_upload_that_says_it_is_too_long_is_refused_before_a_byte_of_it_comes(small: Service) -> None:
    connection = http.client.HTTPConnection(small.url.removeprefix("http://"), timeout=20)
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
    assert [*small.state.glob("spool/*"), *small.state.glob("scratch/*")] == []


def test_an_upload_of_unknown_length_is_refused_once_it_is_too_long(small: Service) -> None:
    answer = small.client.post("/train", params=TARGETS, content=chunks(2 * ROOM), headers=HEADERS)
    assert answer.status_code == 507
    assert list((small.state / "spool").glob("*")) == []


def test_rows_that_wait_take_the_room_of_others_until_their_job_ends(small: Service) -> None:
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
    accepted = small.client.post("/train", params=TARGETS, content=content, headers={**HEADERS, "prefer": "wait=20"})
    assert accepted.json()["status"] == "succeeded", accepted.text


def test_a_full_disk_is_told_from_other_faults(tmp_path: Path) -> None:
    def refuse(number: int) -> None:
        spool = Spool(tmp_path)
        with spool.writing(spool.new()):
            raise OSError(number, os.strerror(number))

    with pytest.raises(SpoolFull, match="No space left on device"):
        refuse(errno.ENOSPC)
    with pytest.raises(Unavailable, match="Input/output error") as other:
        refuse(errno.EIO)
    assert not isinstance(other.value, SpoolFull)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_the_disk_has_no_room_for_is_told_from_other_faults() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        file = SpillingFile(lambda _: False, lambda: full, 1000)
        with pytest.raises(SpoolFull, match="The answer cannot be stored: No space left on device"):
            file.write(b"more than ten bytes")


def test_some_of_the_disk_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    spool.check_room(1)
    with pytest.raises(SpoolFull, match="on the disk"):
        spool.check_room(1 << 62)

    monkeypatch.setattr("app.data.disk.RESERVED_BYTES", 1 << 62)
    monkeypatch.setattr("app.data.disk.RESERVED_SHARE", 2.0)
    with pytest.raises(SpoolFull, match="on the disk"):
        spool.check_room()
    with pytest.raises(SpoolFull, match="on the disk"):
        Scratch(tmp_path, 1 << 62).file()
