"""The form that imports a model, and the pages of versions that were imported."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from html_forms import Page, weight_of
from playwright.sync_api import Page as BrowserPage
from playwright.sync_api import Route, expect
from service import Service
from sign_in import browser_of, origin_of, sign_in

from app.pages.import_page import PROMOTIONS
from app.web.schemas.imports import ImportOptions

SCRIPT = "<script>window.ran=1</script>"
PLAIN: dict[str, Any] = {
    "features": ["temp", {"name": "day", "kind": "date"}],
    "targets": ["apples", SCRIPT],
    "coefficients": [[0.5, 2], [1, 3]],
    "intercept": [3, 4],
}
COVARIANCE = {
    "features": ["x"],
    "targets": ["y"],
    "coefficients": [0.5],
    "intercept": 3,
    "covariance": [[0.4425, -0.06], [-0.06, 0.01]],
    "residual_df": 8,
    "rss": 6.6,
    "source": "statsmodels OLS",
}
WITHOUT = "The version was imported without statistics."


@pytest.fixture(scope="module")
def imported(site: Service) -> Service:
    """The site with the imported models `plain`, of two versions, and `covariance`."""
    for model, body in (("plain", PLAIN), ("plain", PLAIN), ("covariance", COVARIANCE)):
        answer = site.client.post(f"/models/{model}/versions", json=body)
        assert answer.status_code == 201, answer.text
    return site


@pytest.fixture
def client(imported: Service) -> Iterator[httpx.Client]:
    with browser_of(imported) as client:
        yield client


def send(client: httpx.Client, content: bytes, name: str = "model.json", **fields: str) -> httpx.Response:
    """Send the form as a browser does. Fields that are not given have the values of the form."""
    form = Page(client.get("/import").text).form("/import")
    given = {**form.fields, **fields}
    del given["file"]
    return client.post(form.action, data=given, files={"file": (name, content)}, headers={"origin": origin_of(client)})


def test_a_person_imports_a_file(imported: Service, page: BrowserPage, tmp_path: Path) -> None:
    file = tmp_path / "line.json"
    file.write_text(json.dumps(COVARIANCE))
    page.goto(imported.url)
    page.get_by_role("link", name="Import a model").click()
    page.get_by_label("Model", exact=True).fill("by-hand")
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Import").click()

    expect(page.get_by_role("heading", name="by-hand version 1 current")).to_be_visible()
    expect(page.get_by_text("imported from statsmodels OLS")).to_be_visible()


def test_clicks_while_a_file_is_sent_do_not_import_it_again(imported: Service, page: BrowserPage) -> None:
    forms: list[str] = []

    def answer(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        forms.append(route.request.url)
        route.fulfill(status=204)  # The browser stays on the page, as it does while it waits.

    page.route("**/import*", answer)
    page.goto(f"{imported.url}/import?model=once")
    page.get_by_label("File", exact=True).set_input_files(
        {"name": "line.json", "mimeType": "application/json", "buffer": json.dumps(COVARIANCE).encode()}
    )
    button = page.get_by_role("button", name="Import")
    with page.expect_response("**/import"):
        button.click()
    button.click()
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow'))")  # The person came back to the page.
    with page.expect_response("**/import"):
        button.click()
    assert len(forms) == 2


def test_the_form_has_the_options_of_an_import(client: httpx.Client) -> None:
    assert PROMOTIONS.keys() == {*get_args(ImportOptions.model_fields["promote"].annotation)}
    layer = client.get("/models/covariance/export?format=safetensors").content

    answer = send(client, layer, "layer.pt", model="layer", features="x", targets="y", promote="never")

    assert (answer.status_code, answer.headers["location"]) == (303, "/models/layer/versions/1")
    assert "No version of this model is current." in client.get("/models/layer/versions/1").text


@pytest.mark.parametrize(
    ("file", "fields", "status", "sentence"),
    [
        (("", b""), {}, 422, "No file was chosen."),
        (("a.json", b"{"), {}, 400, "The body is not JSON"),
        (("a.pkl", b"\x80\x04\x95."), {}, 415, "pickle"),
        (("a.json", json.dumps(COVARIANCE).encode()), {"model": "No Such Name"}, 422, "1 to 64 of a-z"),
        (("a.json", json.dumps(PLAIN | {"coefficients": [[1]]}).encode()), {}, 422, "coefficients"),
    ],
)
def test_a_mistake_is_shown_on_the_form_with_what_was_filled_in(
    client: httpx.Client, file: tuple[str, bytes], fields: dict[str, str], status: int, sentence: str
) -> None:
    name, content = file
    answer = send(client, content, name, **{"model": "kept", "targets": f"{SCRIPT}, kept"} | fields)

    assert answer.status_code == status
    assert sentence in answer.text
    assert SCRIPT not in answer.text
    form = Page(answer.text).form("/import")
    assert form.fields["model"] == fields.get("model", "kept")
    assert form.fields["targets"] == f"{SCRIPT}, kept"


def test_only_forms_of_this_service_and_keys_that_train_import(client: httpx.Client, guarded: Service) -> None:
    content = json.dumps(COVARIANCE).encode()
    assert send(client, content, model="forged", csrf="0" * 64).status_code == 403
    assert client.get("/models/forged").status_code == 404
    assert client.get("/import", headers={"accept": "application/json"}).status_code == 406
    with browser_of(guarded) as person:
        assert person.get("/import").headers["location"] == "/login?next=/import"
        sign_in(person, "viewer")
        assert person.get("/import").status_code == 403
        assert "/import" not in Page(person.get("/").text).links
        sign_in(person, "trainer")
        assert send(person, content, model="mine").headers["location"] == "/models/mine/versions/1"


def test_reasons_and_unknown_values_of_an_imported_version_are_in_words(client: httpx.Client) -> None:
    page = Page(client.get("/models/plain").text)
    text = " ".join(page.texts["content"].split())

    assert f"Intervals and tests are withheld. {WITHOUT}" in text
    assert page.texts["notes"].count(WITHOUT) == 1
    assert "imports are not cross-validated" in text
    assert "imported from JSON" in text
    assert " imported without statistics " not in text
    assert "not known" in page.texts["schema"]
    compared = " ".join(Page(client.get("/models/plain/compare").text).texts["content"].split())
    assert "Effect of its rowsnone: importednone: imported" in compared


def test_the_prediction_form_names_results_that_are_not_available(client: httpx.Client, page: BrowserPage) -> None:
    sentences = {
        "plain": (f"No interval. {WITHOUT}", f"is not known. {WITHOUT}"),
        "covariance": ("95 % interval: 3", "because a file that was merged or imported has none"),
    }
    for model, expected in sentences.items():
        form = Page(client.get(f"/models/{model}").text).form(f"/models/{model}/predict")
        without_scripts = " ".join(Page(client.post(form.action, data=form.fields).text).texts["try-it"].split())
        page.goto(str(client.base_url.join(f"/models/{model}")))
        page.get_by_role("button", name="Predict").click()
        for sentence in expected:
            assert sentence in without_scripts
            expect(page.get_by_text(sentence).first).to_be_visible()


@pytest.mark.parametrize(
    "path",
    [
        "/models/plain",
        *(
            pytest.param(path, marks=pytest.mark.slow)
            for path in ("/models/covariance", "/models/plain/compare?versions=1,2")
        ),
    ],
)
def test_pages_of_imported_versions_are_accessible_and_fit(
    imported: Service,
    page: BrowserPage,
    path: str,
    assert_accessible: Callable[[BrowserPage], None],
    assert_fits: Callable[[BrowserPage], None],
) -> None:
    page.goto(imported.url + path)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert_accessible(page)
    assert_fits(page)
    assert page.evaluate("window.ran") is None


def test_the_page_of_an_imported_version_transfers_few_bytes(client: httpx.Client) -> None:
    assert weight_of(client, "/models/plain") < 100_000
