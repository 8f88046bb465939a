"""Swagger UI in a real browser, without a network."""

from collections.abc import Collection
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from service import Service


def open_docs(page: Page, service: Service) -> None:
    """Open the documentation. The fixture `page` fails if it sends a request to another host."""
    page.goto(f"{service.url}/docs")


def open_docs_of(page: Page, service: Service, operations: Collection[str]) -> None:
    """Open the documentation of these operations only, because Swagger UI draws all operations again at each click."""
    document = service.client.get("/openapi.json").json()
    document["paths"] = {
        path: kept
        for path, methods in document["paths"].items()
        if (kept := {method: one for method, one in methods.items() if name_of(one) in operations})
    }
    page.route("**/openapi.json", lambda route: route.fulfill(json=document))
    open_docs(page, service)
    expect(page.locator(".opblock")).to_have_count(len(operations))
    page.unroute("**/openapi.json")


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
    expect(response).to_be_visible()
    status = response.locator(".response-col_status").inner_text()
    body = response.locator(".response-col_description").inner_text()
    summary.click()  # closed, it is not rendered again for the next one
    code = status.partition("\n")[0].strip()
    assert code.isdecimal(), f"{operation} has no status: {status!r}, {body!r}"
    return int(code), body


def name_of(operation: dict[str, Any]) -> str:
    """Return the name of an operation in the ids of Swagger UI."""
    return f"{operation['tags'][0].replace(' ', '_')}-{operation['operationId']}"


def operations(service: Service) -> list[str]:
    """Return all operations in the order of the document, but deletions last: parts of a model before it."""
    found = [
        (method == "delete" and -path.count("/"), name_of(operation))
        for path, methods in service.client.get("/openapi.json").json()["paths"].items()
        for method, operation in methods.items()
    ]
    found.sort(key=lambda one: (one[0] is not False, one[0]))
    return [name for _, name in found]


@pytest.mark.slow
def test_every_operation_of_a_fresh_service_runs_as_it_is_prefilled(tmp_path: Path, page: Page) -> None:
    fresh = Service(tmp_path).start()
    try:
        answers = {}
        names = operations(fresh)
        names.remove("Train-mergeVersions")  # Its body is a file, which cannot be prefilled.
        for _, of_tag in groupby(names, key=lambda name: name.partition("-")[0]):
            together = list(of_tag)
            open_docs_of(page, fresh, together)
            for operation in together:
                answers[operation] = execute(page, operation)
                if operation == "Train-train":
                    fresh.end_of("latest")  # On a busy machine, it takes longer than the prefilled wait.
        left = fresh.client.get("/models").json()["items"]
    finally:
        fresh.stop()
    assert {name: answer for name, answer in answers.items() if answer[0] not in (200, 201, 202, 204)} == {}
    assert len(answers) == len(names) >= 18
    deleted = [name for name in answers if "-delete" in name]
    assert list(answers)[-len(deleted) :] == deleted
    assert deleted[-1] == "Models-deleteModel"
    assert "Models-deleteVersion" in deleted
    assert left == []


def test_the_prefilled_prediction_runs(site: Service, page: Page) -> None:
    open_docs(page, site)
    status, body = execute(page, "Predict-predict")
    assert status == 200
    assert '"apples": 57.3' in body
    assert '"oranges": 69.5' in body


@pytest.mark.slow
def test_the_prefilled_tables_are_predicted_for_and_trained(site: Service, page: Page) -> None:
    open_docs(page, site)
    status, body = execute(page, "Predict-predictWithModel", "text/csv")
    assert status == 200
    assert "57.3" in body

    # The version is deleted, because other tests expect only the first one.
    status, body = execute(page, "Train-train", "text/csv")
    job = site.end_of("latest")
    site.client.put("/models/crop-yield/current", json={"version": 1})
    deleted = site.client.delete(f"/models/crop-yield/versions/{job['version']}")

    assert job["id"] in body
    assert job["status"] == "succeeded"
    # On a busy machine, the job takes longer than the prefilled wait.
    assert status == 202 or (status == 200 and '"status": "succeeded"' in body)
    assert deleted.status_code == 204
