"""The pages of a model and of a version: numbers of the card, reasons of withheld ones, promotion and rolling back."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest
from html_forms import Form, Page, weight_of
from playwright.sync_api import Page as BrowserPage
from playwright.sync_api import Route, expect
from service import NOTEBOOK, Service, wait_for
from shown_models import SCRIPT, trained
from sign_in import browser_of, sign_in
from yields import publish_yields

from app.exchange import EXPORTS
from app.pages.lineage import MAX_VERSIONS
from app.registry.folder.publisher import FolderPublisher

HTML = {"accept": "text/html"}
DEEP = 60  # versions of the model `deep`


@pytest.fixture(scope="module")
def models(shown: Service) -> Service:
    """The site with the models that are shown, and with `deep`, which has many versions."""
    registry = FolderPublisher(shown.models)
    first = registry.version("crop-yield", 1)
    for number in range(DEEP):
        parent = number if number % 7 else None
        card = replace(first.card, model="deep", parent=parent, upload=None, mode="update" if parent else "replace")
        registry.publish(card, first.model, promote=True)
    return shown


@pytest.fixture
def client(models: Service) -> Iterator[httpx.Client]:
    with browser_of(models) as client:
        yield client


def page_of(client: httpx.Client, path: str) -> Page:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert not re.search(r">\s*-?(None|null|nan|inf)\s*<", answer.text)
    return Page(answer.text)


def card_of(service: Service, model: str) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(f"/models/{model}").json()
    return found


def numbers_in(value: Any) -> set[float]:
    if isinstance(value, dict):
        return set().union(*map(numbers_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(numbers_in, value))
    return {value} if isinstance(value, int | float) else set()


@pytest.mark.parametrize("model", ["crop-yield", "mixed", "dependent", "curved", "saturated", "merged"])
def test_the_page_has_every_number_of_the_card_or_the_reason_why_there_is_none(
    models: Service, client: httpx.Client, model: str
) -> None:
    card = card_of(models, model)
    page = page_of(client, f"/models/{model}")
    fields = ("coefficients", "intercept", "standard_errors", "t_values", "p_values", "confidence_intervals", "aic")
    of_metrics = {target: card["metrics"][target] for target in card["targets"]}
    expected = numbers_in([of_metrics, *(card[field] for field in (*fields, "marginal_means"))])

    assert expected <= set(page.numbers)
    notes = {identity for identity in page.texts if identity.startswith("note-")}
    for link in page.links:
        if link.startswith("#note-"):
            assert link[1:] in notes
    assert {page.texts[note].strip() for note in notes} <= set(card["unavailable"].values())
    for warning in card["warnings"]:
        assert warning in page.texts["content"]


def test_numbers_are_withheld_with_their_reasons(client: httpx.Client) -> None:
    dependent = client.get("/models/dependent").text
    assert "withheld<sup>" in dependent
    assert "its column depends linearly on others" in dependent
    assert "The target does not vary." in dependent
    assert "depend linearly on each other" in dependent
    saturated = client.get("/models/saturated").text
    assert "Intervals and tests are withheld." in saturated


def test_coefficients_per_standard_deviation_are_those_per_unit_times_the_deviation(
    models: Service, client: httpx.Client
) -> None:
    page = page_of(client, "/models/crop-yield?scale=standardised")
    temperatures = [row[0] for row in NOTEBOOK["instances"]]
    mean = sum(temperatures) / 15
    deviation = (sum((value - mean) ** 2 for value in temperatures) / 15) ** 0.5
    expected = card_of(models, "crop-yield")["coefficients"]["apples"]["temp"] * deviation

    assert any(number == pytest.approx(expected, rel=1e-12) for number in page.numbers)


def test_many_coefficients_targets_and_versions_are_paged(models: Service, client: httpx.Client) -> None:
    wide = client.get("/models/wide")
    page = Page(wide.text)
    assert "1 of 40 targets" in page.texts["metrics"]
    assert "the 40 of 600 coefficients with the largest effects" in " ".join(page.texts["coefficients"].split())
    (following,) = {link for link in page.links if "target=t1" in link and link.endswith("#metrics")}
    assert "t1" in page_of(client, following).texts["metrics"]
    everything = client.get("/models/wide?start=0").text
    assert "1 to 100 of 600" in everything
    assert "501 to 600" in client.get("/models/wide?start=500").text
    coefficients = card_of(models, "wide")["coefficients"]["t7"]
    assert coefficients["c7"] in Page(client.get("/models/wide?target=t7").text).numbers
    assert client.get("/models/wide?target=t40").status_code == 422

    newest = page_of(client, "/models/deep")
    assert f"{DEEP} versions, newest first" in newest.texts["lineage"]
    assert f"version-{DEEP - MAX_VERSIONS}" not in newest.texts
    (older,) = (link for link in newest.links if "older=" in link)
    oldest = page_of(client, older)
    assert "version-1" in oldest.texts
    assert f"version-{DEEP}" not in oldest.texts
    part = client.get("/models/deep?part=versions").text
    assert "<html" not in part
    assert 'id="version-60"' in part


def test_a_model_without_a_current_version_is_promoted_from_its_page(client: httpx.Client) -> None:
    page = page_of(client, "/models/waiting")
    assert "no current version; promote one" in page.texts["content"]

    answer = submit(client, page, "waiting", 1)

    assert answer.headers["location"] == "/models/waiting?promoted=1"
    assert "Version 1 is current now." in client.get(answer.headers["location"]).text


def submit(client: httpx.Client, page: Page, model: str, version: int) -> httpx.Response:
    form = promotion(page, model, version)
    return client.post(form.action, data=form.fields)


def promotion(page: Page, model: str, version: int) -> Form:
    action = f"/models/{model}/current"
    (form,) = (form for form in page.forms if form.action == action and form.fields["version"] == str(version))
    return form


def test_a_version_is_rolled_back_and_promoted_again_and_a_stale_page_changes_nothing(client: httpx.Client) -> None:
    first = page_of(client, "/models/deep")
    rolled_back = submit(client, first, "deep", DEEP - 1)
    assert rolled_back.status_code == 303
    assert rolled_back.headers["location"] == f"/models/deep?promoted={DEEP - 1}&before={DEEP}"
    text = client.get(rolled_back.headers["location"]).text
    assert f"Version {DEEP - 1} is current now. Before, version {DEEP} was current." in text
    # A link that claims a promotion that is not in effect shows nothing.
    assert "alert-good" not in client.get(f"/models/deep?promoted={DEEP}").text

    stale = submit(client, first, "deep", DEEP - 1)
    assert stale.status_code == 412
    assert f"Version {DEEP - 1} became current after the page was loaded" in stale.text
    older = page_of(client, "/models/deep/versions/30")
    submit(client, page_of(client, f"/models/deep/versions/{DEEP}"), "deep", DEEP)
    conflict = submit(client, older, "deep", 30)
    assert conflict.status_code == 412
    assert f"Version {DEEP} became current after the page was loaded; the page still showed version {DEEP - 1}." in (
        " ".join(Page(conflict.text).texts["content"].split())
    )
    assert client.get("/models/deep", headers={"accept": "*/*"}).json()["current"]
    # The page of the conflict has a form with which the promotion succeeds.
    assert submit(client, Page(conflict.text), "deep", 30).status_code == 303
    for version in ("", "0", "x", "9" * 20, "99"):
        form = promotion(page_of(client, "/models/deep/versions/31"), "deep", 31)
        assert client.post(form.action, data=form.fields | {"version": version}).status_code in (404, 422)


def test_with_keys_only_an_administrator_promotes(guarded: Service) -> None:
    registry = FolderPublisher(guarded.models)
    first = registry.version("crop-yield", 1)
    for promote in (True, False):
        registry.publish(replace(first.card, model="kept", upload=None), first.model, promote=promote)
    with browser_of(guarded) as client:
        sign_in(client, "viewer")
        page = page_of(client, "/models/kept/versions/2")
        assert not [form for form in page.forms if form.action.endswith("/current")]
        token = page.forms[0].fields["csrf"]
        refused = client.post("/models/kept/current", data={"csrf": token, "version": "2", "expected": "1"})
        assert refused.status_code == 403
        assert client.get("/models/kept").text.count("badge-current") == 2

        sign_in(client, "ops")
        promoted = submit(client, page_of(client, "/models/kept/versions/2"), "kept", 2)
        assert promoted.status_code == 303
        assert "<h1>kept" in client.get("/models/kept").text
        back = submit(client, page_of(client, "/models/kept"), "kept", 1)
        assert back.headers["location"] == "/models/kept?promoted=1&before=2"


@pytest.mark.parametrize(
    "path",
    [
        "/models/mixed",
        *(pytest.param(f"/models/{model}", marks=pytest.mark.slow) for model in ("dependent", "waiting", "deep")),
    ],
)
def test_pages_are_accessible_and_fit(
    models: Service,
    page: BrowserPage,
    path: str,
    assert_accessible: Callable[[BrowserPage], None],
    assert_fits: Callable[[BrowserPage], None],
) -> None:
    page.goto(models.url + path)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert_accessible(page)
    assert_fits(page)
    assert page.evaluate("window.ran") is None


def test_the_page_of_a_model_transfers_few_bytes(client: httpx.Client) -> None:
    assert weight_of(client, "/models/crop-yield") < 100_000
    for path in ("mixed", "wide", "wide?start=200"):
        assert weight_of(client, f"/models/{path}") < 150_000, path


@pytest.mark.slow
def test_the_page_of_many_targets_or_levels_transfers_few_bytes(models: Service, client: httpx.Client) -> None:
    rng = np.random.default_rng(6)
    columns = rng.normal(0, 1, (500, 40))
    outcomes = columns[:, :6] + rng.normal(0, 1, (500, 6))
    names = {"feature_names": [f"measured {i}" for i in range(40)], "target_names": [f"y{i}" for i in range(6)]}
    trained(models, model="forty", instances=columns.tolist(), targets=outcomes.tolist(), **names)
    levels = [[f"a rather long name of level {level}" for level in rng.permutation(25)] for _ in range(8)]
    rows = [{f"a long name of category {j}": levels[j][rng.integers(25)] for j in range(8)} for _ in range(600)]
    results = [{f"y{target}": rng.normal() for target in range(4)} for _ in rows]
    trained(models, model="levels", instances=rows, targets=results)

    for path in ("forty", "forty?target=y4", "levels", "levels?start=0"):
        page_of(client, f"/models/{path}")
        assert weight_of(client, f"/models/{path}") < 150_000, path


def test_a_table_is_sorted_and_copied_with_all_digits(models: Service, open_page: Callable[..., BrowserPage]) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto(f"{models.url}/models/mixed")
    table = page.locator("table[data-tools]").first
    page.locator("#coefficients details summary").first.click()
    header = table.locator("th[scope=col]").nth(1)
    shown = table.locator("tbody tr td:nth-child(2) data")

    for order, descending in (("ascending", False), ("descending", True)):
        header.get_by_role("button").click()
        expect(header).to_have_attribute("aria-sort", order)
        values = [float(each.get_attribute("value") or "") for each in shown.all()]
        assert values == sorted(values, reverse=descending)
    page.get_by_role("button", name="Copy the table").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    cells = {line.split("\t")[0]: line.split("\t")[1] for line in lines}
    coefficients = card_of(models, "mixed")["coefficients"][f"mass {SCRIPT}"]
    assert float(cells[SCRIPT]) == coefficients[SCRIPT]
    assert len(lines) == len(coefficients) + 2


def test_an_open_page_notices_a_promotion(models: Service, page: BrowserPage) -> None:
    registry = FolderPublisher(models.models)
    first = registry.version("crop-yield", 1)
    registry.publish(replace(first.card, model="live", upload=None), first.model, promote=True)
    page.goto(f"{models.url}/models/live")
    expect(page.get_by_text("1 version, newest first")).to_be_visible()
    with page.expect_response(lambda response: "part=versions" in response.url):
        registry.publish(replace(first.card, model="live", upload=None), first.model, promote=True)

    expect(page.locator("#live")).to_contain_text("Version 2 is current now.")
    expect(page.get_by_text("2 versions, newest first")).to_be_visible()
    page.get_by_role("link", name="Show the model as it is now").click()
    expect(page.get_by_role("heading", name=re.compile("live version 2"))).to_be_visible()


def test_an_open_page_notices_a_promotion_before_its_first_event(models: Service, page: BrowserPage) -> None:
    registry = FolderPublisher(models.models)
    first = registry.version("crop-yield", 1)
    registry.publish(replace(first.card, model="early", upload=None), first.model, promote=True)

    def publish_and_continue(route: Route) -> None:
        registry.publish(replace(first.card, model="early", upload=None), first.model, promote=True)
        route.continue_()

    page.route("**/events", publish_and_continue, times=1)
    page.goto(f"{models.url}/models/early")

    expect(page.get_by_text("2 versions, newest first")).to_be_visible()
    expect(page.locator("#live")).to_contain_text("Version 2 is current now.")


def test_the_first_event_of_a_follower_is_not_older_than_its_request(models: Service) -> None:
    registry = FolderPublisher(models.models)
    first = registry.version("crop-yield", 1)
    firsts = []
    with ExitStack() as followers:
        for _ in range(2):
            registry.publish(replace(first.card, model="followed", upload=None), first.model, promote=True)
            events = followers.enter_context(models.client.stream("GET", "/models/followed/events"))
            line = next(line for line in events.iter_lines() if line.startswith("data: "))
            firsts.append(json.loads(line.removeprefix("data: "))["current"])
    assert firsts == [1, 2]


def test_every_export_is_linked_and_the_line_for_curl_exports(
    models: Service, client: httpx.Client, tmp_path: Path
) -> None:
    page = client.get("/models/mixed").text
    links = re.findall(r'href="(/models/mixed/versions/1/export\?[^"]+)">([^<]+)<', page)
    assert {parse_qs(urlsplit(unescape(url)).query)["format"][0] for url, _ in links} == {one.name for one in EXPORTS}
    assert {"PyTorch", "Python", "Excel", "SQL for DuckDB", "SQL for PostgreSQL"} <= {label for _, label in links}
    refused = [label for url, label in links if client.get(unescape(url)).status_code != 200]
    assert refused == ["SQL for BigQuery"]  # which has no columns with such names
    (line,) = re.findall(r'<code id="export-line">(.*?)</code>', page)
    subprocess.run(["bash", "-euc", unescape(line)], check=True, cwd=tmp_path)
    compile((tmp_path / "mixed.py").read_text(), "mixed.py", "exec")


def test_the_json_stays_at_the_same_url(models: Service) -> None:
    assert json.loads(models.client.get("/models/mixed").text)["model"] == "mixed"


def test_a_split_and_the_differences_of_its_shadow_are_on_the_page(
    models: Service,
    page: BrowserPage,
    assert_accessible: Callable[[BrowserPage], None],
    assert_fits: Callable[[BrowserPage], None],
) -> None:
    registry = FolderPublisher(models.models)
    first = registry.version("crop-yield", 1)
    for _ in range(3):
        registry.publish(replace(first.card, model="split", parent=None, upload=None), first.model, promote=True)
    traffic = "/models/split/traffic"
    assert (
        "Version 3 answers all requests" in Page(models.client.get("/models/split", headers=HTML).text).texts["traffic"]
    )
    assert models.client.put(traffic, json={"1": 10, "3": 90, "shadow": 2}).status_code == 200
    models.client.post("/models/split/predict", json={"instances": NOTEBOOK["instances"]})
    wait_for(lambda: models.client.get(traffic).json()["shadow"]["compared_rows"] == len(NOTEBOOK["instances"]))

    page.goto(f"{models.url}/models/split")

    panel = page.locator("#traffic")
    expect(panel.get_by_role("row", name="Version 3 90 % 1 15")).to_be_visible()
    expect(panel).to_contain_text("Version 2 is the shadow")
    expect(panel).to_contain_text("Rows compared: 15")
    expect(panel.get_by_role("row", name="apples 15 0 0 0")).to_be_visible()
    assert_accessible(page)
    assert_fits(page)


def test_columns_because_of_which_a_version_of_a_split_rejects_rows_are_on_the_page(
    models: Service,
    page: BrowserPage,
    assert_accessible: Callable[[BrowserPage], None],
    assert_fits: Callable[[BrowserPage], None],
) -> None:
    publish_yields(models.models, "split-columns")
    publish_yields(models.models, "split-columns", features=("temp", "rainfall", "wind"), promote=False)
    traffic = "/models/split-columns/traffic"
    models.client.put(traffic, params={"force": True}, json={"1": 90, "2": 10}).raise_for_status()

    page.goto(f"{models.url}/models/split-columns")

    panel = page.locator("#traffic")
    expect(panel).to_contain_text("Version 2 rejects or misreads some rows that version 1 accepts")
    expect(panel.get_by_role("listitem").first).to_contain_text("wind: Version 2 needs this column.")
    assert_accessible(page)
    assert_fits(page)
