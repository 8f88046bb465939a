"""The command `linserve-health`, which finds the service by itself."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import ROOT, Service, copy_models, wait_for

from app.health_check import listening

TRIES = 20


def healthy(pid: int, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Repeat the check if it fails, because it waits 2 s and a busy machine may take longer. Return the last one."""
    for _ in range(TRIES):
        checked = health(pid, **environment)
        if checked.returncode == 0:
            break
    return checked


def health(pid: int, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app.health_check", str(pid)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )


@contextlib.contextmanager
def serving(folder: Path, *options: str, **environment: str) -> Iterator[int]:
    """Start a service and yield its process id once it listens."""
    given = os.environ | {
        "LINSERVE_STATE_DIR": str(folder / "state"),
        "LINSERVE_MODELS_DIR": str(copy_models(folder)),
        "LINSERVE_TRAINER_MODE": "external",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    command = [sys.executable, "-m", "app.serve", *options]
    with subprocess.Popen(command, cwd=folder, env=given, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: listening(Path(f"/proc/{process.pid}")))
            yield process.pid
        finally:
            process.terminate()


def test_live_service_is_healthy_with_any_proxy_configured(service: Service) -> None:
    checked = healthy(service.pid, http_proxy="http://127.0.0.1:9", ALL_PROXY="http://127.0.0.1:9", UVICORN_PORT="9")
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (("--uds", "place of the socket"), {}),
        pytest.param(
            ("--ssl-certfile", "certificate", "--ssl-keyfile", "key"),
            {"UVICORN_HOST": "::", "UVICORN_PORT": "0"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["unix", "IPv6 and TLS"],
)
def test_address_is_found_for_every_way_to_choose_it(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str]
) -> None:
    if "--ssl-keyfile" in options:
        command = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=somewhere.else -keyout key -out certificate"
        )
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    with serving(tmp_path, *options, **environment) as pid:
        checked = healthy(pid)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_silent_process_and_unexpected_response_are_faults(tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        silent = health(process.pid)
    assert silent.returncode == 1
    assert silent.stderr.startswith("No process of the service listens.")

    command = [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as other:
        try:
            wait_for(lambda: listening(Path(f"/proc/{other.pid}")))
            wait_for(
                lambda: "expected status 200 from /health/live, received b'HTTP/1.0 404" in health(other.pid).stderr
            )
            assert health(other.pid).returncode == 1
        finally:
            other.terminate()
