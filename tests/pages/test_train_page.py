"""The page on which a person trains a model from a file."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from browsing import drop_file
from playwright.sync_api import Locator, Page, Route, expect
from service import Service
from sign_in import browser_of, origin_of, token_in

CITIES = ("oslo", "rome", "lima")
HEADER = "listing,city,listed,floor,price"
ROWS = [
    f"NO-{n:04},{CITIES[n % 3]},2026-01-{n % 28 + 1:02},{'' if n % 10 == 5 else n % 9},{2 * n + n % 9}"
    for n in range(60)
]
TABLE = "\n".join([HEADER, *ROWS, ""])
FAULT = "\n".join([HEADER, *ROWS[:40], "NO-9999,oslo,2026-01-01,high,1", *ROWS[41:], ""])

SCRIPT = "<script>window.ran=1</script><img src=x onerror=window.ran=1>"
HOSTILE = f'"{SCRIPT}","a,""b",y\n' + "".join(f'"{(SCRIPT, "</td>")[n % 2]}",{n * n % 7},{n}\n' for n in range(30))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "Flats in 2026.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def client(site: Service) -> Iterator[httpx.Client]:
    with browser_of(site) as client:
        yield client


def open_train(page: Page, site: Service, file: Path | None = None) -> None:
    page.goto(f"{site.url}/train")
    if file is not None:
        page.set_input_files("#file", file)
        expect(page.locator("table.rows")).to_be_visible()
        expect(page.locator("#preview")).not_to_have_attribute("aria-busy", "true")


def row_of(page: Page, column: str) -> Locator:
    return page.locator("table.columns tbody tr").filter(has=page.get_by_role("rowheader", name=column, exact=False))


def newest_job(site: Service) -> str | None:
    """Return the id of the job that was submitted last."""
    return next((job["id"] for job in site.client.get("/jobs?limit=1").json()["items"]), None)


def test_a_dropped_file_is_previewed_and_trained(
    site: Service,
    page: Page,
    table: Path,
    assert_accessible: Callable[[Page], None],
    assert_fits: Callable[[Page], None],
) -> None:
    before = newest_job(site)
    open_train(page, site)
    assert_accessible(page)
    drop_file(page, table)
    expect(row_of(page, "city")).to_contain_text("3 levels: lima 20, oslo 20, rome 20")
    expect(row_of(page, "listed")).to_contain_text("2026-01-01 to 2026-01-28")
    expect(row_of(page, "floor")).to_contain_text("6 (10.0 %)")
    expect(row_of(page, "listing")).to_contain_text("left out")
    expect(row_of(page, "price")).to_contain_text("suggested")
    expect(row_of(page, "price").get_by_label("Predict")).to_be_checked()
    expect(page.locator("table.rows tbody tr")).to_have_count(20)
    expect(page.get_by_label("Model", exact=True)).to_have_value("flats-in-2026")
    assert_accessible(page)
    assert_fits(page)

    page.get_by_label("Kind of floor").select_option(label="category")
    expect(row_of(page, "floor")).to_contain_text("9 levels")
    page.get_by_label("Ignore listed").check()
    assert newest_job(site) == before
    page.get_by_role("button", name="Train").click()
    page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    assert site.end_of("latest")["status"] == "succeeded"
    card = site.client.get("/models/flats-in-2026").json()
    assert {column["name"]: column["kind"] for column in card["table"]["features"]} == {
        "city": "category",
        "floor": "category",
    }
    assert card["targets"] == ["price"]


def test_a_fault_shows_its_row_and_column_below_the_first_rows(
    site: Service, page: Page, tmp_path: Path, assert_accessible: Callable[[Page], None]
) -> None:
    (tmp_path / "fault.csv").write_text(FAULT)
    open_train(page, site, tmp_path / "fault.csv")
    expect(page.locator("#preview [role=alert]")).to_contain_text('Row 42, column "floor"')
    fault = page.locator("tr.fault")
    expect(fault).to_contain_text("NO-9999")
    expect(fault.locator(".fault-cell")).to_have_text("Fault: high")
    expect(page.locator("tr.gap")).to_contain_text("20 rows not shown")
    assert_accessible(page)
    page.get_by_label("Kind of floor").select_option(label="category")
    expect(row_of(page, "floor")).to_contain_text("level")
    expect(page.locator("#preview [role=alert]")).to_have_count(0)


@pytest.fixture
def refused(site: Service, tmp_path: Path) -> Path:
    """A table whose name is that of a model with the target `price`, which refuses a training for other targets."""
    query = {"model": "refused", "targets": "price", "schema": "infer"}
    answer = site.client.post("/train", params=query, content=TABLE, headers={"content-type": "text/csv"})
    assert site.ended_job(answer)["status"] == "succeeded"
    path = tmp_path / "refused.csv"
    path.write_text(TABLE)
    return path


def test_a_training_that_is_refused_shows_why_and_keeps_the_choices(site: Service, page: Page, refused: Path) -> None:
    before = newest_job(site)
    open_train(page, site, refused)
    page.get_by_label("Predict price").uncheck()
    page.get_by_label("Predict city").check()
    page.get_by_role("button", name="Train").click()
    expect(page.locator("#preview [role=alert]")).to_contain_text("city")
    expect(page.get_by_label("Predict city")).to_be_checked()
    expect(page.get_by_role("button", name="Train")).to_be_enabled()
    assert newest_job(site) == before


def test_the_form_works_without_scripts(
    site: Service, open_page: Callable[..., Page], table: Path, assert_fits: Callable[[Page], None]
) -> None:
    page = open_page(java_script_enabled=False)
    page.goto(f"{site.url}/train")
    page.set_input_files("#file", table)
    page.get_by_role("button", name="Preview the file").click()
    expect(page.get_by_text("The browser has forgotten the file")).to_be_visible()
    assert_fits(page)
    page.get_by_label("Kind of floor").select_option(label="category")
    page.get_by_label("Model", exact=True).fill("without-scripts")
    page.set_input_files("#file", table)
    page.get_by_role("button", name="Preview the file").click()
    expect(row_of(page, "floor")).to_contain_text("9 levels")
    expect(page.get_by_label("Kind of floor")).to_have_value("category:floor")
    page.get_by_text("More options", exact=True).click()
    page.get_by_label("Diagnostics for more than").check()
    page.get_by_label("Earlier rows").select_option(label="stay, and these are added")
    page.set_input_files("#file", table)
    page.get_by_role("button", name="Train").click()
    expect(page.get_by_text("does not have all rows").first).to_be_visible()
    expect(page.get_by_label("Diagnostics for more than")).to_be_checked()
    page.get_by_label("Earlier rows").select_option(label="are replaced by these")
    page.set_input_files("#file", table)
    page.get_by_role("button", name="Train").click()
    page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    assert site.end_of("latest")["model"] == "without-scripts"


def test_nothing_in_a_hostile_file_runs(site: Service, page: Page, tmp_path: Path) -> None:
    path = tmp_path / "<img src=x onerror=window.ran=1>.csv"
    path.write_text(HOSTILE)
    open_train(page, site, path)
    expect(page.locator("table.columns")).to_contain_text(SCRIPT)
    expect(page.locator("table.rows")).to_contain_text("</td>")
    expect(page.locator("#preview img, #preview script")).to_have_count(0)
    page.get_by_label(f"Ignore {SCRIPT}").check()
    page.get_by_label('Kind of a,"b').select_option(label="category")
    expect(row_of(page, 'a,"b')).to_contain_text("levels")
    page.get_by_role("button", name="Train").click()
    page.wait_for_url(re.compile(r"/jobs/[0-9a-f-]{36}$"))
    assert page.evaluate("window.ran") is None
    job = site.end_of("latest")
    assert job["status"] == "succeeded", job
    table = site.client.get(f"/models/{job['model']}").json()["table"]
    assert [(column["name"], column["kind"]) for column in table["features"]] == [('a,"b', "category")]
    assert table["left_out"] == [{"name": SCRIPT, "reason": "drop"}]


def test_only_the_beginning_of_a_long_text_is_previewed_and_an_upload_can_be_cancelled(
    site: Service, page: Page, tmp_path: Path
) -> None:
    before = newest_job(site)
    path = tmp_path / "long.csv"
    path.write_text("a,b,y\n" + '1,"two\nlines",3\n4,"x",6\n' * 100_000)
    open_train(page, site, path)
    expect(page.locator("#preview")).to_contain_text("The file has 2.40 MB, and this preview covers the first 2.10 MB")
    sent: list[Route] = []
    page.route("**/train", lambda route: sent.append(route))  # noqa: PLW0108 - Playwright asks for its parameters
    page.get_by_role("button", name="Train").click()
    expect(page.locator("#upload")).to_be_visible()
    expect(page.get_by_role("button", name="Train")).to_be_disabled()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#upload")).to_be_hidden()
    expect(page.get_by_role("button", name="Train")).to_be_enabled()
    assert newest_job(site) == before


def test_a_choice_is_kept_that_is_made_while_a_preview_is_on_its_way(site: Service, page: Page, table: Path) -> None:
    open_train(page, site, table)
    page.route("**/inspect", lambda _: None, times=1)
    with page.expect_request("**/inspect"):
        page.get_by_label("Kind of floor").select_option(label="category")
    page.get_by_label("Ignore listed").check()

    expect(row_of(page, "floor")).to_contain_text("9 levels")
    expect(page.locator("#preview")).not_to_have_attribute("aria-busy", "true")
    expect(page.get_by_label("Ignore listed")).to_be_checked()


def test_the_answer_to_a_training_is_not_replaced_by_a_preview(site: Service, page: Page, refused: Path) -> None:
    page.clock.install()
    open_train(page, site, refused)
    page.get_by_label("Predict price").uncheck()
    page.get_by_label("Predict city").check()
    page.get_by_label("Kind of floor").select_option(label="category")  # The preview is made again after a pause.
    page.get_by_role("button", name="Train").click()
    expect(page.locator("#preview [role=alert]")).to_contain_text("city")
    page.clock.fast_forward(1000)
    expect(page.locator("#preview")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#preview [role=alert]")).to_contain_text("city")


def test_a_form_without_its_token_trains_nothing(site: Service, client: httpx.Client) -> None:
    before = newest_job(site)
    token = token_in(client.get("/train"))
    files = {"file": ("t.csv", TABLE, "text/csv")}
    headers = {"origin": origin_of(client)}
    for fields in ({}, {"csrf": "0" * 64}):
        assert client.post("/train", data=fields, files=files, headers=headers).status_code == httpx.codes.FORBIDDEN
        assert client.post("/inspect", data=fields, files=files, headers=headers).status_code == httpx.codes.FORBIDDEN
    assert newest_job(site) == before
    shown = client.post("/inspect", data={"csrf": token}, files=files, headers=headers)
    assert shown.status_code == httpx.codes.OK


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"file": ("t.png", b"\x89PNG", "image/png")}, "is that of a table"),
        ({"file": ("", b"", "application/octet-stream")}, "No file was chosen"),
        ({"file": ("t.csv", b"", "text/csv")}, "empty"),
    ],
)
def test_a_file_that_is_no_table_is_refused_on_the_page(
    client: httpx.Client, files: dict[str, tuple[str, bytes, str]], words: str
) -> None:
    token = token_in(client.get("/train"))
    for path in ("/train", "/inspect"):
        data, headers = {"csrf": token, "model": "kept"}, {"origin": origin_of(client)}
        answer = client.post(path, data=data, files=files, headers=headers)
        assert answer.status_code in (httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.UNSUPPORTED_MEDIA_TYPE)
        assert (words in answer.text, 'value="kept"' in answer.text) == (True, True), answer.text
