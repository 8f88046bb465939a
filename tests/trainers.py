"""External trainers of a service."""

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
    """Run a trainer of this name, in the control group `group` if it is given. Its log is next to the service's."""
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
    """Return a command that runs `command` in the control group, if there is one."""
    if group is None:
        return command
    return ["sh", "-c", f'echo $$ >"{group}/cgroup.procs" && exec "$@"', "sh", *command]


def wait_until_ready(service: Service, name: str) -> None:
    """Wait until a trainer is ready. It starts slowly on a busy machine, because it runs on idle CPU time only."""
    deadline = time.monotonic() + READY_SECONDS
    while "trainer ready" not in log_of(service, name).read_text():
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)


def log_of(service: Service, name: str) -> Path:
    return service.state.parent / f"{name}.log"
