"""The page of all jobs: its list, its filter and its pages."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from service import NOTEBOOK, Service

HTML = {"accept": "text/html"}
CSV = {"content-type": "text/csv"}
NAMED = {**NOTEBOOK, "feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}


def test_jobs_are_filtered_and_lead_to_their_version(
    page: Page, site: Service, assert_accessible: Callable[[Page], None], assert_fits: Callable[[Page], None]
) -> None:
    done = site.train(**NAMED, model="orchard")
    table = "temp,rainfall,humidity,apples,oranges\n" + "73,67,43,56,70\n" * 4 + "73,67,dry,56,70\n"
    file: dict[str, Any] = {"params": {"model": "orchard", "targets": "apples,oranges"}, "headers": CSV}
    failed = site.ended_job(site.client.post("/train", content=table, **file))
    assert (done["status"], failed["status"]) == ("succeeded", "failed")

    page.goto(f"{site.url}/jobs?model=orchard")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("failed")
    expect(rows.first).to_contain_text("Invalid input")
    assert_accessible(page)
    assert_fits(page)
    page.goto(f"{site.url}/jobs")
    page.get_by_label("Model").fill("orchard")
    page.get_by_label("Status").select_option("succeeded")
    page.get_by_role("button", name="Filter").click()
    expect(rows).to_have_count(1)
    expect(rows.locator("td[data-label=Rows]")).to_have_text("15")
    expect(page.get_by_label("Status")).to_have_value("succeeded")
    rows.get_by_role("link", name="1 of orchard").click()
    expect(page).to_have_url(f"{site.url}/models/orchard/versions/1")

    page.goto(f"{site.url}/jobs?model=orchard&status=queued")
    expect(page.get_by_role("heading", name="No job matches")).to_be_visible()


def test_the_list_is_in_pages_which_keep_the_filter(page: Page, site: Service) -> None:
    ids = [site.train(**NAMED, model="paged")["id"] for _ in range(3)]

    page.goto(f"{site.url}/jobs?model=paged&limit=2")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("link", name="Older jobs").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody th a")).to_have_attribute("href", f"/jobs/{ids[0]}")
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("tbody tr")).to_have_count(2)


@pytest.mark.parametrize("query", ["status=gone", "model=a%20b", "limit=0", "since=today", "next=x", "colour=red"])
def test_a_bad_filter_gets_the_page_with_the_sentence_of_the_api(site: Service, query: str) -> None:
    problem = site.client.get(f"/jobs?{query}").json()
    answer = site.client.get(f"/jobs?{query}", headers=HTML)

    assert answer.status_code == problem["status"] == 422
    shown = answer.text.replace("&#39;", "'").replace("&#34;", '"')
    if query != "colour=red":  # the page lists the same parameters in another order
        assert problem["detail"] in shown
    assert problem["errors"][0]["detail"] in shown
    assert "Filter</button>" in answer.text


def test_a_hostile_filter_is_escaped(site: Service) -> None:
    script = '"><script>alert(1)</script>'
    for name in ("model", "status", "since", "next", script):
        answer = site.client.get("/jobs", params={name: script}, headers=HTML)
        assert answer.status_code == 422
        assert "<script>alert" not in answer.text
