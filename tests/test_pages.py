"""The README's calls answer what the README says."""

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
from service import ROOT, Service, copy_models

README = (ROOT / "README.md").read_text()
ANYTHING = "…"


def blocks() -> list[tuple[str, Any]]:
    """Each block of commands with the answer that stands below it, in the page's order."""
    found = re.findall(r"```sh\n(.*?)```\n(?:```(json|csv)\n(.*?)```)?", README, re.DOTALL)
    return [(commands, json.loads(shown) if kind == "json" else shown) for commands, kind, shown in found if kind]


def matches(actual: Any, shown: Any) -> bool:
    if shown == ANYTHING:
        return True
    if isinstance(shown, dict) and isinstance(actual, dict):
        open_end = ANYTHING in shown
        named = {key: value for key, value in shown.items() if key != ANYTHING}
        return (open_end or actual.keys() == named.keys()) and all(
            key in actual and matches(actual[key], value) for key, value in named.items()
        )
    if isinstance(shown, list) and isinstance(actual, list):
        return len(shown) == len(actual) and all(map(matches, actual, shown))
    if isinstance(shown, float) and isinstance(actual, float | int):
        return math.isclose(actual, shown, rel_tol=1e-6)
    return type(actual) is type(shown) and bool(actual == shown)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("readme")).start()
    yield running
    running.stop()


def test_every_call_of_the_readme_answers_what_it_says(fresh: Service) -> None:
    assert len(blocks()) == 11
    for commands, shown in blocks():
        script = commands.replace("localhost:8000", fresh.url).replace("curl ", "curl --silent --show-error ")
        done = subprocess.run(["bash", "-ec", script], cwd=ROOT, capture_output=True, text=True, check=True)
        if isinstance(shown, str):
            assert done.stdout == shown
            continue
        decoder = json.JSONDecoder()
        text, actual = done.stdout.strip(), None
        while text:  # where a block has several calls, the last one's answer is shown
            actual, end = decoder.raw_decode(text)
            text = text[end:].strip()
        assert matches(actual, shown), f"{commands}\n{done.stdout}"


def test_the_readme_names_every_setting_and_no_other() -> None:
    from app.settings import Settings

    named = set(re.findall(r"^\| `(LINSERVE_\w+)`", README, re.MULTILINE))

    assert named == {f"LINSERVE_{name.upper()}" for name in Settings.model_fields}


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
