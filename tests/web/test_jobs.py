"""Guarantees for callers that repeat requests, page through jobs, follow and cancel them."""

import base64
import hashlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browsing import CHROMIUM, FLAGS
from playwright.sync_api import sync_playwright
from raw_http import half_sent
from service import NOTEBOOK, Service, wait_for
from threaded_service import ThreadedService

from app.web.job_watcher import MAX_FOLLOWERS

ID = "00000000-0000-0000-0000-000000000000"
BODY = json.dumps({**NOTEBOOK, "promote": "never"}).encode()
KEY = {"content-type": "application/json", "idempotency-key": "harvest"}
ENDLESS = {"kind": "gradient_descent", "epochs": 10_000_000, "learning_rate": 1e-9}


@pytest.fixture
def own(publishing: Service) -> Service:
    return publishing


def test_a_key_is_free_again_after_its_request_was_interrupted(own: Service) -> None:
    headers = {**KEY, "idempotency-key": "broken-off"}
    with half_sent(own, headers, BODY):
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
    "start",
    [
        [20, "2026-11-24T00:00:00+00:00"],  # of an earlier release
        [20, "2026-11-24T00:00:00+00:00", {"model": "crop-yield"}],
        [[-1, 1, ID], {}],
        [[2**63, 1, ID], {}],
        [[1, 2**63, ID], {}],
        [[1.5, 1, ID], {}],
        [[1, 1, ID[1:]], {}],
        [[1, 1, f"{ID}\n"], {}],
        [[1, 1], {}],
        [[1, 1, ID], {"status": "gone"}],
        [[1, 1, ID], {"model": "\x00"}],
        [[1, 1, ID], {"since": "2026-11-24T00:00:00"}],
        [[1, 1, ID]],
        [],
        {},
        None,
    ],
    ids=str,
)
def test_an_invalid_token_is_refused(own: Service, start: object) -> None:
    answer = own.client.get("/jobs", params={"next": token_of(start)})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["parameter"] == "next"
    assert answer.json()["errors"][0]["detail"] == "The token is invalid. Send the `next` of the previous page."


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", None])
@pytest.mark.parametrize("number", [0, 2**63 - 1])
def test_a_token_with_any_numbers_has_a_page(own: Service, number: int, since: str | None) -> None:
    token = token_of([[number, number, ID], {"since": since}])
    answer = own.client.get("/jobs", params={"next": token})
    assert answer.status_code == 200, answer.text
    assert answer.json()["items"] == [] or (number and since != "9999-12-31T23:59:59-14:00")


def token_of(start: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(start).encode()).decode()


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
    service = ThreadedService(tmp_path, api_keys_file=str(keys)).start()
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


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
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
