"""The checks of what the service is made of can fail: licences, pins, secrets and vulnerabilities."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from service import ROOT

NOWHERE = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
BIN = ROOT / ".venv" / "bin"
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text()


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | (environment or {}), capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_licence_of_every_package_is_allowed() -> None:
    ended = run("make", "--no-print-directory", "licences")
    assert ended.returncode == 0, ended.stderr
    assert "| numpy " in ended.stdout


def test_a_licence_that_is_not_allowed_fails() -> None:
    ended = run(BIN / "pip-licenses", "--allow-only", "MIT")
    assert ended.returncode == 1
    assert "not in allow-only licenses" in ended.stderr


def test_a_secret_fails(tmp_path: Path) -> None:
    leak = tmp_path / "leak.py"
    leak.write_text('AWS_KEY = "AKIA' + 'IOSFODNN7EXAMPLE"\n')
    ended = run(BIN / "detect-secrets-hook", "--no-verify", leak)
    assert ended.returncode == 1
    assert "AWS Access Key" in ended.stdout


def test_an_audit_without_internet_prints_a_note_and_fails_nothing() -> None:
    ended = run("make", "--no-print-directory", "audit", environment=NOWHERE)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("pip-audit not run: ")


def test_the_hooks_clone_nothing() -> None:
    assert HOOKS.count("repo:") == HOOKS.count("repo: local") == 1


@pytest.mark.slow
def test_the_bill_of_materials_has_what_runs_with_the_service_and_nothing_else() -> None:
    ended = run("make", "--no-print-directory", "sbom")
    assert ended.returncode == 0, ended.stderr
    document = json.loads((ROOT / "sbom.cdx.json").read_text())
    names = {component["name"] for component in document["components"]}
    assert document["bomFormat"] == "CycloneDX"
    assert {"dbos", "fastapi", "numpy", "torch", "uvicorn"} <= names
    assert names.isdisjoint({"pip", "pytest", "ruff", "mypy"})
