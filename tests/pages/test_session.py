"""Sessions: signing in and out, the cookie, and the requests that it counts for."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Page
from service import NOTEBOOK, Service
from sign_in import HTML, browser_of, key_of, sign_in, token_in, write_keys

from app.pages.session import own_path
from app.web.auth import decode_session, encode_session

ROWS = {"instances": [[75, 63, 44]]}


@pytest.fixture
def client(guarded: Service) -> Iterator[httpx.Client]:
    with browser_of(guarded) as client:
        yield client


def test_a_page_leads_to_the_login_page_and_back(client: httpx.Client) -> None:
    asked = client.get("/?q=crop")
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=/%3Fq%3Dcrop")
    form = client.get(asked.headers["location"])
    assert 'name="next" value="/?q=crop"' in form.text

    answer = sign_in(client, "viewer", "/?q=crop")

    assert (answer.status_code, answer.headers["location"]) == (303, "/?q=crop")
    assert client.get("/").status_code == 200


def test_the_cookies_are_out_of_reach_of_scripts_and_other_sites(client: httpx.Client) -> None:
    made = {cookie.split("=")[0]: cookie for cookie in client.get("/login").headers.get_list("set-cookie")}
    made |= {cookie.split("=")[0]: cookie for cookie in sign_in(client, "viewer").headers.get_list("set-cookie")}

    assert set(made) == {"linserve_form", "linserve_key"}
    for cookie in made.values():
        assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
    assert "Max-Age=43200" in made["linserve_key"]


def test_the_cookie_is_secure_if_the_browser_uses_https(client: httpx.Client) -> None:
    form = {"csrf": token_in(client.get("/login")), "key": key_of("viewer")}
    headers = {"origin": "https://linserve.example", "sec-fetch-site": "same-origin"}  # a proxy ends TLS
    assert "; Secure" in client.post("/login", data=form, headers=headers).headers["set-cookie"]


def test_a_wrong_key_is_named_so_in_the_form(client: httpx.Client) -> None:
    for wrong in ("guess", "", " ", "\u20ac" * 300):
        answer = sign_in(client, "viewer", key=wrong)
        assert answer.status_code == 401
        assert "This is not a valid API key." in answer.text
        assert 'aria-describedby="message"' in answer.text
        assert "set-cookie" not in answer.headers
    assert client.get("/").status_code == 303


def test_scopes_decide_which_buttons_there_are(client: httpx.Client) -> None:
    shown = {}
    for name in ("viewer", "trainer", "ops"):
        sign_in(client, name)
        page = client.get("/").text
        assert f"<strong>{name}</strong>" in page
        shown[name] = 'href="/train"' in page
    assert shown == {"viewer": False, "trainer": True, "ops": True}


def test_signing_out_ends_the_session(client: httpx.Client) -> None:
    sign_in(client, "ops")
    assert client.get("/").headers["cache-control"] == "private, no-store"  # nor does the browser go back to it
    assert client.post("/logout", data={"csrf": "0" * 64}).status_code == 403
    assert client.post("/logout", data={"csrf": token_in(client.get("/"))}).headers["location"] == "/login"
    assert client.get("/").headers["location"] == "/login"


def test_a_revoked_key_leads_to_the_login_page(guarded: Service, client: httpx.Client) -> None:
    sign_in(client, "ops")
    keys = write_keys(guarded.state.parent / "keys", "viewer")
    try:
        assert client.get("/").status_code == 303
        page = client.get("/login")
        assert "The API key of this browser is no longer valid." in page.text
        assert re.search(r'linserve_key="?"?; .*Max-Age=0', page.headers["set-cookie"])
    finally:
        write_keys(keys, "viewer", "trainer", "ops")


def test_the_cookie_counts_for_reading_only(client: httpx.Client) -> None:
    sign_in(client, "ops")
    client.headers["accept"] = "*/*"
    for path in ("/models", "/models/crop-yield", "/models/crop-yield/versions/1/file", "/jobs", "/metrics"):
        assert client.get(path).status_code == 200, path
    assert client.head("/models").status_code == 200
    assert client.get("/jobs/no-job/events").status_code == 404  # an EventSource sends no headers of a page
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/predict", ROWS),
        ("POST", "/models/crop-yield/predict", ROWS),
        ("POST", "/train", NOTEBOOK),
        ("POST", "/inspect", NOTEBOOK),
        ("POST", "/jobs/latest/cancel", None),
        ("PUT", "/models/crop-yield/current", {"version": 1}),
        ("DELETE", "/models/crop-yield/versions/1", None),
        ("DELETE", "/models/crop-yield", None),
    ]
    for accept in ("*/*", HTML["accept"]):
        for method, path, body in calls:
            answer = client.request(method, path, json=body, headers={"accept": accept})
            assert answer.status_code == 401, (method, path, answer.text)


def test_a_wrong_key_in_a_header_is_not_replaced_by_the_cookie(client: httpx.Client) -> None:
    sign_in(client, "ops")
    for headers in ({"x-api-key": "guess"}, {"authorization": "Bearer guess"}, {"authorization": "Basic b3Bz"}):
        assert client.get("/models", headers={"accept": "*/*", **headers}).status_code == 401


def test_a_session_in_a_browser(guarded: Service, page: Page, assert_accessible: Callable[[Page], None]) -> None:
    page.goto(f"{guarded.url}/?q=crop")
    assert_accessible(page)
    page.get_by_label("API key").fill("guess")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    assert_accessible(page)
    page.get_by_label("API key").fill(key_of("trainer"))
    page.keyboard.press("Enter")
    page.wait_for_url(f"{guarded.url}/?q=crop")
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("fetch('/models').then(answer => answer.status)") == 200
    assert page.evaluate("fetch('/predict', {method: 'POST'}).then(answer => answer.status)") == 401

    page.goto(f"{guarded.url}/")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{guarded.url}/login")
    page.goto(f"{guarded.url}/")
    assert page.url == f"{guarded.url}/login"


def test_a_link_on_another_site_does_not_lead_to_the_login_page(guarded: Service, page: Page) -> None:
    page.goto(f"{guarded.url}/login")
    page.get_by_label("API key").fill(key_of("viewer"))
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Models", level=1).wait_for()
    other = guarded.url.replace("127.0.0.1", "localhost") + "/other"
    link = f"<a href='{guarded.url}/'>A link</a>"
    page.route(other, lambda route: route.fulfill(content_type="text/html", body=link))
    page.goto(other)

    page.get_by_role("link").click()

    page.get_by_role("heading", name="Models", level=1).wait_for()


@pytest.mark.parametrize(
    "path",
    [
        "//other.example",
        "///other.example",
        "/\\other.example",
        "\\\\other.example",
        "/%2fother.example",
        "/%252fother.example",
        "/%5cother.example",
        "/\t/other.example",
        "/%09/other.example",
        "/\n/other.example",
        "https://other.example/",
        "https:other.example",
        "javascript:alert(1)",
        "other.example",
        "@other.example",
        "/login?next=/",
        "/logout",
        "",
        " /jobs",
        "/jobs\r\nset-cookie: a=b",
        "/a\u2028",
        "/" + "a" * 3000,
        None,
    ],
)
def test_the_login_page_leads_to_no_other_site(path: str | None) -> None:
    assert own_path(path) == "/"


@pytest.mark.parametrize("path", ["/", "/jobs?status=failed&next=a%2Fb", "/models/a.b_c-d/versions/3#top"])
def test_the_login_page_leads_to_the_pages_of_the_service(path: str) -> None:
    assert own_path(path) == path


@given(st.text(max_size=100))
def test_every_key_can_be_kept_in_a_cookie(secret: str) -> None:
    value = encode_session(secret)
    assert re.fullmatch(r"[A-Za-z0-9_-]*", value)
    assert decode_session(value) == (secret or None)


@given(st.text(max_size=100))
def test_foreign_cookies_are_no_error(value: str) -> None:
    decode_session(value)
