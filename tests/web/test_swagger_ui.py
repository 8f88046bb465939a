"""Swagger UI in a real browser, without a network."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import CHROMIUM, FLAGS
from playwright.sync_api import Page, Request, expect, sync_playwright
from service import Service

WAIT = 120_000  # milliseconds

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(WAIT)
        yield page
        browser.close()


@pytest.fixture
def docs(page: Page, service: Service) -> Iterator[Page]:
    """The documentation of the service that the tests share."""
    with opened(page, service):
        yield page


@contextlib.contextmanager
def opened(page: Page, service: Service) -> Iterator[None]:
    """Open the documentation, and check afterwards that the page sent no request to another host."""
    urls: list[str] = []

    def listen(request: Request) -> None:
        urls.append(request.url)

    page.on("request", listen)
    page.goto(f"{service.url}/docs")
    yield
    page.remove_listener("request", listen)
    assert urls
    hosts = {url.partition("://")[2].partition("/")[0] for url in urls if url.startswith("http")}
    assert hosts == {service.url.removeprefix("http://")}


def execute(page: Page, operation: str, content_type: str | None = None) -> tuple[int, str]:
    """Open the operation, "Try it out", "Execute"; return status and body as the page shows them."""
    block = page.locator(f"[id='operations-{operation}']")
    summary = block.locator(".opblock-summary-control")
    summary.click()
    block.get_by_role("button", name="Try it out").click()
    if content_type:
        block.locator(".opblock-section-request-body .content-type").select_option(content_type)
    block.get_by_role("button", name="Execute").click()
    response = block.locator(".live-responses-table .response")
    expect(response).to_be_visible(timeout=WAIT)
    status = response.locator(".response-col_status").inner_text()
    body = response.locator(".response-col_description").inner_text()
    summary.click()  # closed, it is not rendered again for the next one
    return int(status.split()[0]), body


def operations(service: Service) -> list[str]:
    """Return all operations in the order of the document, but deletions last: parts of a model before it."""
    found = [
        (method == "delete" and -path.count("/"), f"{operation['tags'][0]}-{operation['operationId']}")
        for path, methods in service.client.get("/openapi.json").json()["paths"].items()
        for method, operation in methods.items()
    ]
    found.sort(key=lambda one: (one[0] is not False, one[0]))
    return [name for _, name in found]


@pytest.mark.slow
def test_every_operation_of_a_fresh_service_runs_as_it_is_prefilled(tmp_path: Path, page: Page) -> None:
    fresh = Service(tmp_path).start()
    try:
        with opened(page, fresh):
            answers = {}
            for operation in operations(fresh):
                if operation == "Train-mergeVersions":
                    continue  # its body is a file, which cannot be prefilled
                answers[operation] = execute(page, operation)
                if operation == "Train-train":
                    fresh.end_of("latest")  # on a busy machine, it takes longer than the prefilled wait
        left = fresh.client.get("/models").json()["items"]
    finally:
        fresh.stop()
    assert {name: answer for name, answer in answers.items() if answer[0] not in (200, 202, 204)} == {}
    assert len(answers) >= 18
    deleted = [name for name in answers if "-delete" in name]
    assert list(answers)[-len(deleted) :] == deleted
    assert deleted[-1] == "Models-deleteModel"
    assert "Models-deleteVersion" in deleted
    assert left == []


def test_the_prefilled_prediction_shows_the_yields(docs: Page) -> None:
    status, body = execute(docs, "Predict-predict")

    assert status == 200
    assert '"apples": 57.3' in body
    assert '"oranges": 69.5' in body


def test_the_prefilled_table_is_predicted(docs: Page) -> None:
    status, body = execute(docs, "Predict-predict", "text/csv")

    assert status == 200
    assert "57.3" in body


@pytest.mark.parametrize("content_type", [None, pytest.param("text/csv", marks=pytest.mark.slow)])
def test_the_prefilled_training_publishes_a_version(service: Service, docs: Page, content_type: str | None) -> None:
    status, body = execute(docs, "Train-train", content_type)
    job = service.end_of("latest")
    service.client.put("/models/crop-yield/current", json={"version": 1})

    assert job["id"] in body
    assert job["status"] == "succeeded"
    # On a busy machine, the job takes longer than the prefilled wait.
    assert status == 202 or (status == 200 and '"status": "succeeded"' in body)
