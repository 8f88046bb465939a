"""Trainers that run apart from a service."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from service import POLL_SECONDS, ROOT, Service

READY_SECONDS = 120.0


@contextlib.contextmanager
def trainer(
    service: Service, name: str, *, group: Path | None = None, **settings: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A trainer of this name, whose log is beside the service's, in a control group if one is given."""
    given = {
        "LINSERVE_STATE_DIR": str(service.state),
        "LINSERVE_MODELS_DIR": str(service.models),
        "LINSERVE_TRAINER_NAME": name,
    }
    with log_of(service, name).open("ab") as log:
        process = subprocess.Popen(
            in_group(group, [sys.executable, "-m", "app.trainer"]),
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | given | settings,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def in_group(group: Path | None, command: list[str]) -> list[str]:
    """A command that runs `command` in a control group."""
    if group is None:
        return command
    return ["sh", "-c", f'echo $$ >"{group}/cgroup.procs" && exec "$@"', "sh", *command]


def wait_until_ready(service: Service, name: str) -> None:
    """Wait for a trainer that has just been started. It has only the time that nothing else on the machine wants."""
    deadline = time.monotonic() + READY_SECONDS
    while "trainer ready" not in log_of(service, name).read_text():
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)


def log_of(service: Service, name: str) -> Path:
    return service.state.parent / f"{name}.log"
