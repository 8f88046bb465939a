"""The commands of the README and of the documentation do what the pages show.

A block of `sh` is run, in the page's order, and its answer is compared with the block of JSON, CSV or text below it.
A block of `python` is executed, and lines after a prompt are checked like doctests. Blocks of `console` need software
that not every machine has, and are not run.
"""

import contextlib
import csv
import doctest
import io
import json
import math
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service import MODELS, ROOT, Service, copy_models

from app.settings import Settings

ANYTHING = "…"
BLOCK = re.compile(r"```(sh|python)\n(.*?)```\n(?:```(json|csv|text)\n(.*?)```)?", re.DOTALL)
START = re.compile(r"^((?:LINSERVE_\w+=\S+ +)+)make run$", re.MULTILINE)
PAGES = [
    page
    for page in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    if BLOCK.search(page.read_text())
]  # fmt: skip
# Each page has a service of its own. The README's runs in `make test`, those of the other pages in `make test-slow`.
PARAMETERS = [
    pytest.param(page, id=str(page.relative_to(ROOT)), marks=[] if page.parent == ROOT else [pytest.mark.slow])
    for page in PAGES
]


def matches(actual: Any, shown: Any) -> bool:
    """Compare numbers to 6 digits; an ellipsis stands for any value, or for further fields."""
    if shown == ANYTHING:
        return True
    if isinstance(shown, dict) and isinstance(actual, dict):
        named = {key: value for key, value in shown.items() if key != ANYTHING}
        return (ANYTHING in shown or actual.keys() == named.keys()) and all(
            key in actual and matches(actual[key], value) for key, value in named.items()
        )
    if isinstance(shown, list) and isinstance(actual, list):
        return len(shown) == len(actual) and all(map(matches, actual, shown))
    if isinstance(shown, float) and isinstance(actual, float | int):
        return math.isclose(actual, shown, rel_tol=1e-6)
    return type(actual) is type(shown) and bool(actual == shown)


def parse(text: str, kind: str) -> Any:
    """Return the last JSON value in the text, or the cells of the CSV."""
    if kind == "csv":
        return [[_cell(cell) for cell in row] for row in csv.reader(io.StringIO(text))]
    if kind == "text":
        return text
    decoder, rest, value = json.JSONDecoder(), text.strip(), None
    while rest:
        value, end = decoder.raw_decode(rest)
        rest = rest[end:].strip()
    return value


def _cell(text: str) -> float | str:
    with contextlib.suppress(ValueError):
        return float(text)
    return text


class Reader:
    """Somebody who types the commands of one page, in a folder with the file of the shipped model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        copy_models(folder)
        (folder / "models/crop-yield/yields.csv").write_bytes((MODELS / "crop-yield/yields.csv").read_bytes())
        self._service: Service | None = None
        self._names: dict[str, Any] = {}

    def run(self, language: str, commands: str) -> str:
        if commands.startswith(">>>"):
            return self._doctest(commands)
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(commands, self._names)  # noqa: S102 - our own pages
            return output.getvalue()
        if started := START.search(commands):
            self._start(dict(word.split("=", 1) for word in started[1].split()))
            return ""
        if re.search(r"^make ", commands, re.MULTILINE):
            return self._shell(re.sub(r"^make ", "make --dry-run ", commands, flags=re.MULTILINE), ROOT)
        if "localhost:8000" in commands:
            commands = commands.replace("localhost:8000", (self._service or self._start({})).url)
            commands = commands.replace("Prefer: wait=10", "Prefer: wait=60")  # a busy machine takes longer
        return self._shell(commands, self.folder)

    def _doctest(self, commands: str) -> str:
        test = doctest.DocTestParser().get_doctest(commands, self._names, "page", None, 0)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test, clear_globs=False)
        self._names.update(test.globs)
        assert runner.failures == 0, commands
        return ""

    def _start(self, environment: dict[str, str]) -> Service:
        self.stop()
        (self.folder / "service.log").unlink(missing_ok=True)  # it names the port of the service before
        files = {name: str(self.folder / value) for name, value in environment.items() if name.endswith("_FILE")}
        self._service = Service(self.folder, environment=environment | files).start()
        return self._service

    @staticmethod
    def _shell(script: str, folder: Path) -> str:
        quiet = re.sub(r"\bcurl ", "curl --silent --show-error ", script)
        done = subprocess.run(["bash", "-euc", quiet], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def stop(self) -> None:
        if self._service is not None:
            self._service.stop()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    somebody = Reader(tmp_path)
    yield somebody
    somebody.stop()


@pytest.mark.parametrize("page", PARAMETERS)
def test_every_command_of_a_page_answers_as_the_page_shows(
    reader: Reader, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(reader.folder)
    for language, commands, kind, shown in BLOCK.findall(page.read_text()):
        output = reader.run(language, commands)
        if kind:
            assert matches(parse(output, kind), parse(shown, kind)), f"{commands}\n{output}"


def test_no_page_has_a_command_that_is_neither_run_nor_marked_as_such() -> None:
    pages = "\n".join(page.read_text() for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    languages = set(re.findall(r"^```(\w*)$", pages, re.MULTILINE))
    assert languages == {"", "sh", "python", "json", "csv", "text", "console", "nginx", "diff"}


def test_the_pages_name_no_setting_that_does_not_exist() -> None:
    settings = {f"LINSERVE_{name.upper()}" for name in Settings.model_fields}
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        if page.name != "CHANGELOG.md":
            assert set(re.findall(r"LINSERVE_[A-Z_]*[A-Z]", page.read_text())) <= settings, page


def test_the_table_of_errors_has_each_problem_of_the_server() -> None:
    named = set(re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE))
    sources = [path.read_text() for room in ("server", "web") for path in (ROOT / "app" / room).rglob("*.py")]
    raised = {name for source in sources for name in re.findall(r'\b[45]\d\d, "([A-Z]\w+)"', source)}
    assert raised
    assert {re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower() for name in raised} <= named


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
