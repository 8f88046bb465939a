"""Clients generated from the OpenAPI document: they compile, and they predict, train and wait.

The programs in `tests/clients` use them as their users would.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from service import ROOT, Service

PROGRAMS = ROOT / "tests" / "clients"
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.slow


def ran(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """Run the command in the folder, and return what it prints."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path} | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(*commands: str) -> None:
    for command in commands:
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed")


def check(found: dict[str, Any]) -> None:
    """Check what each program prints: predictions as objects and arrays, three trainings, and a problem."""
    assert found["shipped"] == [
        {"apples": pytest.approx(53.7956, rel=1e-4), "oranges": pytest.approx(66.8065, rel=1e-4)}
    ]
    assert found["jobs"] == [["succeeded", 1], ["succeeded", 2], ["succeeded", 3]]
    assert found["own"] == [[pytest.approx(21)]]
    assert found["refused"] == "Invalid input"


@pytest.fixture(scope="module")
def document(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(service.client.get("/openapi.json").content)
    return path


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pinned packages of npm."""
    needs("npm")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "use.ts"):
        shutil.copy(PROGRAMS / name, folder)
    ran(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
    return folder


def test_redocly_finds_no_fault_in_the_document(document: Path, node: Path) -> None:
    report = ran(["npx", "redocly", "lint", "--format=json", document], node, REDOCLY_TELEMETRY="off")
    assert json.loads(report)["problems"] == []


def test_the_python_client_predicts_trains_and_waits(service: Service, document: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    command: list[str | Path] = [
        "openapi-python-client",
        "generate",
        "--path",
        document,
        "--meta",
        "none",
        "--config",
        "config.yml",
    ]
    ran([*command, "--output-path", "linserve_client"], tmp_path)
    shutil.copy(PROGRAMS / "use.py", tmp_path)
    ran(["mypy", "--strict", "--no-warn-redundant-casts", "use.py"], tmp_path)
    check(json.loads(ran(["python", "use.py", service.url], tmp_path)))


def test_the_typescript_client_predicts_trains_and_waits(service: Service, document: Path, node: Path) -> None:
    ran(["npx", "openapi-typescript", document, "--default-non-nullable=false", "-o", "linserve.d.ts"], node)
    options = ["--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom"]
    ran(["npx", "tsc", *options, "use.ts"], node)
    check(json.loads(ran(["node", "use.js", service.url], node)))


def test_the_go_client_predicts_trains_and_waits(service: Service, document: Path, tmp_path: Path) -> None:
    needs("go", "java")
    client = tmp_path / "client"
    command: list[str | Path] = ["openapi-generator-cli", "generate", "-g", "go", "-i", document, "-o", client]
    module = ["--git-host", "linserve.test", "--git-user-id", "linserve", "--git-repo-id", "client"]
    ran([*command, *module, "--additional-properties", "packageName=linserve"], tmp_path)
    (client / "use").mkdir()
    shutil.copy(PROGRAMS / "use.go", client / "use" / "main.go")
    # The client needs no module but its own. A newer language version than the toolchain's compiles all the same.
    alone = {"GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    ran(["go", "vet", ".", "./use"], client, **alone)
    check(json.loads(ran(["go", "run", "./use", service.url], client, **alone)))
