"""CORS, seen by a browser that shows a page of another origin."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from browsing import CHROMIUM, FLAGS
from playwright.sync_api import Page, sync_playwright
from service import NOTEBOOK, Service
from sign_in import KEYS, key_of, write_keys
from threaded_service import ThreadedService

PREDICT = {"instances": [[75, 63, 44]]}
PREDICTION = [53.79556783791256, 66.80653442744479]
LISTED = "https://app.example.org"
LONGEST_MS = 120_000  # Longest wait for the browser, in milliseconds. It matters only if a test fails.
# Sends a request as a page does, and returns what a script of the page can read.
FETCH = """async ([url, method, body, headers]) => {
  try {
    const response = await fetch(url, {method, headers, body: body && JSON.stringify(body)});
    return {status: response.status, body: await response.json(), headers: Object.fromEntries(response.headers)};
  } catch (error) {
    return {failed: error.name};
  }
}"""


@contextlib.contextmanager
def site() -> Iterator[str]:
    """Serve an empty page. Yield its origin, which is not that of the service."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Another site</title>")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server
            """Write no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def origins() -> Iterator[tuple[str, str]]:
    """An origin that services list, and one that they do not."""
    with site() as listed, site() as other:
        yield listed, other


@pytest.fixture(scope="module")
def sharing(origins: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without keys that lists an origin."""
    folder = tmp_path_factory.mktemp("sharing")
    service = ThreadedService(folder, cors_origins=f"{LISTED}, {origins[0]}").start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def guarded(origins: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with keys that lists an origin."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = write_keys(folder / "keys", *KEYS)
    service = ThreadedService(folder, api_keys_file=str(keys), cors_origins=origins[0]).start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS, timeout=LONGEST_MS)
        shown = browser.new_page()
        shown.set_default_timeout(LONGEST_MS)
        yield shown
        browser.close()


def fetch(page: Page, url: str, method: str = "GET", body: Any = None, **headers: str) -> dict[str, Any]:
    typed = {"content-type": "application/json"} if body else {}
    result: dict[str, Any] = page.evaluate(FETCH, [url, method, body, typed | headers])
    return result


def test_a_page_of_a_listed_origin_predicts_and_reads_the_headers(
    page: Page, sharing: Service, origins: tuple[str, str]
) -> None:
    page.goto(origins[0])
    answer = fetch(page, f"{sharing.url}/predict", "POST", PREDICT, **{"linserve-min-version": "1"})
    assert answer["status"] == 200
    assert answer["body"]["predictions"] == [pytest.approx(PREDICTION)]
    assert answer["headers"]["linserve-version"] == "1"
    assert "x-request-id" in answer["headers"]
    card = fetch(page, f"{sharing.url}/models/crop-yield")
    assert (card["status"], card["body"]["version"]) == (200, 1)
    assert "etag" in card["headers"]
    missing = fetch(page, f"{sharing.url}/models/other")
    assert (missing["status"], missing["body"]["title"]) == (404, "Model not found")


def test_a_page_of_another_origin_reads_nothing(page: Page, sharing: Service, origins: tuple[str, str]) -> None:
    page.goto(origins[1])
    for method, path, body in (("GET", "/models", None), ("POST", "/predict", PREDICT), ("POST", "/train", NOTEBOOK)):
        assert fetch(page, f"{sharing.url}{path}", method, body) == {"failed": "TypeError"}


def test_without_keys_no_page_of_another_site_changes_anything(
    page: Page, sharing: Service, origins: tuple[str, str]
) -> None:
    page.goto(origins[0])
    for method, path, body in (
        ("POST", "/train", NOTEBOOK),
        ("DELETE", "/models/crop-yield", None),
        ("PUT", "/models/crop-yield/aliases/a", {"version": 1}),
    ):
        answer = fetch(page, f"{sharing.url}{path}", method, body, **{"if-match": "*"})
        assert answer["status"] == 403
        assert "another site" in answer["body"]["detail"]
    assert sharing.client.post("/train", json=NOTEBOOK).status_code == 202  # this machine itself, not a page


def test_a_page_with_a_key_trains_and_reads_the_location(
    page: Page, guarded: Service, origins: tuple[str, str]
) -> None:
    page.goto(origins[0])
    assert fetch(page, f"{guarded.url}/train", "POST", NOTEBOOK)["status"] == 401
    key = {"authorization": f"Bearer {key_of('ops')}", "idempotency-key": "one"}
    answer = fetch(page, f"{guarded.url}/train", "POST", NOTEBOOK, **key)
    assert answer["status"] == 202
    assert answer["headers"]["location"] == f"/jobs/{answer['body']['id']}"


def test_without_a_page_the_headers_of_the_fast_path_and_of_the_route_are_the_same(sharing: Service) -> None:
    path, known = "/v1/models/crop-yield:predict", {"x-request-id": "same"}
    fast, slow = (sharing.client.post(f"{path}{query}", json=PREDICT, headers=known) for query in ("", "?x"))
    del fast.headers["date"], slow.headers["date"]
    assert fast.headers.multi_items() == slow.headers.multi_items()
    assert "vary" not in fast.headers


def test_only_requests_of_a_listed_origin_get_its_name_and_all_responses_vary_by_it(sharing: Service) -> None:
    for path in ("/models", "/", "/docs", "/predict", "/elsewhere"):
        allowed = sharing.client.get(path, headers={"origin": LISTED}).headers
        assert allowed["access-control-allow-origin"] == LISTED
        assert "access-control-allow-credentials" not in allowed
        for other in ({}, {"origin": "https://app.example.org.evil.example"}, {"origin": "null"}):
            refused = sharing.client.get(path, headers=other).headers
            assert not any(name.startswith("access-control") for name in refused)
            assert refused["vary"] == allowed["vary"]
            assert refused["vary"] == "accept, linserve-fragment, Origin"


def test_a_preflight_of_another_origin_is_an_ordinary_request(sharing: Service) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-api-key"}
    allowed = sharing.client.options("/predict", headers={"origin": LISTED, **asked})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == LISTED
    assert allowed.headers["access-control-allow-headers"] == "content-type,x-api-key"
    refused = sharing.client.options("/predict", headers={"origin": "https://other.example", **asked})
    assert refused.status_code == 204
    assert not any(name.startswith("access-control") for name in refused.headers)


def test_the_prediction_of_a_listed_page_is_that_of_the_fast_path(sharing: Service) -> None:
    fast = sharing.client.post("/predict", json=PREDICT)
    shared = sharing.client.post("/predict", json=PREDICT, headers={"origin": LISTED})
    assert shared.content == fast.content
    assert shared.headers["access-control-allow-origin"] == LISTED
    assert "access-control-allow-origin" not in fast.headers


def test_no_origin_is_listed_by_default(page: Page, service: Service, origins: tuple[str, str]) -> None:
    page.goto(origins[0])
    assert fetch(page, f"{service.url}/models") == {"failed": "TypeError"}
    assert httpx.get(f"{service.url}/models", timeout=60).status_code == 200
