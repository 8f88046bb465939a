"""Somebody who pastes the commands of a page into a shell, and compares the answers with those that the page shows.

A block of `python` with a title, such as ```` ```python title="predict.py" ````, is a program for a package that is not
installed for development. It runs only if the reader has a Python with that package.
"""

import contextlib
import csv
import doctest
import io
import json
import math
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from command import install
from programs import run_program
from service import JOB_SECONDS, MODELS, ROOT, Service, copy_models

ANYTHING = "…"
# The environment of services that grant a longer wait than the pages ask for.
LONG_WAITS = {"LINSERVE_MAX_WAIT_SECONDS": str(JOB_SECONDS)}
BLOCK = re.compile(r"```(sh|python|python title=\"[\w.-]+\")\n(.*?)```\n(?:```(json|csv|text)\n(.*?)```)?", re.DOTALL)
START = re.compile(r"^((?:(?:LINSERVE|AIP)_\w+=\S+ +)+)make run$", re.MULTILINE)


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

    def __init__(self, folder: Path, python: Path | None = None, shared: Service | None = None) -> None:
        """Run programs that have a title with this Python, if one is given.

        `shared` is a running service, which the reader uses and does not stop. Without it, the reader starts one.
        """
        self.folder = folder
        self._shared = shared
        self._python = python
        copy_models(folder)
        (folder / "models/crop-yield/yields.csv").write_bytes((MODELS / "crop-yield/yields.csv").read_bytes())
        self._service: Service | None = None
        self._names: dict[str, Any] = {}

    def run(self, language: str, commands: str) -> str:
        if commands.startswith(">>>"):
            return self._doctest(self._at_service(commands))
        if language == "python":
            commands = self._at_service(commands)
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(commands, self._names)  # noqa: S102 - our own pages
            return output.getvalue()
        if started := START.search(commands):
            self._start(dict(word.split("=", 1) for word in started[1].split()))
            return ""
        if re.search(r"^make ", commands, re.MULTILINE):
            return self._shell(re.sub(r"^make ", "make --dry-run ", commands, flags=re.MULTILINE), ROOT)
        commands = self._at_service(commands)
        if language.startswith("python"):
            assert self._python is not None
            return run_program(self._python, commands, self.folder)
        return self._shell(commands, self.folder, self._for_command(commands))

    def _for_command(self, commands: str) -> dict[str, str]:
        """Return the environment for the command `linserve`, and start the service if the commands use it."""
        if not re.search(r"(^|[|(]) *linserve ", commands, re.MULTILINE):
            return {}
        programs = self.folder / ".programs"
        if not programs.exists():
            programs.mkdir()
            install(programs)
        url = self._running().url
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "LINSERVE_URL": url, "XDG_CONFIG_HOME": str(self.folder / ".config")}

    def _at_service(self, commands: str) -> str:
        """Return the commands with the address of the service, which is started if it is named and not running."""
        if "localhost:8000" not in commands:
            return commands
        url = self._running().url
        commands = commands.replace("http://localhost:8000", url).replace("localhost:8000", url.removeprefix("http://"))
        return commands.replace("Prefer: wait=10", f"Prefer: wait={JOB_SECONDS:.0f}")  # a busy machine takes longer

    def _doctest(self, commands: str) -> str:
        test = doctest.DocTestParser().get_doctest(commands, self._names, "page", None, 0)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test, clear_globs=False)
        self._names.update(test.globs)
        assert runner.failures == 0, commands
        return ""

    def _running(self) -> Service:
        return self._service or self._shared or self._start({})

    def _start(self, environment: dict[str, str]) -> Service:
        self.stop()
        (self.folder / "service.log").unlink(missing_ok=True)  # it names the port of the service before
        files = {name: str(self.folder / value) for name, value in environment.items() if name.endswith("_FILE")}
        self._service = Service(self.folder, environment=LONG_WAITS | environment | files).start()
        return self._service

    @staticmethod
    def _shell(script: str, folder: Path, environment: Mapping[str, str] = MappingProxyType({})) -> str:
        quiet = re.sub(r"\bcurl ", "curl --silent --show-error ", script)
        done = subprocess.run(
            ["bash", "-euc", quiet],
            cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def stop(self) -> None:
        if self._service is not None:
            self._service.stop()

    def follow(self, page: Path, title: str = "") -> None:
        """Run each command of a page in turn, in this reader's folder. Raises AssertionError for another answer.

        With a `title`, only the program of this title is run, and no other program that has one.
        """
        with contextlib.chdir(self.folder):
            for language, commands, kind, shown in BLOCK.findall(page.read_text()):
                if language not in ("sh", "python") and (self._python is None or title not in language):
                    continue
                output = self.run(language, commands)
                if kind:
                    assert matches(parse(output, kind), parse(shown, kind)), f"{commands}\n{output}"
