"""What all pages have in common: the frame, errors, files, caches, and the choice between a page and JSON."""

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from html_forms import Page as Parsed
from playwright.sync_api import Page, expect
from service import MAX_SECONDS, Service
from sign_in import HTML, browser_of, guarded_service, sign_in

from app.pages import formatting
from app.pages.page_route import PAGES_ONLY, wants_page

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
def client(site: Service) -> Iterator[httpx.Client]:
    with browser_of(site) as client:
        yield client


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (FIREFOX, True),
        ("text/html", True),
        ("TEXT/HTML;level=1", True),
        ("text/html;q=0.5, application/json;q=0.4", True),
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
        ("application/json, text/html", False),
        ("application/json;q=0.9, text/html;q=0.8", False),
        ("text/html;q=0", False),
        ("text/html;q=x", False),
        ("application/xhtml+xml, text/htmlx", False),
        ("", False),
    ],
)
def test_clients_that_prefer_html_get_pages(accept: str, is_page: bool) -> None:
    scope = {"type": "http", "method": "GET", "headers": [(b"accept", accept.encode())]}
    assert wants_page(scope) is is_page


def test_only_forms_are_sent_to_pages() -> None:
    def sent(media_type: str | None) -> bool:
        headers = [(b"accept", FIREFOX.encode())]
        headers += [] if media_type is None else [(b"content-type", media_type.encode())]
        return wants_page({"type": "http", "method": "POST", "headers": headers})

    assert sent("application/x-www-form-urlencoded; charset=utf-8")
    assert sent("multipart/form-data; boundary=a")
    # Java's client accepts HTML by default, whatever it sends.
    assert not any(map(sent, ("application/json", "text/csv", "multipart/form-database", None)))


def test_both_representations_of_a_resource_vary(client: httpx.Client) -> None:
    for path in ("/", "/nothing"):
        for accept in (FIREFOX, "*/*"):
            answer = client.get(path, headers={"accept": accept})
            assert answer.headers["vary"] == "accept, linserve-fragment"
            assert answer.headers["content-type"].startswith("text/html") is (accept == FIREFOX)
    assert "\n  curl " in client.get("/", headers={"accept": "*/*"}).text


def test_a_page_answers_head_and_ignores_conditions(client: httpx.Client) -> None:
    page = client.get("/", headers={"if-none-match": "*", "if-modified-since": "Sun, 29 Nov 2026 12:00:00 GMT"})
    head = client.head("/")

    assert page.status_code == head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == page.headers["content-length"]


def test_errors_are_pages_with_the_sentence_of_the_problem(client: httpx.Client) -> None:
    for path, status in (("/nothing", 404), ("/static/nothing.css", 404), ("/jobs?limit=0", 422), ("/?next=x", 422)):
        page = client.get(path)
        problem = client.get(path if "next" not in path else "/models?next=x", headers={"accept": "*/*"}).json()
        assert page.status_code == problem["status"] == status
        detail = problem["detail"].replace('"', "&#34;").replace("'", "&#39;")
        assert f"<p>{detail}" in page.text
        assert page.headers["x-request-id"] in page.text
    assert "(option next)" in client.get("/?next=x").text
    part = client.get("/nothing", headers={"linserve-fragment": "true"})
    assert (part.status_code, part.text.strip().startswith('<div class="alert')) == (404, True)


def test_programs_are_told_that_a_path_is_a_page(client: httpx.Client) -> None:
    for path in PAGES_ONLY:
        answer = client.get(path.replace("{model}", "crop-yield"), headers={"accept": "*/*"})
        assert answer.status_code == 406
        assert "Accept: text/html" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "of_pages", "of_programs"),
    [
        ("/train", "GET, POST, HEAD, OPTIONS", "POST, OPTIONS"),
        ("/models/crop-yield/current", "POST, PUT, OPTIONS", "PUT, OPTIONS"),
        ("/login", "GET, POST, HEAD, OPTIONS", "GET, POST, HEAD, OPTIONS"),
        ("/models/crop-yield/compare", "GET, POST, HEAD, OPTIONS", "GET, POST, HEAD, OPTIONS"),
        ("/learn", "GET, HEAD, OPTIONS", "GET, HEAD, OPTIONS"),
    ],
)
def test_browsers_are_told_the_methods_of_pages_too(
    client: httpx.Client, path: str, of_pages: str, of_programs: str
) -> None:
    assert client.options(path).headers["allow"] == of_pages
    assert client.options(path, headers={"accept": "*/*"}).headers["allow"] == of_programs
    assert client.patch(path).headers["allow"] == of_pages


def test_a_form_that_is_too_long_or_of_another_type_is_refused(client: httpx.Client) -> None:
    assert client.post("/login", data={"key": "a" * (1 << 20)}).status_code == 413
    assert client.post("/login", data={"key": "a"}, files={"file": b""}).status_code == 415
    fields = [("a", "b")] * 10_001
    content = "&".join(f"{name}={value}" for name, value in fields)
    types = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/login", content=content, headers=types).status_code == 400
    assert client.post("/login", content=b"a=%ff", headers=types).status_code == 400


def test_files_are_kept_for_ever_by_the_hash_in_their_url(client: httpx.Client) -> None:
    page = client.get("/").text
    urls = re.findall(r'(?:href|src)="(/static/[^"]*)"', page)
    assert len(urls) >= 3
    for url in urls:
        kept = client.get(url)
        assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
        asked = client.get(url.partition("?")[0])
        assert asked.headers["cache-control"] == "private, no-cache"
        assert client.get(url, headers={"if-none-match": asked.headers["etag"]}).status_code == 304
        for answer in (kept, asked):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert client.get(urls[0].partition("?")[0] + "?v=000000000000").headers["cache-control"] == "private, no-cache"
    for path in ("/static/../routes.py", "/static/%2e%2e/routes.py", "/static/..%2froutes.py", "/static/"):
        assert client.get(path).status_code == 404


def test_a_keyboard_reaches_the_content_first(site: Service, page: Page) -> None:
    page.goto(site.url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    assert page.get_by_role("link", name="Skip to the content").bounding_box()["y"] >= 0  # type: ignore[index]
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Train a model")).to_be_focused()
    current = page.get_by_role("navigation", name="Main").locator("[aria-current]")
    assert current.all_inner_texts() == ["Models"]


def test_the_page_of_an_error_is_accessible_and_fits(
    site: Service, page: Page, assert_accessible: Callable[[Page], None], assert_fits: Callable[[Page], None]
) -> None:
    page.goto(f"{site.url}/nothing")
    assert_accessible(page)
    assert_fits(page)


def test_links_and_forms_have_the_prefix_of_a_proxy(tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = {"UVICORN_ROOT_PATH": "/ml"}
    folder = tmp_path_factory.mktemp("prefixed")
    with (
        guarded_service(folder, trainer=False, environment=environment) as running,
        httpx.Client(base_url=f"{running.url}/ml", headers=HTML, timeout=MAX_SECONDS) as client,
    ):
        asked = client.get("/")
        assert asked.headers["location"] == "/ml/login"
        answer = sign_in(client, "ops", "/?q=crop")
        assert answer.headers["location"] == "/ml/?q=crop"
        assert "; Path=/ml;" in answer.headers["set-cookie"]
        page = client.get("/")
        assert client.get("/models").headers["location"] == "/ml/"
        links = re.findall(r'(?:href|src|action)="(/[^"]*)"', page.text)
        assert len(links) > 8
        assert [link for link in links if not link.startswith("/ml/")] == []
        assert 'href="/ml/" aria-current="page"' in page.text
        model = Parsed(client.get("/models/crop-yield").text)
        paths = [form.action for form in model.forms] + [link for link in model.links if not link.startswith("#")]
        assert [path for path in paths if not path.startswith("/ml/")] == []
        assert f"{running.url}/ml/models/crop-yield/predict" in model.texts["curl-line"]


def test_numbers_and_times_are_written_for_people() -> None:
    assert [formatting.number(value) for value in (None, 0, 1234567, -2.5, 0.000012345, float("nan"))] == [
        "\u2013", "0", "1\u202f234\u202f567", "\u22122.5", "1.2345e\u22125", "\u2013",
    ]  # fmt: skip
    assert [formatting.duration(seconds) for seconds in (3, 60, 7300, 86400 * 3, 86400 * 800)] == [
        "less than a minute", "1 minute", "2 hours", "3 days", "2 years",
    ]  # fmt: skip
    assert [formatting.size(value) for value in (1, 1500, 2.5e6, 7e12)] == ["1 byte", "1.5 kB", "2.5 MB", "7 TB"]
    assert formatting.percent(0.0123) == "1.2 %"
    assert formatting.count(1, "row") == "1 row"
    assert formatting.age("<script>") == "&lt;script&gt;"
