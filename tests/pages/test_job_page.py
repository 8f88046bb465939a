"""The page of a job in a browser: live, over a restart, cancelled, failed, and without scripts."""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from service import MAX_SECONDS, NOTEBOOK, Service, arm, wait_for

from app.regression.solvers.gradient_descent import MAX_EPOCHS

HTML = {"accept": "text/html"}
NAMED = {**NOTEBOOK, "feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}
ENDLESS = {"kind": "gradient_descent", "epochs": MAX_EPOCHS, "learning_rate": 1e-7}


@pytest.fixture
def endless(site: Service) -> Iterator[str]:
    """The id of a job that runs until it is cancelled."""
    job_id = site.submit(**NAMED, model="endless", solver=ENDLESS)
    yield job_id
    site.client.post(f"/jobs/{job_id}/cancel")
    wait_for(lambda: site.job(job_id)["finished_at"])


def field(page: Page, name: str) -> Any:
    return page.locator(f'[data-field="{name}"]')


@pytest.mark.slow
def test_a_running_descent_is_shown_live_and_can_be_cancelled(
    page: Page,
    site: Service,
    endless: str,
    assert_accessible: Callable[[Page], None],
    assert_fits: Callable[[Page], None],
) -> None:
    page.goto(f"{site.url}/jobs/{endless}")

    expect(field(page, "phase")).to_have_text("Fitting")
    expect(page.locator("#plot canvas")).to_be_visible()
    expect(page.get_by_role("img", name="Learning rate and its bound")).to_be_visible()
    epoch = field(page, "epoch").inner_text()
    expect(field(page, "epoch")).not_to_have_text(epoch)
    assert page.evaluate("document.getElementById('plot').getAttribute('aria-label')").startswith("Loss curve.")
    page.get_by_label("Logarithmic loss axis").uncheck()
    expect(page.locator("#plot canvas")).to_be_visible()
    page.get_by_text("The numbers").click()
    expect(page.get_by_role("row", name="0", exact=False).first).to_be_visible()
    assert_accessible(page)
    assert_fits(page)

    page.get_by_role("button", name="Cancel the job").click()
    expect(field(page, "status")).to_have_text("cancelled")
    expect(page.get_by_text("The job was cancelled.")).to_be_visible()


@pytest.mark.slow
def test_the_end_of_a_job_is_shown_without_a_reload(
    page: Page, site: Service, endless: str, assert_accessible: Callable[[Page], None]
) -> None:
    job_id = site.submit(**NAMED, model="endless", solver={"kind": "gradient_descent", "epochs": 200})
    page.goto(f"{site.url}/jobs/{job_id}")
    expect(field(page, "status")).to_have_text("queued")
    expect(field(page, "phase")).to_have_text("Waiting for the trainer")
    page.evaluate("window.sameDocument = true")
    site.client.post(f"/jobs/{endless}/cancel")

    expect(field(page, "status")).to_have_text("succeeded")
    expect(page.locator("#news")).to_contain_text("The job has succeeded. Version 1 is ready.")
    expect(page).to_have_title(re.compile("^succeeded: "))
    expect(page.locator("#plot canvas")).to_be_visible()
    expect(page.get_by_role("heading", name="Metrics")).to_be_visible()
    assert page.evaluate("window.sameDocument")
    assert page.evaluate("performance.getEntriesByType('resource').filter(r => r.name.endsWith('/events')).length") <= 1
    assert_accessible(page)
    page.get_by_role("link", name="Try a prediction").click()
    expect(page).to_have_url(f"{site.url}/models/endless/versions/1#try")


def test_a_failed_job_names_the_place_and_its_texts_are_escaped(
    page: Page, site: Service, assert_accessible: Callable[[Page], None], assert_fits: Callable[[Page], None]
) -> None:
    script = "<script>alert(1)</script>"
    table = f'a,{script},y\n1,2,3\n4,5,6\n7,"{script}",8\n9,10,11\n12,13,14\n'
    params = {"model": "faulty", "targets": "y"}
    headers = {"content-type": "text/csv"}
    job = site.ended_job(site.client.post("/train", content=table, params=params, headers=headers))
    assert job["status"] == "failed"

    page.goto(f"{site.url}/jobs/{job['id']}")
    faults = page.locator("table.faults tbody tr")
    expect(faults.first.locator("[data-label=Row]")).to_have_text("4")
    expect(faults.first.locator("[data-label=Column]")).to_have_text(script)
    expect(field(page, "phase")).to_contain_text("Failed during: ")
    assert page.locator("script:not([src])").count() == 0
    assert_accessible(page)
    assert_fits(page)


@pytest.mark.slow
def test_without_scripts_the_page_has_the_state_a_curve_and_a_link_to_refresh(
    open_page: Callable[..., Page], site: Service, endless: str
) -> None:
    wait_for(lambda: site.job(endless)["loss_curve"])
    page = open_page(java_script_enabled=False)
    page.goto(f"{site.url}/jobs/{endless}")

    expect(page.get_by_role("img", name="Loss curve")).to_be_visible()
    page.get_by_role("link", name="Linear loss axis").click()
    expect(page.get_by_role("link", name="Logarithmic loss axis")).to_be_visible()
    page.get_by_role("link", name="Refresh").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page).to_have_url(f"{site.url}/jobs/{endless}")
    expect(page.get_by_text("The job was cancelled.")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel the job")).to_have_count(0)


def form(service: Service, job_id: str) -> tuple[httpx.Cookies, dict[str, str]]:
    """Open the page of a job. Return its cookies, and the fields of its form."""
    page = service.client.get(f"/jobs/{job_id}", headers=HTML)
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
    return page.cookies, fields


@pytest.mark.slow
def test_a_job_that_publishes_is_not_cancelled_and_the_page_says_so(tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    steps.mkdir()
    service = Service(tmp_path, environment={"CHAOS_FAILPOINTS": str(steps)}).start()
    try:
        reached = arm(steps, "temp_written", signal.SIGSTOP)
        job_id = service.submit(**NOTEBOOK)
        wait_for(reached.exists)
        cookies, fields = form(service, job_id)
        headers = {**HTML, "origin": service.url}
        answer = httpx.post(
            f"{service.url}/jobs/{job_id}/cancel", data=fields, cookies=cookies, headers=headers, timeout=MAX_SECONDS
        )
        assert answer.status_code == 409
        assert "already publishing its version" in answer.text
    finally:
        service.kill()


def test_the_latest_job_has_a_url_and_an_unknown_one_a_page(site: Service) -> None:
    job = site.train(**NAMED, model="latest")
    latest = site.client.get("/jobs/latest", headers=HTML)
    assert (latest.status_code, latest.headers["location"]) == (303, f"/jobs/{job['id']}")
    unknown = site.client.get(f"/jobs/{'0' * 36}", headers=HTML)
    assert unknown.status_code == 404
    assert "There is no such job." in unknown.text
