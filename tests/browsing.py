"""Actions of a person on a page in a browser, and the paths of all pages."""

import shutil
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from app.pages.page_route import PageRoute
from app.pages.routes import PAGES

# The headless shell needs less processor time to open a page, but not every machine has it.
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

WAIT = 120_000  # Milliseconds. On a busy machine, a page takes longer than Playwright waits by default.
MAX_TABS = 80  # Presses of the tab key within which an element is expected to have the focus.
_DROP = """([name, text]) => {
    const data = new DataTransfer();
    data.items.add(new File([text], name, { type: "text/csv" }));
    for (const kind of ["dragover", "drop"]) {
      const event = new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
      document.getElementById("drop").dispatchEvent(event);
    }
}"""


def page_paths(model: str, version: int = 1) -> list[str]:
    """Return the path of each page, with the names of a model, its version and the latest job."""
    values = {"{model}": model, "{version}": str(version), "{job}": "latest"}
    paths = []
    for router in PAGES:
        for route in router.routes:
            if isinstance(route, PageRoute) and "GET" in (route.methods or ()):
                path = route.path
                for parameter, value in values.items():
                    path = path.replace(parameter, value)
                paths.append(path)
    return paths


def drop_file(page: Page, file: Path) -> None:
    """Drop a file on the train page."""
    page.evaluate(_DROP, [file.name, file.read_text()])


def tab_to(page: Page, target: Locator) -> None:
    """Press the tab key until the element has the focus."""
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            expect(target).to_be_in_viewport()
            return
    raise AssertionError(f"{target} is not reached by {MAX_TABS} presses of Tab.")
