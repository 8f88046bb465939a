"""Journeys through the pages in a real browser, from the first file to a rollback."""

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from browsing import drop_file, page_paths, tab_to
from playwright.sync_api import Page, Request, expect
from service import MODELS, NOTEBOOK, Service, arm, wait_for
from sign_in import key_of

from app.registry.folder.publisher import FolderPublisher

TABLE = MODELS / "crop-yield" / "yields.csv"
NAMED = {**NOTEBOOK, "feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}
MAX_BYTES = 150_000  # Size of a page with all its files.


@dataclass
class Person:
    """Someone at a browser, with or without scripts, with the key `key` if the service has keys."""

    page: Page
    service: Service
    scripts: bool = True
    key: str = ""

    def open(self, path: str) -> None:
        self.page.goto(self.service.url + path)

    def sign_in(self, key: str) -> None:
        self.open("/")
        self.page.get_by_label("API key").fill(key_of(key))
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("heading", name="Models")).to_be_visible()

    def train(self, table: Path, version: int) -> None:
        """Give a file to the train page and follow the job to its end. The model gets the name of the file."""
        page = self.page
        if self.scripts:
            expect(page.get_by_text("Or drop it here.")).to_be_visible()
            drop_file(page, table)
        else:
            page.set_input_files("#file", table)
            page.get_by_role("button", name="Preview the file").click()
            page.set_input_files("#file", table)  # The browser does not keep it.
        expect(page.locator("table.rows tbody tr").first).to_contain_text("67")
        page.get_by_label("Predict apples").check()
        page.get_by_label("Predict oranges").check()
        page.get_by_label("Model", exact=True).fill(table.stem)
        page.get_by_role("button", name="Train", exact=True).click()
        page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
        if not self.scripts:
            wait_for(lambda: self.json("/jobs/latest")["finished_at"])
            page.reload()
        expect(page.locator('[data-field="status"]')).to_have_text("succeeded")
        expect(page.get_by_text(f"Version {version} of {table.stem} is ready.")).to_be_visible()

    def predict(self, **values: str) -> None:
        for name, value in values.items():
            self.page.get_by_label(name, exact=True).fill(value)
        self.page.get_by_role("button", name="Predict").click()

    def json(self, path: str) -> Any:
        """Return what a program gets for a path."""
        headers = {"authorization": f"Bearer {key_of(self.key)}"} if self.key else {}
        answer = self.service.client.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


def expect_version(person: Person, model: str, version: int) -> None:
    """Expect that a version is current: in the list of models, on the model's page, and for programs."""
    page = person.page
    person.open(f"/?q={model}")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=model, exact=True))
    expect(row).to_contain_text(f"Version {version}")
    row.get_by_role("link", name=model, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{model} version {version} current")
    assert person.json(f"/models/{model}")["version"] == version


@pytest.mark.parametrize(
    ("scripts", "key"),
    [
        pytest.param(True, "", id="without keys"),
        pytest.param(True, "ops", id="with keys", marks=pytest.mark.slow),
        pytest.param(False, "", id="without scripts", marks=pytest.mark.slow),
    ],
)
def test_a_person_trains_looks_predicts_compares_and_rolls_back(
    request: pytest.FixtureRequest, open_page: Callable[..., Page], tmp_path: Path, scripts: bool, key: str
) -> None:
    service = request.getfixturevalue("guarded" if key else "site")
    model = "yields" if scripts else "yields-without-scripts"
    table, later = tmp_path / f"{model}.csv", tmp_path / "later" / f"{model}.csv"
    table.write_bytes(TABLE.read_bytes())
    later.parent.mkdir()
    later.write_text("\n".join(TABLE.read_text().splitlines()[:-4]))
    person = Person(open_page(java_script_enabled=scripts), service, scripts, key)
    page = person.page
    if key:
        expect_no_buttons_to_change(person)
        person.sign_in(key)
    else:
        person.open("/")
    page.get_by_role("link", name="Train a model").click()
    person.train(table, 1)
    expect_version(person, model, 1)

    person.predict(temp="75", rainfall="63", humidity="44")
    answer = page.get_by_role("region", name="Prediction of version 1")
    expect(answer).to_contain_text("95 % interval: ")
    expect(answer.get_by_role("alert")).to_have_count(0)
    answer.get_by_text("Contributions to the prediction", exact=True).first.click()
    expect(answer.get_by_role("img").first).to_be_visible()
    person.predict(temp="500")
    expect(answer.get_by_role("alert")).to_contain_text("temp = 500, in training 68 to 103")

    person.open(f"/models/{model}")
    page.get_by_role("link", name="Train a new version").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value(model)
    person.train(later, 2)
    expect_version(person, model, 2)

    page.get_by_role("link", name="Compare version 1").click()
    expect(page.get_by_role("columnheader", name="In standard errors")).to_be_visible()
    page.get_by_label("File", exact=True).set_input_files(table)
    page.get_by_role("button", name="Evaluate").click()
    errors = page.get_by_role("region", name="Metrics of apples on the file").get_by_role("row", name="RMSE")
    expect(errors.get_by_role("cell")).to_have_count(2)

    person.open(f"/models/{model}")
    page.get_by_text("Roll back to version 1…").click()
    page.get_by_role("button", name="Roll back to version 1").click()
    expect(page.get_by_text("Version 1 is current now. Before, version 2 was current.")).to_be_visible()
    expect_version(person, model, 1)
    if key:
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def expect_no_buttons_to_change(person: Person) -> None:
    """Look around with a key that can read and predict, and sign out."""
    page = person.page
    person.sign_in("viewer")
    for path in ("/", "/models/crop-yield"):
        person.open(path)
        for role in ("link", "button"):
            expect(page.get_by_role(role, name=re.compile("^(Train|Promote|Roll back)"))).to_have_count(0)
    expect(page.get_by_role("button", name="Predict")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_keyboard_alone_predicts_and_promotes(site: Service, page: Page) -> None:
    registry = FolderPublisher(site.models)
    first = registry.version("crop-yield", 1)
    registry.publish(replace(first.card, model="typed", upload=None), first.model, promote=True)
    registry.publish(replace(first.card, model="typed", upload=None), first.model)
    page.goto(f"{site.url}/?q=typed")
    for link, path in (("typed", "/models/typed"), ("Version 2", "/models/typed/versions/2")):
        tab_to(page, page.locator("main").get_by_role("link", name=link, exact=True))
        page.keyboard.press("Enter")
        page.wait_for_url(f"{site.url}{path}")
    expect(page.get_by_role("heading", level=1)).to_have_text("typed version 2")

    tab_to(page, page.locator("summary").get_by_text("Promote version 2…"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("button", name="Promote version 2", exact=True))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").get_by_text("Version 2 is current now")).to_be_visible()
    assert site.client.get("/models/typed").json()["version"] == 2

    tab_to(page, page.get_by_label("temp", exact=True))
    page.keyboard.type("500")
    tab_to(page, page.get_by_role("button", name="Predict"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Prediction of version 2")).to_be_focused()
    expect(page.get_by_role("alert")).to_contain_text("temp = 500")
    tab_to(page, page.locator("#try-it .answer summary").first)
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Chart of the contributions to apples")).to_be_visible()


@pytest.mark.slow
def test_an_open_page_of_a_job_survives_a_crash_and_shows_the_end(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    steps = tmp_path / "steps"
    steps.mkdir()
    service = Service(tmp_path, environment={"CHAOS_FAILPOINTS": str(steps)}).start()
    try:
        reached = arm(steps, "fitted", signal.SIGSTOP)
        job_id = service.submit(**NAMED, model="crashed")
        page = open_page()
        page.goto(f"{service.url}/jobs/{job_id}")
        wait_for(reached.exists)
        expect(page.locator('[data-field="status"]')).to_have_text("running")
        page.evaluate("window.sameDocument = true")

        service.kill()
        expect(page.locator("#connection")).to_contain_text("The connection was lost. Trying again")
        reached = arm(steps, "fitted", signal.SIGSTOP)
        service.start()
        expect(page.locator("#connection")).to_be_hidden()
        wait_for(lambda: reached.exists() and any(map(is_stopped, service.trainers())))
        for trainer in service.trainers():
            os.kill(trainer, signal.SIGCONT)
        expect(page.locator('[data-field="status"]')).to_have_text("succeeded")
        expect(page.get_by_text("Version 1 of crashed is ready.")).to_be_visible()
        assert page.evaluate("window.sameDocument")
    finally:
        service.kill()


def is_stopped(pid: int) -> bool:
    """Return whether a signal has stopped this process, which it does a little after the process reaches the step."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def requests_of(page: Page) -> list[Request]:
    """Return a list to which each request of the page is added when it has its response."""
    finished: list[Request] = []
    page.on("requestfinished", lambda request: finished.append(request))  # noqa: PLW0108 - Playwright asks for its parameters
    return finished


@pytest.mark.slow
def test_every_page_is_light_accessible_loads_nothing_from_elsewhere_and_fits_every_screen(
    site: Service,
    open_page: Callable[..., Page],
    assert_accessible: Callable[[Page], None],
    assert_fits: Callable[[Page], None],
) -> None:
    descent = {"kind": "gradient_descent", "epochs": 50, "learning_rate": 1e-5}
    for options in ({"validation": {"folds": 5}}, {"solver": descent}):
        assert site.train(**NAMED, model="ordinary", **options)["status"] == "succeeded"
    paths = page_paths("ordinary", 2)
    paths[paths.index("/models/ordinary/compare")] += "?versions=1,2"
    weights = {}
    for path in paths:
        # Each page in a browser without a cache. The fixture `open_page` fails if it asks another host.
        page = open_page()
        loaded = requests_of(page)
        page.goto(site.url + path)
        url = page.url.partition("#")[0]
        if url in weights:  # The path leads to another page.
            continue
        sizes = [request.sizes() for request in loaded]
        weights[url] = sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes)
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert_accessible(page)
        assert_fits(page)
        page.close()
    assert len(weights) >= 8
    assert {url: weight for url, weight in weights.items() if not 5_000 < weight < MAX_BYTES} == {}
