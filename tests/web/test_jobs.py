"""Guarantees for callers that repeat requests, page through jobs, follow and cancel them."""

import base64
import hashlib
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import sync_playwright
from service import INPUTS, NOTEBOOK, Service, wait_for

from app.web.job_watcher import MAX_FOLLOWERS

BODY = json.dumps({**NOTEBOOK, "promote": "never"}).encode()
KEY = {"content-type": "application/json", "idempotency-key": "harvest"}
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ENDLESS = {"kind": "gradient_descent", "epochs": 10_000_000, "learning_rate": 1e-9}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("jobs"), workers=2, transfer_grace="600").start()
    yield running
    running.stop()


def arriving(service: Service, headers: dict[str, str], body: bytes) -> socket.socket:
    """Send half of a request, and return once the service has read it."""
    where = urlsplit(service.url)
    connection = socket.create_connection((where.hostname, where.port), timeout=60)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    length = f"host: {where.netloc}\r\ncontent-length: {len(body)}\r\nexpect: 100-continue\r\n"
    connection.sendall(f"POST /train HTTP/1.1\r\n{length}{head}\r\n".encode())
    # The service sends 100 Continue when it begins to read the body.
    assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")
    connection.sendall(body[: len(body) // 2])
    return connection


def test_a_key_is_refused_while_its_first_request_is_being_received(own: Service) -> None:
    with closing(arriving(own, KEY, BODY)) as first:
        for _ in range(8):  # both workers
            refused = own.client.post("/train", content=BODY, headers={**KEY, "connection": "close"})
            assert refused.status_code == 409, refused.text
            assert "is being received" in refused.json()["detail"]
        assert own.client.post("/train", content=BODY, headers={**KEY, "idempotency-key": "other"}).status_code == 202
        first.sendall(BODY[len(BODY) // 2 :])
        assert first.recv(1000).startswith(b"HTTP/1.1 202")
    repeated = own.client.post("/train", content=BODY, headers={**KEY, "prefer": "wait=60"})
    assert repeated.json()["status"] == "succeeded"
    another = json.dumps({**NOTEBOOK, "instances": INPUTS[::-1]}).encode()
    assert own.client.post("/train", content=another, headers=KEY).status_code == 422
    assert list((own.state / "spool").glob("*")) == []


def test_a_key_is_free_again_after_its_request_was_interrupted(own: Service) -> None:
    headers = {**KEY, "idempotency-key": "broken-off"}
    with closing(arriving(own, headers, BODY)):
        assert own.client.post("/train", content=BODY, headers=headers).status_code == 409
    # The service notices the disconnect a moment later.
    wait_for(lambda: own.client.post("/train", content=BODY, headers=headers).status_code == 202)


def test_cancelling_again_changes_nothing(own: Service) -> None:
    job_id = own.submit(**NOTEBOOK, solver=ENDLESS)
    first, second = (own.client.post(f"/jobs/{job_id}/cancel") for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json() == own.job(job_id)
    assert first.json()["status"] == "cancelled"


@pytest.mark.parametrize(
    "position",
    [
        [0, "0001-01-01T00:00:00"],
        [0, "0001-01-01T00:00:00+14:00"],
        [0, "9999-12-31T23:59:59-14:00"],
        [0, "2026-11-24"],
        [-1, "2026-11-24T00:00:00+00:00"],
        [2**31, "2026-11-24T00:00:00+00:00"],
        [0.5, "2026-11-24T00:00:00+00:00"],
        [0, 5],
        [0],
        {},
        None,
    ],
    ids=str,
)
def test_an_invalid_token_is_refused(own: Service, position: object) -> None:
    token = base64.urlsafe_b64encode(json.dumps(position).encode()).decode()
    answer = own.client.get("/jobs", params={"next": token})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["parameter"] == "next"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"])
def test_a_token_of_any_time_has_a_page(own: Service, time: str) -> None:
    token = base64.urlsafe_b64encode(json.dumps([2**31 - 1, time]).encode()).decode()
    assert own.client.get("/jobs", params={"next": token}).json() == {"items": [], "next": None}


def followers(service: Service, job_id: str, count: int) -> ExitStack:
    """Open `count` connections that follow a job, and wait for the first event of each."""
    where = urlsplit(service.url)
    opened = ExitStack()
    head = f"GET /jobs/{job_id}/events HTTP/1.1\r\nhost: {where.netloc}\r\n\r\n"
    for _ in range(count):
        connection = opened.enter_context(socket.create_connection((where.hostname, where.port), timeout=60))
        connection.sendall(head.encode())
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
    return opened


@pytest.mark.slow
def test_followers_are_limited_and_one_that_leaves_is_replaced_by_another(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_mode="external").start()
    try:
        job_id = service.submit(**NOTEBOOK)
        with followers(service, job_id, MAX_FOLLOWERS):
            refused = service.client.get(f"/jobs/{job_id}/events")
            assert refused.status_code == 503
            assert "already follow jobs" in refused.json()["detail"]
            # Other requests do not wait for the followers, whose job does not end.
            assert service.client.get("/models").status_code == 200
            assert service.client.post(f"/jobs/{job_id}/cancel").status_code == 200
        wait_for(lambda: service.client.get(f"/jobs/{job_id}/events").status_code == 200)
    finally:
        service.stop()


def test_all_followers_of_a_job_see_its_end(own: Service) -> None:
    job_id = own.submit(**NOTEBOOK, solver=ENDLESS)
    with ThreadPoolExecutor(12) as pool:
        ends = [pool.submit(own.end_of, job_id) for _ in range(12)]
        own.client.post(f"/jobs/{job_id}/cancel")
        assert {end.result()["status"] for end in ends} == {"cancelled"}


def test_a_revoked_key_no_longer_follows_a_job(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    lines = [f"{name} train {hashlib.sha256(name.encode()).hexdigest()}\n" for name in ("kept", "lost")]
    keys.write_text("".join(lines))
    service = Service(tmp_path, trainer_mode="external", api_keys_file=str(keys)).start()
    try:
        kept, lost = ({"x-api-key": name} for name in ("kept", "lost"))
        job_id = service.client.post("/train", json=NOTEBOOK, headers=kept).json()["id"]
        with (
            service.client.stream("GET", f"/jobs/{job_id}/events", headers=lost) as followed,
            service.client.stream("GET", f"/jobs/{job_id}/events", headers=kept) as others,
        ):
            lines_of, others_lines = followed.iter_lines(), others.iter_lines()
            assert any(line.startswith("data: ") for line in lines_of)
            keys.write_text(lines[0])
            assert not any(line.startswith("data: ") for line in lines_of)  # the stream ends while the job continues
            service.client.post(f"/jobs/{job_id}/cancel", headers=kept)
            assert '"cancelled"' in "".join(others_lines)
    finally:
        service.stop()


def connections(service: Service, job_id: str, last: str | None = None) -> Iterator[list[dict[str, Any]]]:
    """Connect and reconnect as a browser's EventSource does. Yield the events of each connection."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        while True:
            headers = {"accept": "text/event-stream", "connection": "close"}  # any worker may answer
            headers |= {} if last is None else {"last-event-id": last}
            with client.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
                if answer.status_code != 200:
                    assert (answer.status_code, answer.read()) == (204, b"")
                    return
                events: list[dict[str, Any]] = []
                fields: dict[str, str] = {}
                for line in answer.iter_lines():
                    if not line and "data" in fields:
                        last = fields["id"]
                        events.append({"id": last, "job": json.loads(fields["data"])})
                        fields = {}
                        if len(events) == 1 and not events[0]["job"]["finished_at"]:
                            break  # the connection is lost
                    elif line:
                        name, _, value = line.partition(": ")
                        fields[name] = value
            yield events


def test_a_reconnecting_client_gets_new_events_and_stops_after_the_end(own: Service) -> None:
    job_id = own.submit(**NOTEBOOK, solver=ENDLESS)
    connected = connections(own, job_id)
    found = [*next(connected), *next(connected)]
    own.client.post(f"/jobs/{job_id}/cancel")
    for events in connected:
        found += events
    ids = [event["id"] for event in found]
    assert len(ids) == len(set(ids))
    assert found[-1]["job"] == own.job(job_id)
    assert found[-1]["job"]["status"] == "cancelled"


def test_a_client_that_follows_an_ended_job_gets_its_end_once(own: Service) -> None:
    job = own.train(**NOTEBOOK, promote="never")
    (events,) = connections(own, job["id"])
    assert [event["job"] for event in events] == [job]
    assert list(connections(own, job["id"], events[0]["id"])) == []
    assert list(connections(own, job["id"], "an id of before")) == [events]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")
def test_a_browser_stops_following_a_job_that_has_ended(own: Service) -> None:
    job = own.train(**NOTEBOOK, promote="never")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"{own.url}/docs")
        found = page.evaluate(
            """path => new Promise(resolve => {
                const source = new EventSource(path), ids = [];
                source.addEventListener("job", event => ids.push(event.lastEventId));
                source.onerror = () => source.readyState === EventSource.CLOSED && resolve(ids);
            })""",
            f"/jobs/{job['id']}/events",
        )
        browser.close()
    assert len(found) == 1
