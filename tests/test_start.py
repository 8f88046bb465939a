"""Start of the service, and signals that arrive meanwhile."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn.main  # noqa: F401 - the module, whose name in uvicorn is that of the command
from service import MAX_SECONDS, ROOT, Service, copy_models, wait_for

from app import logs, serve

TERMINATED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)
FIRST_PROCESS = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
# A library of the settings, which is the first large one to be loaded.
FIRST_LIBRARY = "pydantic_core"


@contextlib.contextmanager
def starting(folder: Path, *before: str, workers: int = 1) -> "Iterator[subprocess.Popen[bytes]]":
    environment = os.environ | {
        "LINSERVE_STATE_DIR": str(folder / "state"),
        "LINSERVE_MODELS_DIR": str(copy_models(folder)),
        "PYTHONPATH": str(ROOT),
        "UVICORN_PORT": "0",
        "UVICORN_WORKERS": str(workers),
    }
    command = [*before, sys.executable, "-m", "app.serve"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def left_behind(folder: Path) -> list[str]:
    """Return the command lines of the processes of the service in this folder."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"LINSERVE_STATE_DIR={folder / 'state'}".encode() in (process / "environ").read_bytes().split(b"\0"):
                commands.append((process / "cmdline").read_text().replace("\0", " "))
    return commands


def catches(pid: int, number: int) -> bool:
    caught = re.search("^SigCgt:\t([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert caught
    return bool(int(caught[1], 16) >> (number - 1) & 1)


def only_child(pid: int) -> int | None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def test_first_process_of_a_container_handles_sigterm_before_it_loads_large_libraries(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*FIRST_PROCESS, "true"], check=False).returncode != 0:
        pytest.skip("process namespaces are not allowed here")
    with starting(tmp_path, *FIRST_PROCESS) as outside:
        wait_for(lambda: only_child(outside.pid))
        service = only_child(outside.pid)
        assert service is not None
        while True:
            is_loaded = FIRST_LIBRARY in Path(f"/proc/{service}/maps").read_text()
            if catches(service, signal.SIGTERM):  # read last, so that a library that is loaded meanwhile does not count
                break
            assert not is_loaded
        os.kill(service, signal.SIGTERM)
        assert outside.wait(MAX_SECONDS) == 128 + signal.SIGTERM


def test_the_installed_command_starts_the_server() -> None:
    command = [str(Path(sys.executable).with_name("linserve-server")), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--workers" in done.stdout


def test_service_that_waits_for_its_job_database_stops_without_it(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "jobs.sqlite")) as other:
        other.execute("BEGIN EXCLUSIVE")
        service = Service(tmp_path, trainer_mode="external").start()
        assert service.stop() == -signal.SIGTERM
        assert "job database out of reach" not in service.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "moments"), [(1, (0.0, 0.8, 1.6)), (2, (0.4, 1.2, 2.0))])
def test_signal_at_any_moment_of_the_start_ends_the_service_and_all_its_processes(
    tmp_path: Path, workers: int, moments: tuple[float, ...]
) -> None:
    for moment in moments:
        folder = tmp_path / str(moment)
        folder.mkdir()
        with starting(folder, workers=workers) as service:
            time.sleep(moment)  # No event marks these moments.
            service.terminate()
            assert service.wait(MAX_SECONDS) in TERMINATED
            wait_for(lambda: left_behind(folder) == [])  # noqa: B023 - called at once


@pytest.mark.parametrize(
    ("arguments", "variables", "port"),
    [
        ([], {}, 8000),
        (["serve"], {}, 8080),
        (["serve", "--port", "9000"], {}, 9000),
        (["serve"], {"UVICORN_PORT": "9001"}, 9001),
        ([], {"AIP_HTTP_PORT": "9002"}, 9002),
        ([], {"AIP_HTTP_PORT": "9002", "UVICORN_PORT": "9001"}, 9001),
        (["--port", "9000"], {"AIP_HTTP_PORT": "9002"}, 9000),
    ],
)
def test_port_is_the_one_that_is_given_or_that_of_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], variables: dict[str, str], port: int
) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("UVICORN_")}
    folders = {"LINSERVE_STATE_DIR": str(tmp_path / "state"), "LINSERVE_MODELS_DIR": str(tmp_path / "models")}
    ports: list[int] = []
    monkeypatch.setattr(os, "environ", inherited | folders | variables)
    monkeypatch.setattr(sys, "argv", ["linserve-server", *arguments])
    monkeypatch.setattr(logs, "configure", lambda: None)
    monkeypatch.setattr(sys.modules["uvicorn.main"], "run", lambda *_, **options: ports.append(options["port"]))
    with pytest.raises(SystemExit) as ended:
        serve.main()
    assert (ports, ended.value.code) == ([port], 0)
