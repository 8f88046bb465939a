"""The form for a prediction: with and without scripts, for every kind of column, and the same request for programs."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any

import httpx
import pytest
from html_forms import Form, Page
from playwright.sync_api import Page as BrowserPage
from playwright.sync_api import expect
from service import MAX_SECONDS, NOTEBOOK, Service
from shown_models import QUOTES, SCRIPT, trained
from sign_in import browser_of, key_of, sign_in

from app.pages.charts.svg import number
from app.pages.charts.waterfall import signed
from app.pages.code_lines import KEY

MODELS = ("crop-yield", "mixed", "dependent", "curved", "saturated", "merged", "wide")


@pytest.fixture
def client(shown: Service) -> Iterator[httpx.Client]:
    with browser_of(shown) as client:
        yield client


def form_of(client: httpx.Client, model: str, path: str = "") -> Form:
    answer = client.get(f"/models/{model}{path}")
    assert answer.status_code == 200
    return Page(answer.text).form(f"/models/{model}{path}/predict")


def send(client: httpx.Client, form: Form, **changes: str) -> httpx.Response:
    """Send the form with other values for some labels."""
    fields = form.fields | {form.labels[label]: value for label, value in changes.items()}
    return client.post(form.action, data=fields)


def run_lines(page: Page, key: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the curl line and the Python lines of a page, and return what they print."""
    curl, python = (page.texts[name].strip().replace(KEY, key) for name in ("curl-line", "python-lines"))
    printed = subprocess.run(["/bin/sh", "-c", curl], check=True, capture_output=True, timeout=MAX_SECONDS).stdout
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile(python, "python-lines", "exec"), {})  # noqa: S102 - the lines that the page prints for this
    found: dict[str, Any] = eval(out.getvalue(), {})  # noqa: S307 - a dict that the lines have printed
    return json.loads(printed), found


@pytest.mark.parametrize("model", MODELS)
def test_the_form_predicts_as_it_is_filled_and_its_lines_do_the_same(client: httpx.Client, model: str) -> None:
    for path in ("", "/versions/1"):
        answer = send(client, form_of(client, model, path))

        assert answer.status_code == 200, answer.text
        page = Page(answer.text)
        by_curl, by_python = run_lines(page)
        assert by_curl == by_python
        assert (by_curl["model"], by_curl["version"]) == (model, 1)
        for value in list(by_curl["predictions"][0].values())[:4]:
            assert number(value, 5) in page.texts["try-it"]
        if by_curl.get("intervals"):
            assert "95 % interval: " in page.texts["try-it"]
        else:
            assert "No interval. " in page.texts["try-it"]
        assert "None" not in answer.text
        assert "nan" not in page.texts["try-it"]


def test_the_form_shows_what_is_known_from_training(client: httpx.Client) -> None:
    answer = client.get("/models/mixed").text
    form = Page(answer).form("/models/mixed/predict")

    assert set(form.options[form.labels["species"]]) == {"Adelie", SCRIPT, QUOTES, "=1+1"}
    assert form.options[form.labels["female"]] == {"true": "true", "false": "false"}
    assert form.fields[form.labels["day"]].startswith("202")
    assert 40 < float(form.fields[form.labels[QUOTES]]) < 50
    assert 'type="date"' in answer
    assert "in training; may be empty" in answer
    assert "The range in training is not known" in client.get("/models/merged").text
    assert 'placeholder="68 to 103"' in client.get("/models/crop-yield").text


def test_faults_are_next_to_their_fields_and_values_stay(client: httpx.Client) -> None:
    form = form_of(client, "mixed")
    answer = send(client, form, **{SCRIPT: "", "day": "tomorrow", QUOTES: ""})

    assert answer.status_code == 422
    page = Page(answer.text)
    assert page.texts[f"{form.labels[SCRIPT]}-error"] == "Enter a value."
    assert f"{form.labels[QUOTES]}-error" not in page.texts  # the model fills gaps of this column
    assert "answer-title" not in page.texts
    assert "curl-line" not in page.texts
    (again,) = (each for each in page.forms if each.action == form.action)
    assert again.fields[form.labels["day"]] == "tomorrow"

    wrong = send(client, form, day="tomorrow")
    assert wrong.status_code == 422
    assert "Expected a date" in Page(wrong.text).texts[f"{form.labels['day']}-error"]
    for text in ("abc", "inf", "nan"):
        fault = Page(send(client, form, **{SCRIPT: text}).text).texts[f"{form.labels[SCRIPT]}-error"]
        assert fault.startswith("Enter a")
    too_large = send(client, form_of(client, "crop-yield"), temp="1e308", rainfall="1e308", humidity="1e308")
    assert (too_large.status_code, "exceeds the range" in too_large.text) == (422, True)
    assert send(client, form, species="99").status_code == 422


def test_an_extrapolation_names_its_columns(client: httpx.Client) -> None:
    text = Page(send(client, form_of(client, "crop-yield"), temp="200").text).texts["try-it"]
    assert "temp = 200, in training 68 to 103" in text
    assert "above the threshold of" in text
    assert "unlike the training rows" not in Page(send(client, form_of(client, "crop-yield")).text).texts["try-it"]

    outside = Page(send(client, form_of(client, "dependent"), x="5", twice="5").text).texts["try-it"]
    assert "outside the space that the training rows span" in outside
    assert "No interval. " in outside
    unknown = Page(send(client, form_of(client, "merged"), x="1e6").text).texts["try-it"]
    assert "ranges of some columns in training are not known" in unknown
    day = Page(send(client, form_of(client, "mixed"), day="2031-05-06").text).texts["try-it"]
    assert "day = 2031-05-06, in training 2020-" in day


def test_contributions_lead_from_the_mean_to_the_prediction(client: httpx.Client) -> None:
    form = form_of(client, "mixed")
    page = Page(send(client, form, species=form.options[form.labels["species"]][QUOTES]).text)
    (curl, _) = run_lines(page)

    (values,) = curl["contributions"]
    total = sum(value for name, value in values["flipper"].items() if name.startswith("species["))
    assert f"species = {QUOTES}" in page.texts["try-it"]
    assert signed(total) in page.texts["try-it"]


def test_a_form_of_other_columns_is_replaced_by_one_that_fits(site: Service) -> None:
    changed = {**NOTEBOOK, "model": "changing", "target_names": ["y", "z"]}
    trained(site, **changed, feature_names=["a", "b", "c"])
    with browser_of(site) as client:
        form = form_of(client, "changing")
        trained(
            site, **NOTEBOOK, model="changing", feature_names=["a", "b", "d"], target_names=["y", "z"], schema="infer"
        )
        answer = send(client, form)

        page = Page(answer.text)
        assert "Version 2 is current now, and its columns are different." in page.texts["try-it"]
        assert "answer-title" not in page.texts
        assert set(page.form(form.action).labels) == {"a", "b", "d"}
        assert "Prediction of version 1" in send(client, form_of(client, "changing", "/versions/1")).text


def test_a_wide_model_has_a_bounded_form(client: httpx.Client) -> None:
    page = client.get("/models/wide")
    form = Page(page.text).form("/models/wide/predict")

    assert len(form.labels) == 40
    assert "of 600 features" in page.text
    assert "The lines are long." in page.text
    answer = send(client, form)
    assert "curl-line" in Page(answer.text).texts
    assert len(answer.content) < 150_000
    assert "for models of more than 500 columns" in answer.text


def test_with_keys_the_lines_have_a_placeholder_and_the_form_needs_the_scope(guarded: Service) -> None:
    with browser_of(guarded) as client:
        assert client.get("/models/crop-yield").status_code == 303
        sign_in(client, "viewer")
        page = Page(send(client, form_of(client, "crop-yield")).text)

        assert KEY in page.texts["curl-line"]
        by_curl, by_python = run_lines(page, key_of("viewer"))
        assert by_curl == by_python
        assert by_curl["version"] == 1
        sign_in(client, "trainer")
        assert "try-form" not in Page(client.get("/models/crop-yield").text).texts


def test_in_a_browser_the_answer_takes_the_focus_and_the_lines_follow_the_fields(
    shown: Service, page: BrowserPage, assert_accessible: Callable[[BrowserPage], None]
) -> None:
    page.goto(f"{shown.url}/models/mixed")
    page.get_by_text("The same request with curl and Python").click()
    page.get_by_label(SCRIPT, exact=True).fill("99")
    page.get_by_label(SCRIPT, exact=True).blur()
    expect(page.locator("#curl-line")).to_contain_text(": 99}")

    page.get_by_label(SCRIPT, exact=True).press("Enter")
    expect(page.locator("#answer-title")).to_be_focused()
    expect(page.locator("#curl-line")).to_be_visible()
    expect(page.locator("#try-it .alert-warn")).to_contain_text("= 99, in training")
    for summary in page.locator("#try-it .answers summary").all():
        summary.click()
    assert_accessible(page)
    assert page.evaluate("window.ran") is None

    page.get_by_label(SCRIPT, exact=True).fill("")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#try-it [role=alert]")).to_be_focused()
    expect(page.get_by_label(SCRIPT, exact=True)).to_have_attribute("aria-invalid", "true")
    assert_accessible(page)


def test_without_scripts_the_form_leads_to_a_page_with_the_answer(
    shown: Service, open_page: Callable[..., BrowserPage]
) -> None:
    page = open_page(java_script_enabled=False)
    page.goto(f"{shown.url}/models/mixed")
    page.get_by_label("day", exact=True).fill("2022-02-02")
    page.get_by_role("button", name="Predict").click()

    expect(page.get_by_role("heading", name="Prediction of version 1")).to_be_visible()
    assert page.get_by_label("day", exact=True).input_value() == "2022-02-02"
    assert page.url.endswith("/models/mixed/predict")
    assert sys.getsizeof(page.content()) < 200_000
