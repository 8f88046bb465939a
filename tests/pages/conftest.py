"""Pages in a real browser, Debian's chromium, without a network.

The files in this folder share a browser and services, so each test uses names of models of its own, and expects nothing
of the number of models and jobs. `crop-yield` keeps its only version.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from accessibility import violations
from browsing import CHROMIUM, FLAGS, WAIT
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from service import JOB_SECONDS, Service
from shown_models import train_models
from sign_in import guarded_service
from threaded_service import ThreadedService

expect.set_options(timeout=WAIT)

PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 800}
FOUR_K = {"width": 3840, "height": 2160}


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser for the tests in this folder. While it runs, no test in the same process can run an event loop."""
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service without keys for the tests in this folder, which may train and promote."""
    folder = tmp_path_factory.mktemp("site")
    running = ThreadedService(folder, trainer=True, max_wait_seconds=str(JOB_SECONDS)).start()
    yield running
    running.stop()


@pytest.fixture(scope="package")
def shown(site: Service) -> Service:
    """The site with the models of `shown_models.train_models`."""
    train_models(site)
    return site


@pytest.fixture(scope="package")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with keys for the tests in this folder, which may train and promote."""
    with guarded_service(tmp_path_factory.mktemp("guarded")) as running:
        yield running


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """A function that opens a new page in a context of its own, with options of `browser.new_context`.

    After the test, no page may have run into an error of a script or of the content security policy, or have sent a
    request to another host.
    """
    contexts = []
    faults: list[str] = []
    hosts: set[str] = set()

    def opened(**options: Any) -> Page:
        usual = {"viewport": DESKTOP, "reduced_motion": "reduce", "locale": "en-GB"}
        context = browser.new_context(**{**usual, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if _is_fault(message.text) else None)
        page.on("request", lambda request: hosts.add(_host_of(request)))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []
    assert {host for host in hosts if not re.fullmatch(r"(127\.0\.0\.1|localhost):\d+", host)} <= {""}


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """A new page without cookies."""
    return open_page()


def _is_fault(text: str) -> bool:
    return "Content Security Policy" in text or "Uncaught" in text


def _host_of(request: Request) -> str:
    scheme, _, rest = request.url.partition("://")
    return rest.partition("/")[0] if scheme in ("http", "https", "ws") else ""


@pytest.fixture
def assert_accessible() -> Callable[[Page], None]:
    """A function that asserts that axe-core finds no violation on a page, in the light and in the dark scheme."""

    def check(page: Page) -> None:
        assert violations(page) == []

    return check


@pytest.fixture
def assert_fits() -> Callable[[Page], None]:
    """A function that asserts that a page fits phones, desktops and 4K screens without scrolling sideways."""

    def check(page: Page) -> None:
        for viewport in (PHONE, FOUR_K, DESKTOP):
            page.set_viewport_size(viewport)  # type: ignore[arg-type]
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide == 0, (viewport, wide)

    return check
