"""Swagger UI in a real browser, with no way out of this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, expect, sync_playwright
from service import Service

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser.new_page()
        browser.close()


def execute(page: Page, service: Service, operation: str) -> tuple[str, str]:
    """Open the operation, "Try it out", "Execute"; returns status and body as the page shows them."""
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))  # noqa: PLW0108 - it wants a function of ours
    page.goto(f"{service.url}/docs")
    block = page.locator(f"[id='{operation}']")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    response = block.locator(".live-responses-table .response")
    expect(response).to_be_visible()
    status = response.locator(".response-col_status").inner_text()
    body = response.locator(".response-col_description").inner_text()
    assert requests
    assert {
        request.url.partition("://")[2].partition("/")[0] for request in requests if request.url.startswith("http")
    } == {service.url.removeprefix("http://")}
    return status, body


def test_executing_the_prefilled_prediction_shows_the_yields(service: Service, page: Page) -> None:
    status, body = execute(page, service, "operations-Predict-predict")

    assert "200" in status
    assert '"apples": 57.3' in body
    assert '"oranges": 69.5' in body


def test_executing_the_prefilled_training_records_a_job(service: Service, page: Page) -> None:
    status, body = execute(page, service, "operations-Train-train")

    assert "202" in status
    assert '"status": "queued"' in body
    newest = service.client.get("/jobs?limit=1").json()["items"][0]
    assert newest["id"] in body
    assert service.end_of(newest["id"])["status"] == "succeeded"
    service.client.put("/models/crop-yield/current", json={"version": 1})
