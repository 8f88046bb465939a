"""The page that compares versions, also on an uploaded file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from service import Service

ROWS = 60
HOSTILE = '"><script>window.ran = 1</script>'
PATH = "/models/shops/compare"
HTML = {"accept": "text/html"}


def csv_of(seed: int, columns: tuple[str, ...] = ("size", "region", "sales"), level: str = "south") -> bytes:
    random = np.random.default_rng(seed)
    lines = []
    for row in range(ROWS):
        size, region = int(random.integers(10, 90)), ("north", level)[row % 2]
        sales = 3 * size + 40 * (row % 2) + round(float(random.normal(0, 8)), 2)
        cells = {"size": size, "region": region, "sales": sales, HOSTILE: level}
        lines.append(",".join(_quoted(cells[name]) for name in columns))
    return "\n".join([",".join(map(_quoted, columns)), *lines]).encode()


def _quoted(cell: object) -> str:
    text = str(cell)
    return '"' + text.replace('"', '""') + '"'


@pytest.fixture(scope="module")
def shops(site: Service) -> Service:
    """The site with a model of three versions: the third has other levels and one feature less."""
    bodies = [csv_of(1), csv_of(2), csv_of(3, ("region", HOSTILE, "sales"), level=HOSTILE)]
    for body in bodies:
        query = {"model": "shops", "targets": "sales", "schema": "infer"}
        if body is bodies[2]:
            query["categories"] = _quoted(HOSTILE)
        headers = {"content-type": "text/csv", "prefer": "wait=60"}
        job = site.ended_job(site.client.post("/train", params=query, content=body, headers=headers))
        assert job["status"] == "succeeded", job
    return site


def test_versions_are_compared_and_evaluated_on_a_file_without_scripts(
    shops: Service, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    recorded = shops.client.get("/models/shops/evaluations").json()
    page = open_page(java_script_enabled=False)
    page.goto(f"{shops.url}{PATH}")
    page.get_by_label("Base version").select_option("1")
    page.get_by_label("Compare with").select_option("2")
    page.get_by_role("button", name="Compare").click()
    cards = [shops.client.get(f"/models/shops/versions/{number}").json() for number in (1, 2)]
    slopes = [card["coefficients"]["sales"]["size"] for card in cards]
    error = cards[0]["standard_errors"]["sales"]["size"]
    row = page.get_by_role("region", name="Table of coefficients of sales").get_by_role("row", name="size")
    expect(row.get_by_role("cell").last).to_have_text(
        f"{(slopes[1] - slopes[0]) / error:.3g}".replace("-", "\N{MINUS SIGN}")
    )
    expect(page.get_by_text("The same features and targets")).to_be_visible()

    file = tmp_path / "rows.csv"
    file.write_bytes(csv_of(4))
    page.get_by_label("Segments by column").fill("region")
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Evaluate").click()
    answer = shops.client.post(
        "/models/shops/evaluate?versions=1,2", content=file.read_bytes(), headers={"content-type": "text/csv"}
    ).json()
    expected = [f"{version['targets']['sales']['rmse']:.6g}" for version in answer["versions"]]
    row = page.get_by_role("region", name="Metrics of sales on the file").get_by_role("row", name="RMSE")
    expect(row.get_by_role("cell")).to_have_text(expected)
    expect(page.get_by_role("img", name="Calibration of sales")).to_be_visible()
    expect(page.get_by_role("region", name="Segments of sales").get_by_role("rowheader")).to_have_count(2)
    assert shops.client.get("/models/shops/evaluations").json() == recorded


def test_the_page_is_accessible_fits_every_screen_and_runs_no_name_as_a_script(
    shops: Service,
    page: Page,
    tmp_path: Path,
    assert_accessible: Callable[[Page], None],
    assert_fits: Callable[[Page], None],
) -> None:
    page.goto(f"{shops.url}{PATH}?versions=1,2,3")
    expect(page.get_by_text("1 feature removed")).to_be_visible()
    expect(page.get_by_text("has new levels")).to_be_visible()
    file = tmp_path / f"{HOSTILE.replace('/', '')}.csv"
    file.write_bytes(csv_of(5, ("size", "region", HOSTILE, "sales"), level=HOSTILE))
    page.get_by_label("Segments by column").fill(HOSTILE)
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Evaluate").click()
    expect(page.get_by_role("heading", name="On the uploaded file")).to_be_visible()
    assert_accessible(page)
    assert_fits(page)
    assert page.evaluate("window.ran") is None


def test_a_faulty_file_shows_the_row_and_keeps_what_was_entered(shops: Service, page: Page, tmp_path: Path) -> None:
    page.goto(f"{shops.url}{PATH}?versions=1,2")
    file = tmp_path / "rows.csv"
    file.write_text("size,region,sales\n20,north,60\n30,south,many\n")
    page.get_by_label("Level of intervals").fill("0.9")
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Evaluate").click()
    expect(page.get_by_role("alert")).to_contain_text('Version 1: Row 3, column "sales"')
    expect(page.get_by_label("Level of intervals")).to_have_value("0.9")
    expect(page.get_by_label("Compare with")).to_have_value("2")


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("versions=1,9", 404, "no version 9"),
        ("versions=1;2", 422, "Expected numbers of versions"),
        ("versions=1,2,3,4,5", 422, "at most 4"),
        ("versions=1,2&target=%3Cscript%3E", 422, "No version has the target"),
    ],
)
def test_versions_that_cannot_be_compared_are_an_error_page(
    shops: Service, query: str, status: int, words: str
) -> None:
    answer = shops.client.get(f"{PATH}?{query}", headers=HTML)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert words in answer.text
    assert "<script>" not in answer.text


def test_a_form_without_the_token_is_refused_and_one_version_alone_has_no_comparison(shops: Service) -> None:
    form: dict[str, Any] = {"versions": (None, "1"), "file": ("rows.csv", csv_of(4))}
    assert shops.client.post(PATH, files=form, headers=HTML).status_code == 403
    alone = shops.client.get("/models/crop-yield/compare", headers=HTML)
    assert alone.status_code == 200
    assert "There is only one version" in alone.text
    assert shops.client.get("/models/nothing/compare", headers=HTML).status_code == 404


def test_a_recorded_evaluation_is_on_the_page_of_its_version_only(shops: Service) -> None:
    answer = shops.client.post(
        "/models/shops/versions/1/evaluate?record=true", content=csv_of(4), headers={"content-type": "text/csv"}
    )
    assert answer.status_code == 200, answer.text
    pages = [shops.client.get(f"/models/shops/versions/{number}", headers=HTML) for number in (1, 2)]
    assert ["Recorded evaluations" in page.text for page in pages] == [True, False]
    assert f"{answer.json()['versions'][0]['targets']['sales']['rmse']:.6g}" in pages[0].text
