"""Hostile names, sites and forms: nothing runs, nothing leaks, and nothing is changed."""

import csv
import io
import json
from typing import Any

import httpx
import pytest
from browsing import WAIT, page_paths
from playwright.sync_api import Browser, Page, expect
from service import MAX_SECONDS, Service
from sign_in import HTML, browser_of, key_of, origin_of, sign_in, token_in

from app.pages.csrf import FORM_COOKIE
from app.pages.page_route import PageRoute
from app.pages.rendering import POLICY
from app.pages.routes import PAGES

SCRIPT = "<script>window.ran=1</script><img src=x onerror=window.ran=1>"
ATTRIBUTE = "\"' onmouseover=window.ran=1 autofocus onfocus=window.ran=1 x='"
TEMPLATE = "{{ 7 * 7 }}{% raw %}${7*7}"


@pytest.fixture(scope="module")
def hostile(site: Service) -> Service:
    """A service with a model whose names are scripts, and a job that failed with such a name in its message."""
    features, targets = [SCRIPT, ATTRIBUTE, TEMPLATE], [f"y {SCRIPT}", f"z {ATTRIBUTE}"]
    rows: list[list[Any]] = [[SCRIPT if i % 2 else ATTRIBUTE, i, i * i % 7, i, i % 3 - i] for i in range(20)]
    jobs = [_train(site, model, [*features, *targets], rows, targets) for model in ("hostile", "failing")]
    rows[-1][-2] = "not a number"
    failed = _train(site, "failing", [*features, *targets], rows, targets)
    assert [job["status"] for job in (*jobs, failed)] == ["succeeded", "succeeded", "failed"]
    assert SCRIPT in json.dumps(failed["error"])
    return site


def _train(site: Service, model: str, columns: list[str], rows: list[list[Any]], targets: list[str]) -> dict[str, Any]:
    listed = io.StringIO()
    csv.writer(listed, lineterminator="").writerow(targets)
    answer = site.client.post(
        "/train",
        params={"model": model, "targets": listed.getvalue()},
        content="\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows),
        headers={"content-type": "application/x-ndjson", "prefer": "wait=60"},
    )
    return site.ended_job(answer)


def test_scripts_in_names_do_not_run(hostile: Service, page: Page) -> None:
    paths = page_paths("hostile")
    assert {"/", "/login"} <= set(paths)
    # The fixture `page` fails if the content security policy has to stop anything.
    for path in [
        *page_paths("hostile"),
        f"/{SCRIPT}",
        f"/?q={SCRIPT}",
        f"/?next={SCRIPT}",
        "/models/hostile/versions/9",
    ]:
        answer = page.goto(hostile.url + path)
        assert answer is not None
        assert answer.status in (200, 404, 422), path
        assert "49" not in page.title()
        _assert_harmless(page)


def test_scripts_in_forms_and_files_do_not_run(hostile: Service, page: Page) -> None:
    page.goto(f"{hostile.url}/train")
    rows = "".join(json.dumps({SCRIPT: SCRIPT, ATTRIBUTE: i, "y": i}) + "\n" for i in range(9))
    for content in (rows, rows + SCRIPT):
        page.locator("#file").set_input_files(
            {"name": f"{SCRIPT}.ndjson", "mimeType": "application/x-ndjson", "buffer": content.encode()}
        )
        expect(page.locator("#preview")).not_to_have_attribute("aria-busy", "true")
        expect(page.locator("#preview")).to_contain_text("window.ran")
        _assert_harmless(page)
    page.goto(f"{hostile.url}/models/hostile")
    form = page.locator("form[action$='/predict']")
    for field in form.locator("input:not([type=hidden])").all():
        field.fill("1")
    form.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer-title")).to_be_focused()
    _assert_harmless(page)


def _assert_harmless(page: Page) -> None:
    assert SCRIPT not in page.content(), page.url
    page.evaluate("document.querySelectorAll('*').forEach(e => e.dispatchEvent(new MouseEvent('mouseover')))")
    assert page.evaluate("window.ran") is None, page.url
    assert page.locator("[onmouseover], [onfocus], [onerror]").count() == 0, page.url


def test_every_page_has_the_policy(site: Service) -> None:
    with browser_of(site) as client:
        for path in [*page_paths("hostile"), "/nothing", "/?next=x"]:
            headers = client.get(path, follow_redirects=True).headers
            assert headers["content-security-policy"] == POLICY, path
            assert headers["referrer-policy"] == "same-origin"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["cache-control"] == "private, no-cache"
    assert "frame-ancestors 'none'" in POLICY
    assert "unsafe" not in POLICY


def test_every_form_checks_its_sender(guarded: Service) -> None:
    forms = [
        (method, route.path)
        for router in PAGES
        for route in router.routes
        if isinstance(route, PageRoute)
        for method in (route.methods or set()) - {"GET", "HEAD"}
    ]
    assert ("POST", "/logout") in forms
    with browser_of(guarded) as client:
        sign_in(client, "ops")
        token = token_in(client.get("/"))
        for method, path in forms:
            url = path.replace("{model}", "crop-yield").replace("{version}", "1").replace("{job}", "latest")
            for fields, headers in (
                ({}, {"origin": origin_of(client)}),
                ({"csrf": ""}, {"origin": origin_of(client)}),
                ({"csrf": token[:-1] + "x"}, {"origin": origin_of(client)}),
                ({"csrf": token}, {"origin": "https://other.example"}),
                ({"csrf": token}, {"origin": "null"}),
                ({"csrf": token}, {"sec-fetch-site": "cross-site"}),
                ({"csrf": token}, {"sec-fetch-site": "same-site", "origin": origin_of(client)}),
            ):
                answer = client.request(method, url, data={**fields, "version": "1", "key": "x"}, headers=headers)
                if answer.status_code == 415:  # the form of a file
                    files: dict[str, tuple[str | None, bytes]] = {
                        "csrf": (None, fields.get("csrf", "").encode()),
                        "file": ("a.csv", b"a,y\n1,2\n"),
                    }
                    answer = client.request(method, url, files=files, headers=headers)
                assert answer.status_code == 403, (path, fields, headers, answer.text)
        assert client.get("/models", headers={"accept": "*/*"}).status_code == 200


def test_a_token_belongs_to_one_browser_and_session(guarded: Service) -> None:
    with browser_of(guarded) as one, browser_of(guarded) as other:
        before = token_in(one.get("/login"))
        sign_in(one, "ops")
        sign_in(other, "ops")
        assert token_in(one.get("/")) == token_in(one.get("/"))
        for token in (before, token_in(other.get("/"))):
            assert one.post("/logout", data={"csrf": token}).status_code == 403
        one.cookies.delete(FORM_COOKIE)
        assert one.post("/logout", data={"csrf": token_in(other.get("/"))}).status_code == 403


def test_a_page_of_another_site_cannot_train(site: Service, page: Page) -> None:
    """Without keys, a form of another site that is open on this machine must not pass as this machine's."""
    before = _newest_job(site)
    other = site.url.replace("127.0.0.1", "localhost") + "/other"
    form = (
        f"<form method='post' enctype='multipart/form-data' action='{site.url}/train'>"
        "<textarea name='csrf'></textarea><textarea name='targets'>y</textarea>"
        "<textarea name='file'>a,y\n1,2\n2,3\n3,5\n</textarea><button>Win</button></form>"
    )
    page.route(other, lambda route: route.fulfill(content_type="text/html", body=form))
    page.goto(other)
    with page.expect_navigation() as navigation:
        page.get_by_role("button").click()

    assert navigation.value.status == 403
    assert _newest_job(site) == before


def _newest_job(service: Service) -> str | None:
    """Return the id of the job that was submitted last."""
    return next((job["id"] for job in service.client.get("/jobs?limit=1").json()["items"]), None)


def test_no_page_shows_in_a_frame(site: Service, browser: Browser) -> None:
    page = browser.new_page()  # The fixture `page` would fail, because the browser reports that it refuses the frame.
    page.set_default_timeout(WAIT)
    page.route("**/other", lambda route: route.fulfill(content_type="text/html", body="<iframe src='/'></iframe>"))
    with page.expect_console_message(lambda message: "frame-ancestors 'none'" in message.text):
        page.goto(f"{site.url}/other")
    page.close()


@pytest.mark.parametrize("host", ["linserve.example", "127.0.0.1.example"])
def test_without_keys_other_machines_see_no_buttons(site: Service, host: str) -> None:
    for headers in ({"host": host}, {"x-forwarded-for": "192.0.2.1"}):
        with httpx.Client(base_url=site.url, headers={**HTML, **headers}, timeout=MAX_SECONDS) as client:
            page = client.get("/")
            assert page.status_code == 200
            assert 'href="/train"' not in page.text
            assert "You cannot train, cancel or promote here" in page.text
            form: dict[str, Any] = {"data": {"csrf": "0" * 64}}
            assert client.post("/logout", **form).status_code == 403


def test_the_key_is_in_no_page_and_no_log(guarded: Service) -> None:
    with browser_of(guarded) as client:
        sign_in(client, "ops")
        for path in ("/", "/login", "/nothing", f"/login?next=/{key_of('ops')[:3]}"):
            assert key_of("ops") not in client.get(path).text
        refused = sign_in(client, "ops", key=key_of("ops") + "x")
        assert key_of("ops") not in refused.text
        guarded.request_record(refused)
    log = guarded.log.read_text()
    assert key_of("ops") not in log
    assert client.cookies[FORM_COOKIE] not in log
