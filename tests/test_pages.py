"""The commands of the README and of the documentation do what the pages show.

A block of `sh` is run, in the page's order, and its answer is compared with the block of JSON, CSV or text below it.
A block of `python` is executed, and lines after a prompt are checked like doctests. Blocks of `console` need software
that not every machine has, and are not run.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pasted import BLOCK, LONG_WAITS, Reader
from service import ROOT, Service, copy_models

from app.errors import LinserveError
from app.settings import OF_CLIENT, Settings

PAGES = [
    page
    for page in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    if BLOCK.search(page.read_text())
]  # fmt: skip
# Pages that change only models of their own, or none, share a service. Each other page has a service of its own.
SHARING = {
    "docs/how-to/export-a-model.md",
    "docs/how-to/federated.md",
    "docs/how-to/kserve-v1.md",
    "docs/how-to/mlflow.md",
    "docs/how-to/open-inference.md",
    "docs/how-to/predict-for-a-file.md",
    "docs/how-to/sagemaker.md",
    "docs/how-to/train-from-a-csv.md",
    "docs/how-to/train-from-your-own-table.md",
    "docs/how-to/update-and-forget.md",
    "docs/reference/errors.md",
    "docs/tutorial/first-model.md",
    "docs/tutorial/gradient-descent.md",
}
# The README's commands run in `make test`, those of the other pages in `make test-slow`.
PARAMETERS = [
    pytest.param(page, id=str(page.relative_to(ROOT)), marks=[] if page.parent == ROOT else [pytest.mark.slow])
    for page in PAGES
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("shared"), environment=LONG_WAITS).start()
    yield running
    running.stop()


@pytest.mark.parametrize("page", PARAMETERS)
def test_every_command_of_a_page_answers_as_the_page_shows(
    tmp_path: Path, page: Path, request: pytest.FixtureRequest
) -> None:
    is_sharing = str(page.relative_to(ROOT)) in SHARING
    reader = Reader(tmp_path, shared=request.getfixturevalue("shared") if is_sharing else None)
    try:
        reader.follow(page)
    finally:
        reader.stop()


def test_no_page_has_a_command_that_is_neither_run_nor_marked_as_such() -> None:
    pages = "\n".join(page.read_text() for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    languages = set(re.findall(r"^```(\w*)$", pages, re.MULTILINE))
    assert languages == {"", "sh", "python", "json", "csv", "text", "console", "nginx", "diff"}


def test_the_pages_name_no_setting_that_does_not_exist() -> None:
    settings = {f"LINSERVE_{name.upper()}" for name in Settings.model_fields} | OF_CLIENT
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        if page.name != "CHANGELOG.md":
            assert set(re.findall(r"LINSERVE_[A-Z_]*[A-Z]", page.read_text())) <= settings, page


def test_the_table_of_errors_has_each_problem_of_the_server() -> None:
    named = set(re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE))
    sources = [path.read_text() for room in ("server", "web") for path in (ROOT / "app" / room).rglob("*.py")]
    raised = {name for source in sources for name in re.findall(r'\b[45]\d\d, "([A-Z]\w+)"', source)}
    assert raised
    assert {re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower() for name in raised} <= named


def test_the_table_of_errors_has_each_error_class() -> None:
    listed = (ROOT / "docs/reference/errors.md").read_text()
    classes: list[type[LinserveError]] = [LinserveError]
    for parent in classes:
        classes += parent.__subclasses__()
    names = {re.sub(r"(?<!^)(?=[A-Z])", "-", one.__name__).lower() for one in classes[1:]}
    assert {name for name in names if f"| `{name}` |" not in listed} == set()


def test_the_page_of_log_messages_lists_each_message() -> None:
    listed = (ROOT / "docs/reference/log-messages.md").read_text()
    sources = [path.read_text() for path in (ROOT / "app").rglob("*.py")]
    logged = {text for source in sources for text in re.findall(r'\b_log\.[a-z]+\(\s*"([^"]+)"', source)}
    assert logged
    assert {message for message in logged if f"`{message}`" not in listed} == set()


def test_make_run_serves(tmp_path: Path) -> None:
    environment = os.environ | {
        "UVICORN_PORT": "0",
        "LINSERVE_STATE_DIR": str(tmp_path / "state"),
        "LINSERVE_MODELS_DIR": str(copy_models(tmp_path)),
    }
    with subprocess.Popen(
        ["make", "run"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "Uvicorn running on" in line)
            url = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert url is not None
            call = ["curl", "--silent", "--json", '{"instances": [[75, 63, 44]]}', f"{url[0]}/predict"]
            answer = json.loads(subprocess.run(call, capture_output=True, check=True).stdout)
            assert answer["version"] == 1
        finally:
            os.killpg(process.pid, signal.SIGTERM)
