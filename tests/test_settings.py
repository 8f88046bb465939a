"""Settings from the environment."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from service import ROOT

from app.settings import load
from app.startup import load_config

UNREADABLE = "postgresql://user:sec@ret@host:x/jobs"  # pragma: allowlist secret
WRONG = [
    ("LINSERVE_MAX_JSON_BYTES", "abc", "LINSERVE_MAX_JSON_BYTES: Input should be a valid integer"),
    ("LINSERVE_MAX_JSON_BYTE", "5", "LINSERVE_MAX_JSON_BYTE: there is no such setting"),
    ("LINSERVE_WORKERS", "4", "UVICORN_WORKERS"),
    ("LINSERVE_DEFAULT_MODEL", "../x", "LINSERVE_DEFAULT_MODEL"),
    ("LINSERVE_STATE_DIR", "/proc/nowhere", "LINSERVE_STATE_DIR: /proc/nowhere is not a folder and cannot be created"),
    ("LINSERVE_MODELS_DIR", "/etc/hostname", "LINSERVE_MODELS_DIR: /etc/hostname is not a folder"),
    ("LINSERVE_API_KEYS_FILE", "/proc/nowhere", "LINSERVE_API_KEYS_FILE"),
    ("LINSERVE_API_KEYS_FILE", "/etc/hostname", "LINSERVE_API_KEYS_FILE: Line 1: expected a name"),
    ("LINSERVE_API_KEYS_FILE", "", "LINSERVE_API_KEYS_FILE: it is empty"),
    ("LINSERVE_CORS_ORIGINS", "*", "LINSERVE_CORS_ORIGINS: * is not an origin as browsers send it"),
    ("LINSERVE_CORS_ORIGINS", "https://*.example.org", "LINSERVE_CORS_ORIGINS: https://*.example.org is not an origin"),
    ("LINSERVE_CORS_ORIGINS", "https://a.example, https://b.example/", "https://b.example/ is not an origin"),
    ("LINSERVE_CORS_ORIGINS", "HTTPS://a.example", "HTTPS://a.example is not an origin"),
    ("LINSERVE_CORS_ORIGINS", "https://a.example:443", "https://a.example:443 is not an origin"),
    ("LINSERVE_CORS_ORIGINS", "null", "null is not an origin"),
    ("LINSERVE_DRAIN_SECONDS", "inf", "LINSERVE_DRAIN_SECONDS"),
    ("LINSERVE_TRAINER_MEMORY", "1000000", "LINSERVE_TRAINER_MEMORY: the trainer itself takes"),
    ("LINSERVE_WORKER_MEMORY", "1000000", "LINSERVE_WORKER_MEMORY: Input should be greater than or equal to 67108864"),
    ("LINSERVE_TRAINER_NAME", "../../x", "LINSERVE_TRAINER_NAME"),
    ("LINSERVE_TRAINER_NAME", "team/a", "LINSERVE_TRAINER_NAME"),
    ("LINSERVE_TRAINER_NAME", ".hidden", "LINSERVE_TRAINER_NAME"),
    ("LINSERVE_TRAINER_NAME", "a" * 65, "LINSERVE_TRAINER_NAME"),
    ("linserve_models", "elsewhere", "linserve_models: names of settings are written in capitals"),
    ("LINSERVE_DATABASE_URL", "sqlite:///", "expected a file after sqlite:///"),
    ("LINSERVE_DATABASE_URL", "sqlite:///:memory:", "expected a file after sqlite:///"),
    ("LINSERVE_DATABASE_URL", "sqlite:///file:jobs?mode=memory&uri=true", "expected a file after sqlite:///"),
    ("LINSERVE_DATABASE_URL", "nonsense", "LINSERVE_DATABASE_URL"),
    ("LINSERVE_DATABASE_URL", "mysql://user@host/jobs", "LINSERVE_DATABASE_URL"),
    ("LINSERVE_DATABASE_URL", UNREADABLE, "LINSERVE_DATABASE_URL"),
]


# One setting for each check. The other ones would need a process each, and all of them end the start in one place.
AT_THE_START = [WRONG[number] for number in (0, 4, 7, -1)]


def test_variables_of_the_client_do_not_stop_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINSERVE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LINSERVE_URL", "http://127.0.0.1:8000")
    monkeypatch.setenv("LINSERVE_API_KEY", "key")

    assert load().state_dir == tmp_path


@pytest.mark.parametrize(("name", "value", "reason"), WRONG)
def test_invalid_setting_is_rejected_with_a_reason_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv("LINSERVE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match=re.escape(reason)) as error:
        load_config()

    assert "sec@ret" not in str(error.value)


@pytest.mark.parametrize(("name", "value", "reason"), AT_THE_START)
def test_invalid_setting_ends_the_start_with_one_log_line_that_names_it(
    tmp_path: Path, name: str, value: str, reason: str
) -> None:
    given = {"LINSERVE_STATE_DIR": str(tmp_path), "UVICORN_WORKERS": "2", "UVICORN_PORT": "0", name: value}
    command = [sys.executable, "-m", "app.serve"]

    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | given, capture_output=True, text=True, check=False, timeout=120
    )

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    record = json.loads(line)
    assert (record["level"], record["message"]) == ("CRITICAL", "not started")
    assert reason in record["reason"]
    assert "sec@ret" not in line


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().allowed_origins == frozenset()
    origins = {"https://app.example.org", "http://localhost:3000", "http://[::1]:8080"}
    monkeypatch.setenv("LINSERVE_CORS_ORIGINS", ", ".join(origins))
    assert load().allowed_origins == origins


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////tmp/jobs",
        "postgresql://user:p%40ss@host/jobs",  # pragma: allowlist secret
        "postgresql:///jobs?host=/run",
    ],
)
def test_job_database_is_sqlite_or_postgres(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("LINSERVE_DATABASE_URL", url)
    assert load().job_database_url == url


@pytest.mark.parametrize("command", [["uvicorn", "app.main:app", "--port", "0"], ["app.trainer"]])
def test_every_entry_point_logs_which_setting_is_invalid(tmp_path: Path, command: list[str]) -> None:
    given = {"LINSERVE_STATE_DIR": str(tmp_path), "LINSERVE_TRAINER_NAME": ""}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=os.environ | given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    record = json.loads(next(line for line in done.stderr.splitlines() if "not started" in line))
    assert record["reason"].startswith("LINSERVE_TRAINER_NAME: it is empty")
    assert "Traceback" not in done.stderr


def test_variables_that_kubernetes_sets_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "tcp://10.0.0.1:8000"
    given = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8000", "SERVICE_PORT_HTTP": "8000", "PORT": address}
    for name, value in {**given, "PORT_8000_TCP": address, "PORT_8000_TCP_PROTO": "tcp"}.items():
        monkeypatch.setenv(f"LINSERVE_{name}", value)
    assert load().default_model == "crop-yield"
