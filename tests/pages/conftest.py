"""Pages in a real browser, Debian's chromium, without a network."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from browsing import CHROMIUM, FLAGS
from playwright.sync_api import Browser, Page, Request, sync_playwright
from service import Service

WAIT = 120_000  # milliseconds

PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 800}
FOUR_K = {"width": 3840, "height": 2160}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a module. While it runs, no test in the same process can run an event loop."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service for the tests of a module, which may train and promote."""
    running = Service(tmp_path_factory.mktemp("site")).start()
    yield running
    running.stop()


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
        context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
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
    """A function that asserts that axe-core finds no violation on a page."""

    def check(page: Page) -> None:
        found = Axe().run(page).response["violations"]
        listed = [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']]}" for one in found]
        assert listed == []

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


@pytest.fixture
def weight_of(browser: Browser) -> Iterator[Callable[[str], int]]:
    """A function that returns the bytes of all responses for the first visit of a page."""
    contexts = []

    def measure(url: str) -> int:
        context = browser.new_context()
        contexts.append(context)
        page = context.new_page()
        sizes: list[int] = []
        page.on("requestfinished", lambda request: sizes.append(_bytes_of(request)))
        page.goto(url, wait_until="networkidle")
        return sum(sizes)

    yield measure
    for context in contexts:
        context.close()


def _bytes_of(request: Request) -> int:
    sizes = request.sizes()
    return sizes["responseBodySize"] + sizes["responseHeadersSize"]
