"""The page of all models."""

import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from html_forms import Page as Parsed
from playwright.sync_api import Page, expect
from service import MODELS, NOTEBOOK, Service, wait_for
from sign_in import browser_of
from threaded_service import ThreadedService

from app.errors import ModelFileInvalid
from app.pages.charts.sparkline import sparkline
from app.pages.error_history import MAX_KNOWN, NEWEST, ErrorHistory, validated_error
from app.registry.base import ModelReader
from app.registry.version_file import read_card


@pytest.fixture
def client(site: Service) -> Iterator[httpx.Client]:
    with browser_of(site) as client:
        yield client


def row_of(page: Page, model: str) -> list[str]:
    """Return the texts of the cells of a model's row."""
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=model, exact=True))
    return [" ".join(text.split()) for text in row.locator("th, td").all_inner_texts()]


def test_a_model_is_shown_with_its_fit_error_and_traffic(
    site: Service, page: Page, assert_accessible: Callable[[Page], None]
) -> None:
    names = {"feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}
    for folds in (3, 4, 5):
        job = site.train(**NOTEBOOK, **names, model="counted", validation={"folds": folds})
        assert job["status"] == "succeeded", job
    for _ in range(3):
        assert site.client.post("/models/counted/predict", json={"instances": [[75, 63, 44]]}).status_code == 200
    assert site.client.post("/models/counted/predict", json={"instances": [["x"]]}).status_code == 422
    error = math.sqrt(site.client.get("/models/counted").json()["metrics"]["cross_validation"]["mse"])
    url = f"{site.url}/?q=counted"
    with browser_of(site) as client:
        # Errors that could not be read in time are missing.
        wait_for(lambda: re.search("in version 1 to.*4 requests", client.get(url).text, re.DOTALL))

    page.goto(url)

    row = row_of(page, "counted")
    assert re.fullmatch(r"(less than a minute|\d+ minutes?) ago", row.pop(2))
    assert row == [
        "counted",
        "Version 3 of 3 versions",
        "15",
        "apples 0.9991 oranges 0.9993",
        f"{error:.4g}",
        "4 requests, 25.0 % failed",
    ]
    expect(page.get_by_role("img", name=re.compile("Cross-validated error: from .* in version 1 to"))).to_be_visible()
    assert_accessible(page)


def test_a_model_without_a_current_version_says_so(site: Service, client: httpx.Client) -> None:
    folder = site.models / "unpromoted"
    folder.mkdir()
    shutil.copy(MODELS / "crop-yield" / "000001.safetensors", folder / "000007.safetensors")
    damaged = site.models / "damaged"
    damaged.mkdir()
    (damaged / "000001.safetensors").write_bytes(b"{}")
    (damaged / "current").symlink_to("000001.safetensors")
    try:
        page, other = (client.get(f"/?q={folder.name}").text for folder in (folder, damaged))
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(damaged)
    assert "none promoted" in page
    assert "not validated" in page
    assert "cannot be read" in other


def test_many_models_are_paged_and_found(site: Service, client: httpx.Client) -> None:
    made = [site.models / f"many-{number:03}" for number in range(120)]
    for folder in made:
        folder.mkdir()
        shutil.copy(MODELS / "crop-yield" / "000001.safetensors", folder)
        (folder / "current").symlink_to("000001.safetensors")
    try:
        seen, url = [], "/?q=many"
        while url:
            page = client.get(url).text
            seen.append(re.findall(r'<th scope="row"><a href="/models/([^"]*)"', page))
            following = re.search(r'href="([^"]*)" rel="next"', page)
            url = following[1].replace("&amp;", "&") if following else ""
        assert [len(names) for names in seen] == [50, 50, 20]
        assert [name for names in seen for name in names] == [folder.name for folder in made]
        assert "Models 101 to 120 of 120" in page
        back = re.search(r'href="([^"]*)" rel="prev"', page)
        assert back is not None
        assert "many-050" in client.get(back[1].replace("&amp;", "&")).text
        assert "many-117" in client.get("/?q=117").text
        assert client.get("/").text.count('<th scope="row">') == 50
    finally:
        for folder in made:
            shutil.rmtree(folder)
    assert "No model's name contains" in client.get("/?q=nothing").text


def test_without_models_and_jobs_the_pages_lead_to_the_first_one(tmp_path: Path) -> None:
    running = ThreadedService(tmp_path)
    shutil.rmtree(running.models / "crop-yield")
    running.start()
    try:
        with browser_of(running) as client:
            for path, heading in (("/", "There is no model yet"), ("/jobs", "No jobs yet")):
                page = client.get(path).text
                assert f"{heading}</h" in page
                assert Parsed(page).links.count("/train") >= 2
            assert client.get("/train").status_code == 200
    finally:
        running.stop()


def test_other_urls_of_the_list_lead_to_it(client: httpx.Client) -> None:
    assert client.get("/models").headers["location"] == "/"
    models = client.get("/models", headers={"accept": "application/json"}).json()["items"]
    assert "crop-yield" in [model["model"] for model in models]


class Cards:
    """A registry that counts the cards it is asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._card = read_card(MODELS / "crop-yield" / "000001.safetensors")

    def card(self, _model: str, number: int) -> Any:
        self.asked.append(number)
        if number == 2990:
            raise ModelFileInvalid("It is damaged.")
        return self._card


def test_only_the_newest_versions_are_read_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pages.error_history.READING_SECONDS", math.inf)
    cards, history = Cards(), ErrorHistory()
    registry, versions = cast("ModelReader", cards), list(range(1, 3001))
    errors, complete = history.read(registry, [("m", versions)])
    assert complete
    assert list(errors["m"]) == versions[-NEWEST:]
    assert len(cards.asked) == NEWEST
    history.read(registry, [("m", [*versions, 3001])])
    assert cards.asked[NEWEST:] == [3001, 2990]  # a damaged file may be restored
    assert MAX_KNOWN > 50 * NEWEST


def test_reading_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pages.error_history.READING_SECONDS", -1.0)
    errors, complete = ErrorHistory().read(cast("ModelReader", Cards()), [("m", [1, 2]), ("n", [1])])
    assert (errors, complete) == ({"m": {}, "n": {}}, False)


@pytest.mark.parametrize("mse", [None, "1", -1.0, math.inf, math.nan])
def test_an_error_that_is_not_known_is_not_shown(mse: Any) -> None:
    card = read_card(MODELS / "crop-yield" / "000001.safetensors")
    assert validated_error(card) is None
    card.metrics["cross_validation"] = {"mse": mse}
    assert validated_error(card) is None


def test_a_sparkline_names_its_ends_and_shows_single_values() -> None:
    line = sparkline({1: None, 2: 4.0, 3: None, 4: 2.0, 5: 3.0, 6: None}, "Error")
    assert 'aria-label="Error: from 4 in version 2 to 3 in version 5, between 2 and 4"' in line
    assert line.count("<circle") == 2
    assert "style" not in line
    assert 'aria-label="Error: 4 in version 2"' in sparkline({2: 4.0}, "Error")
    assert sparkline({1: None}, "Error") == ""
    assert "&lt;b&gt;" in sparkline({1: 1.0}, "<b>")
