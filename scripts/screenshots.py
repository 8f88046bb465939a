"""Take pictures of the pages: `PYTHONPATH=.:tests .venv/bin/python scripts/screenshots.py FOLDER`.

A service in a temporary folder trains versions of a table of flats, and serves predictions, so that every panel has
something to show. The table is the same each time. `--docs` takes the pictures of docs/images, and `--first-paint`
prints when each page is painted first.
"""

import argparse
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright
from service import ROOT, Service
from sign_in import guarded_service

IMAGES = ROOT / "docs" / "images"
MAX_BYTES = 200_000  # Size of a picture in docs/images.
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
PHONE, DESKTOP, FOUR_K = (360, 740), (1280, 800), (3840, 2160)
RESPONSE = "performance.getEntriesByType('navigation')[0].responseEnd"
FIRST_PAINT = """() => new Promise(resolve => new PerformanceObserver(list => {
    for (const entry of list.getEntriesByName("first-contentful-paint")) resolve(entry.startTime);
}).observe({ type: "paint", buffered: true }))"""
LOADS = 9  # Loads of each page for the median of its first paint.
HEADER = "district,area,rooms,floor,built,listed,price"
DISTRICTS = {"Altstadt": 95.0, "Hafen": 40.0, "Nordend": 60.0, "Westhang": 130.0}
DESCENT = {
    "solver": "gradient_descent",
    "standardize": "true",
    "learning_rate": "0.05",
    "epochs": "120",
    "promote": "never",
}
CSV = {"content-type": "text/csv", "prefer": "wait=60"}


def flats(seed: int, rows: int = 200, *, growth: float = 0.0, larger: float = 0.0) -> list[list[Any]]:
    """Return rows for HEADER. Prices are in thousands, and grow by the share `growth`."""
    rng = random.Random(seed)  # noqa: S311 - an example
    table = []
    for _ in range(rows):
        district = rng.choice(sorted(DISTRICTS))
        area = round(rng.gauss(78 + larger, 22) + 18, 1)
        rooms = max(1, round(area / 27 + rng.gauss(0, 0.6)))
        floor, built = rng.randint(0, 7), rng.randint(1905, 2024)
        price = 35 + 4.1 * area + 6 * rooms + 4 * floor + 0.5 * (built - 1960) + DISTRICTS[district]
        price = price * (1 + growth) + rng.gauss(0, 22)
        listed = f"2026-{rng.randint(1, 6):02}-{rng.randint(1, 28):02}"
        table.append([district, area, rooms, floor, built, listed, round(price, 1)])
    return table


def csv_of(table: list[list[Any]]) -> str:
    return "\n".join([HEADER, *(",".join(map(str, row)) for row in table), ""])


def train(service: Service, table: list[list[Any]], **options: str) -> str:
    """Train a version, and return the id of its job."""
    params = {"model": "flats", "targets": "price", "drop": "listed", **options}
    answer = service.client.post("/train", params=params, content=csv_of(table), headers=CSV)
    job = service.ended_job(answer)
    return str(job["id"])


class Jobs(NamedTuple):
    descent: str
    failed: str


def fill(service: Service) -> Jobs:
    """Train versions of a model, send rows to predict and outcomes, and let one training fail."""
    train(service, flats(1), folds="10")
    train(service, flats(2, growth=0.06), folds="10")
    descent = train(service, flats(2, growth=0.06), **DESCENT)
    faulty = flats(3, 60)
    faulty[41][1] = "large"
    failed = train(service, faulty, numbers="area")
    for part in range(30):
        rows = flats(100 + part, 8, growth=0.06, larger=14)
        instances = [dict(zip(HEADER.split(",")[:5], row, strict=False)) for row in rows]
        ids = [f"flat-{part}-{place}" for place in range(len(rows))]
        body = {"instances": instances, "prediction_id": ids}
        service.client.post("/models/flats/predict", json=body).raise_for_status()
        outcomes = [{"prediction_id": name, "price": row[-1]} for name, row in zip(ids, rows, strict=True)]
        service.client.post("/models/flats/actuals", json={"actuals": outcomes}).raise_for_status()
    service.client.post("/models/flats/predict", json={"instances": [{"area": "x"}]})
    for _ in range(12):
        service.predict([73, 67, 43])
    evaluation = service.client.post(
        "/models/flats/evaluate?record=true", content=csv_of(flats(4, growth=0.06)), headers=CSV
    )
    evaluation.raise_for_status()
    return Jobs(descent, failed)


class Pages:
    """The steps that bring a page to the state in which it is shown."""

    def __init__(self, url: str, guarded_url: str, jobs: Jobs, folder: Path) -> None:
        self.url = url
        self.guarded_url = guarded_url
        self.table = folder / "flats.csv"
        self.table.write_text(csv_of(flats(4, growth=0.06)))
        self.faulty = folder / "faulty.csv"
        self.faulty.write_text(csv_of(flats(3, 60)[:40]) + "Hafen,large,3,2,1990,2026-01-01,500\n")
        self.steps: dict[str, Callable[[Page], None]] = {
            "models": self._opened("/"),
            "train": self._previewed(self.table),
            "fault": self._previewed(self.faulty),
            "job": self._opened(f"/jobs/{jobs.descent}"),
            "failed-job": self._opened(f"/jobs/{jobs.failed}"),
            "jobs": self._opened("/jobs"),
            "model": self._tried,
            "version": self._opened("/models/flats/versions/1"),
            "compare": self._evaluated,
            "learn": self._opened("/learn"),
            "login": self._signing_in,
            "error": self._opened("/models/nothing"),
        }
        self.paths = ["/", "/train", "/jobs", f"/jobs/{jobs.descent}", "/models/flats", "/models/flats/versions/1"]
        self.paths += ["/models/flats/compare?versions=1,2", "/learn"]

    def _opened(self, path: str) -> Callable[[Page], None]:
        def opened(page: Page) -> None:
            page.goto(self.url + path)
            page.wait_for_timeout(300)  # Charts are drawn after the load.

        return opened

    def _previewed(self, file: Path) -> Callable[[Page], None]:
        def previewed(page: Page) -> None:
            page.goto(f"{self.url}/train?model=flats")
            page.set_input_files("#file", file)
            page.locator("table.columns").wait_for()

        return previewed

    def _tried(self, page: Page) -> None:
        page.goto(f"{self.url}/models/flats")
        page.get_by_label("district", exact=True).select_option("Westhang")
        for name, value in {"area": "172", "rooms": "5", "floor": "2", "built": "1931"}.items():
            page.get_by_label(name, exact=True).fill(value)
        page.get_by_role("button", name="Predict").click()
        page.get_by_text("Contributions to the prediction", exact=True).click()

    def _signing_in(self, page: Page) -> None:
        page.goto(f"{self.guarded_url}/login")

    def _evaluated(self, page: Page) -> None:
        page.goto(f"{self.url}/models/flats/compare?versions=1,2")
        page.get_by_label("Segments by column").fill("district")
        page.get_by_label("File", exact=True).set_input_files(self.table)
        page.get_by_role("button", name="Evaluate").click()
        page.locator("#results").wait_for()


# Pictures of the documentation: the page, its colours, the size of the window, and the element at the top.
DOCS: dict[str, tuple[str, str, tuple[int, int], str]] = {
    "train.png": ("train", "light", (1100, 900), "#preview"),
    "job.png": ("job", "dark", (1200, 850), "body"),
    "model.png": ("model", "light", (1000, 965), "#try"),
    "compare.png": ("compare", "dark", (1000, 880), "#results"),
}


@contextmanager
def opened(browser: Browser, size: tuple[int, int], scheme: str) -> Iterator[Page]:
    """A page of its own in a window of this size."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    yield context.new_page()
    context.close()


def picture_all(browser: Browser, pages: Pages, folder: Path, only: list[str]) -> None:
    """Take a picture of each page: light, dark, on a phone, and on a 4K screen."""
    kinds = [("light", DESKTOP), ("dark", DESKTOP), ("phone", PHONE), ("4k", FOUR_K)]
    for name, step in pages.steps.items():
        for kind, size in kinds:
            if not only or name in only:
                with opened(browser, size, kind) as page:
                    step(page)
                    page.screenshot(path=folder / f"{name}-{kind}.png", full_page=size != FOUR_K)


def picture_docs(browser: Browser, pages: Pages) -> None:
    IMAGES.mkdir(exist_ok=True)
    for file, (name, scheme, size, top) in DOCS.items():
        with opened(browser, size, scheme) as page:
            pages.steps[name](page)
            page.evaluate("top => document.querySelector(top).scrollIntoView()", top)
            page.evaluate("document.activeElement.blur()")
            page.screenshot(path=IMAGES / file)
        if (size_of := (IMAGES / file).stat().st_size) > MAX_BYTES:
            raise ValueError(f"{file} has {size_of} bytes, which is more than {MAX_BYTES}.")


def print_first_paints(browser: Browser, pages: Pages) -> None:
    """Print medians in milliseconds since the navigation began: the last byte of the page, and its first paint."""
    for path in pages.paths:
        with opened(browser, DESKTOP, "light") as page:
            loads = []
            for _ in range(LOADS + 1):
                page.goto(pages.url + path)
                loads.append((page.evaluate(RESPONSE), page.evaluate(FIRST_PAINT)))
            (_, first), *others = loads
            response, paint = (statistics.median(times) for times in zip(*others, strict=True))
            low, high = (choice(paint for _, paint in others) for choice in (min, max))
            measured = (
                f"response {response:4.0f}, paint {paint:4.0f} ({low:.0f} to {high:.0f}; empty cache {first:.0f})"
            )
            print(f"{path:45} {measured}")  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="for pictures of all pages")
    parser.add_argument("--only", nargs="*", default=[], help="names of pages, such as models")
    parser.add_argument("--docs", action="store_true", help="take the pictures of docs/images")
    parser.add_argument("--first-paint", action="store_true", help="print when each page is painted first")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder, guarded_folder = Path(temporary, "open"), Path(temporary, "guarded")
        folder.mkdir()
        guarded_folder.mkdir()
        service = Service(folder).start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            with guarded_service(guarded_folder, trainer=False) as guarded:
                pages = Pages(service.url, guarded.url, fill(service), folder)
                if arguments.folder:
                    arguments.folder.mkdir(exist_ok=True, parents=True)
                    picture_all(browser, pages, arguments.folder, arguments.only)
                if arguments.docs:
                    picture_docs(browser, pages)
                if arguments.first_paint:
                    print_first_paints(browser, pages)
        finally:
            browser.close()
            service.stop()


if __name__ == "__main__":
    main()
